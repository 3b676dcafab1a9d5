"""Plan of a comparison: its arms, its jobs, and the estimates that come out of them."""

from typing import Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from simgan_core.config import EstimatorConfig
from simgan_core.estimation.eye_pairs import MIN_AGREEMENT, MIN_SHARE_PAIRED
from storage.schema import DatasetInfo
from tasks.comparison.arms import ArmName, MethodName, Protocol
from tasks.comparison.error_metrics import MeasureName


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class LabelSpread(_Model):
    """Mean and standard deviation of a distribution of gaze, as pitch and yaw in degrees."""

    mean_deg: tuple[float, float]
    sd_deg: tuple[float, float]

    def __str__(self) -> str:
        (pitch, yaw), (pitch_sd, yaw_sd) = self.mean_deg, self.sd_deg
        return f"pitch {pitch:+.1f} ± {pitch_sd:.1f}°, yaw {yaw:+.1f} ± {yaw_sd:.1f}°"

    def metrics(self, name: str) -> dict[str, float]:
        """Return the figures by name, as MLflow keeps them."""
        return {
            f"labels.{name}.{axis}_{what}_deg": values[number]
            for what, values in (("mean", self.mean_deg), ("sd", self.sd_deg))
            for number, axis in enumerate(("pitch", "yaw"))
        }


class LandmarkTeacher(_Model):
    """What gaze from eye landmarks was worth on unlabelled images, by no label."""

    share: float
    """Share of the images in which landmarks were found."""
    agreement: float
    """Correlation with the estimators' predictions, the lesser of pitch and yaw."""
    teaches: bool
    """Whether predictions were averaged with it."""
    pitch_difference_deg: float | None
    """Its mean pitch less the estimators'; None where no landmarks were found."""
    sets_mean_pitch: bool
    """Whether the mean pitch is its own; else the estimators'."""

    def __str__(self) -> str:
        found = f"{self.share:.0%} of the images, correlation {self.agreement:.2f}"
        if not self.teaches:
            return f"gaze from eye landmarks not used ({found})"
        mean = "" if self.sets_mean_pitch else "not "
        return (
            f"predictions averaged with gaze from eye landmarks ({found}), whose mean pitch is "
            f"{mean}used ({self.pitch_difference_deg:+.1f}° from the estimators')"
        )

    def metrics(self, name: str) -> dict[str, float]:
        """Return the figures by name, as MLflow keeps them."""
        found = {
            "share": self.share,
            "agreement": self.agreement,
            "teaches": float(self.teaches),
            "sets_mean_pitch": float(self.sets_mean_pitch),
        }
        if self.pitch_difference_deg is not None:
            found["pitch_difference_deg"] = self.pitch_difference_deg
        return {f"{name}.landmarks.{key}": value for key, value in found.items()}


class EyePairs(_Model):
    """What both eyes of a photograph were worth on unlabelled images, by no label."""

    share: float
    """Share of the images whose other eye is among them."""
    agreement: float
    """Correlation of the two eyes' pitches or mirrored yaws, the lesser."""
    is_used: bool
    """Whether predictions were averaged over both eyes, and look-alikes are alike in both."""

    def __str__(self) -> str:
        found = f"{self.share:.0%} of the images, correlation {self.agreement:.2f}"
        if not self.is_used:
            return (
                f"pairs of eyes not used ({found}; needed are {MIN_SHARE_PAIRED:.0%} and "
                f"{MIN_AGREEMENT}, with right eyes mirrored)"
            )
        return f"predictions averaged over both eyes ({found})"

    def metrics(self, name: str) -> dict[str, float]:
        """Return the figures by name, as MLflow keeps them."""
        found = {"share": self.share, "agreement": self.agreement, "is_used": float(self.is_used)}
        return {f"{name}.eye_pairs.{key}": value for key, value in found.items()}


class PseudoLabelsRef(_Model):
    """Labels of unlabelled real images by teachers' predictions, centred by look."""

    id: str
    num_sources: int
    """Simulators whose estimators taught."""
    num_neighbours: int
    num_steps: int
    """Steps of the random walk that averaged the predictions of look-alikes; 0: not centred."""
    agreement: float | None
    """Correlation of the simulators' centred predictions; None with a single one."""
    agreement_uncentred: float | None
    """The same of predictions as they are."""
    landmarks: LandmarkTeacher | None = None
    """Eye landmarks beside the estimators; None where they were not asked."""
    eye_pairs: EyePairs | None = None
    """Both eyes of each photograph; None where ids name no pairs, or they were not asked."""
    by_head_pose: bool = False
    """Whether look-alikes have like head poses, too."""
    refined_weight: float | None = None
    """Weight of refined images' estimators against synthetic images'; None where one dataset of
    this simulator taught."""
    spread: LabelSpread

    def __str__(self) -> str:
        centred = (
            "predictions as they are"
            if self.num_steps == 0
            else f"predictions centred among {self.num_neighbours} look-alikes"
            f"{' of like head pose' if self.by_head_pose else ''} over {self.num_steps} steps"
        )
        agree = (
            ""
            if self.agreement is None
            else f", where {self.num_sources} simulators' estimators agree best (correlation "
            f"{self.agreement:.2f}, {self.agreement_uncentred:.2f} uncentred)"
        )
        by_landmarks = "" if self.landmarks is None else f"{self.landmarks}; "
        by_pairs = "" if self.eye_pairs is None else f"{self.eye_pairs}; "
        weighted = ""
        if self.refined_weight is not None:
            by = "by eye landmarks" if self.landmarks and self.landmarks.teaches else "equally"
            weighted = (
                f"teachers weighted {by}, {self.refined_weight:.0%} refined and "
                f"{1 - self.refined_weight:.0%} synthetic; "
            )
        return f"{weighted}{by_landmarks}{by_pairs}{centred}{agree}; labels {self.spread}"

    def metrics(self, arm: str) -> dict[str, float]:
        """Return the figures by name, as MLflow keeps them."""
        found = {"num_neighbours": float(self.num_neighbours), "num_steps": float(self.num_steps)}
        if self.agreement is not None and self.agreement_uncentred is not None:
            found["agreement"] = self.agreement
            found["agreement_uncentred"] = self.agreement_uncentred
        return (
            {f"{arm}.centring.{name}": value for name, value in found.items()}
            | (
                {}
                if self.refined_weight is None
                else {f"{arm}.refined_weight": self.refined_weight}
            )
            | ({} if self.landmarks is None else self.landmarks.metrics(arm))
            | ({} if self.eye_pairs is None else self.eye_pairs.metrics(arm))
            | self.spread.metrics(arm)
        )


class Arm(_Model):
    """Arm of a comparison: a training set and the method trained on it."""

    name: str
    """Name in files and in MLflow."""
    title: str
    """Name in tables."""
    training_set: ArmName
    datasets: tuple[str, ...]
    """Places of the datasets that it is made of; joined, and under leave-one-person-out joined to
    the other people of the test set."""
    teachers_of: str | None = None
    """Place of unlabelled real images to train on instead, with the predictions of estimators that
    learnt from each of `datasets`."""
    teachers: tuple[str, ...] = ()
    """Places of other simulators' datasets whose estimators predict as well."""
    pseudo_labels: PseudoLabelsRef | None = None
    """Those predictions, once they are made."""
    look: Literal["histogram", "fourier"] | None = None
    """Give each image the histogram, or the low-frequency amplitudes, of a real one chosen at
    random."""
    look_reference: str | None = None
    """Place of the dataset of those real images."""
    matched: bool = False
    """Draw synthetic and refined rows as often as the comparison's label prior says."""
    augmented: bool = False
    num_rows: int | None = None
    """Rows drawn by the seed from each dataset; all where None."""
    method: MethodName | None = None
    """Another method than the comparison's network."""


class Job(NamedTuple):
    """One training, the unit of work of a comparison."""

    arm: Arm
    seed: int
    person: str
    """Person left out, under leave-one-person-out; else empty."""

    @property
    def name(self) -> str:
        """Name within the comparison."""
        return f"{self.arm.name}-seed{self.seed}" + (f"-{self.person}" if self.person else "")


class LabelPriorRef(_Model):
    """Reference to a label prior: its file and its summary."""

    id: str
    path: str
    unlabelled_digest: str
    estimated: LabelSpread
    """Of the unlabelled real images."""
    training: LabelSpread
    """Of the synthetic labels as they are."""
    error_sd_deg: tuple[float, float]
    """Assumed error of the predictions, pitch and yaw."""
    held_out_by: Literal["identity", "row", "none"]
    """Unit by which synthetic rows were held out to estimate it; none: pseudo-labels, whose mean
    pitch is that of eye landmarks, have an error that is known from other people."""
    signal_share: tuple[float, float]
    """Share of the predictions' variance that is not their error's, pitch and yaw."""
    num_iterations: int
    effective_share: float
    """Kish's effective sample size of the weighted synthetic rows, as a share of all."""
    doubt: str
    """Why labels are better left unmatched; empty where the estimate is trusted."""

    def __str__(self) -> str:
        doubt = f"; NOT to be trusted: {self.doubt}" if self.doubt else ""
        by = " by estimators and eye landmarks" if self.held_out_by == "none" else ""
        return (
            f"gaze of unlabelled real images estimated{by} at {self.estimated}; synthetic labels: "
            f"{self.training}; {self.effective_share:.0%} of the synthetic rows in effect{doubt}"
        )

    def metrics(self) -> dict[str, float]:
        """Return the figures by name, as MLflow keeps them."""
        return {
            **self.estimated.metrics("estimated"),
            **self.training.metrics("synthetic"),
            "labels.error_pitch_sd_deg": self.error_sd_deg[0],
            "labels.error_yaw_sd_deg": self.error_sd_deg[1],
            "labels.signal_pitch_share": self.signal_share[0],
            "labels.signal_yaw_share": self.signal_share[1],
            "labels.effective_share": self.effective_share,
            "labels.trusted": float(not self.doubt),
        }


class EstimatorPlan(_Model):
    """Estimators to train; its id follows from the content of all that takes part."""

    id: str
    arms: tuple[Arm, ...]
    seeds: int
    estimator: EstimatorConfig
    mlflow_run_id: str
    unlabelled: str | None = None
    """Unlabelled real images whose labels' distribution arms are matched to; None: unmatched."""
    prior_source: str | None = None
    """Dataset by whose images and labels that distribution is estimated."""
    match_doubtful_labels: bool = False
    """Match labels even where that distribution is doubtful."""
    label_prior: LabelPriorRef | None = None
    """That distribution, once it is estimated."""
    judged_on: str | None = None
    """Unlabelled real images on whose pseudo-labels estimators are judged; None: they are not."""
    judged_by: tuple[str, ...] = ()
    """Places of the simulators' datasets whose estimators predict those pseudo-labels."""
    pseudo_labels: PseudoLabelsRef | None = None
    """Those pseudo-labels, once they are made."""
    datasets: dict[str, DatasetInfo] = {}
    """Every dataset that takes part, by its place as arms name it, as it was when this was
    planned."""

    @property
    def jobs(self) -> list[Job]:
        """All trainings, in order. Methods that draw nothing at random are trained once."""
        return [
            Job(arm, seed, person)
            for arm in self.arms
            for seed in range(1 if arm.method else self.seeds)
            for person in self.left_out
        ]

    @property
    def left_out(self) -> tuple[str, ...]:
        """People without whom each training is repeated; one empty name where nobody is."""
        return ("",)


Plan = TypeVar("Plan", bound=EstimatorPlan)


class Comparison(EstimatorPlan):
    """Plan of a comparison or an evaluation on labelled test images."""

    measure: MeasureName
    protocol: Protocol
    test: str
    test_digest: str
    people: tuple[str, ...]
    """People in the test set, where its ids name them."""
    people_in_common: dict[str, tuple[str, ...]] = {}
    """Who of them is also in other real images that take part, by their role; of protocols by
    person, which intend it, nobody."""
    caveat: str = ""
    """Caveat about the test for the verdict; empty if there is none."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """People without whom each training is repeated; one empty name where nobody is."""
        return self.people if self.protocol.name == "leave-one-person-out" else ("",)

    @property
    def synthetic(self) -> str | None:
        """Place of the synthetic dataset, if any arm uses it."""
        return self._last_dataset_of(
            {"synthetic", "synthetic_unmatched", "synthetic_augmented", "real_synthetic"}
        )

    @property
    def refined(self) -> str | None:
        """Place of the refined dataset, if any arm uses it."""
        return self._last_dataset_of({"refined", "refined_augmented", "real_refined"})

    def _last_dataset_of(self, training_sets: set[str]) -> str | None:
        """Return the last dataset of such an arm: mixtures name the real part first."""
        return next(
            (arm.datasets[-1] for arm in self.arms if arm.training_set in training_sets), None
        )


class Estimate(NamedTuple):
    """One estimator's predictions on the test set, or on one person of it, kept in a file."""

    arm: str
    seed: int
    person: str
    path: str
    model: str | None
    """File of the estimator, where one is kept."""
    validation_error: float
    """Its error on the part of its own training set that was kept out; NaN where none was."""
    run_id: str = ""
    """MLflow run that holds these files too; empty where they are on this machine for sure."""
    pseudo_label_error_deg: float | None = None
    """Its error on the pseudo-labels of unlabelled images; None where it is not judged."""
