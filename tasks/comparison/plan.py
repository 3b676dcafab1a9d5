"""Plan of a comparison: arms, jobs, and the predictions that come out of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from storage.schema import DatasetInfo
from tasks.comparison.arms import ArmName, ComparisonConfig, MethodName, Protocol
from tasks.comparison.classical_baselines import TITLES as METHOD_TITLES
from tasks.comparison.error_metrics import ERROR_METRICS, ErrorMetric, MeasureName, errors_of

ARM_TITLES: dict[ArmName, str] = {
    "synthetic_unmatched": "synthetic, labels unmatched",
    "synthetic": "synthetic",
    "tone_matched": "synthetic, tone-matched",
    "fourier": "synthetic, Fourier amplitudes",
    "synthetic_augmented": "synthetic, augmented",
    "refined": "refined",
    "refined_augmented": "refined, augmented",
    "synthetic_refined": "synthetic + refined",
    "adapted": "unlabelled real, taught by synthetic",
    "adapted_refined": "unlabelled real, taught by refined",
    "real": "real (ceiling)",
    "real_synthetic": "real + synthetic",
    "real_refined": "real + refined",
}
_AUGMENTED = ("synthetic_augmented", "refined_augmented")
_SIZED: tuple[ArmName, ...] = ("synthetic", "refined")
_LOOKS: dict[ArmName, Literal["histogram", "fourier"]] = {
    "tone_matched": "histogram",
    "fourier": "fourier",
}
_ADAPTED: tuple[ArmName, ...] = ("adapted", "adapted_refined")
_WITH_REAL: tuple[ArmName, ...] = ("real", "real_synthetic", "real_refined")

_PERSON = re.compile(r"p\d+|person-.+")


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
    spread: LabelSpread

    def __str__(self) -> str:
        centred = (
            "predictions as they are"
            if self.num_steps == 0
            else f"predictions centred among {self.num_neighbours} look-alikes over "
            f"{self.num_steps} steps"
        )
        agree = (
            ""
            if self.agreement is None
            else f", where {self.num_sources} simulators' estimators agree best (correlation "
            f"{self.agreement:.2f}, {self.agreement_uncentred:.2f} uncentred)"
        )
        return f"{centred}{agree}; labels {self.spread}"

    def metrics(self, arm: str) -> dict[str, float]:
        """Return the figures by name, as MLflow keeps them."""
        found = {"num_neighbours": float(self.num_neighbours), "num_steps": float(self.num_steps)}
        if self.agreement is not None and self.agreement_uncentred is not None:
            found["agreement"] = self.agreement
            found["agreement_uncentred"] = self.agreement_uncentred
        return {f"{arm}.centring.{name}": value for name, value in found.items()} | (
            self.spread.metrics(arm)
        )


class Arm(_Model):
    """One training set and what learns from it."""

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
    learnt from `datasets`."""
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
    """One training: the part of a comparison that is done at once."""

    arm: Arm
    seed: int
    person: str
    """Person left out, under leave-one-person-out; else empty."""

    @property
    def name(self) -> str:
        """Name within the comparison."""
        return f"{self.arm.name}-seed{self.seed}" + (f"-{self.person}" if self.person else "")


class LabelPriorRef(_Model):
    """An estimated distribution of real labels: its file, and what it says."""

    id: str
    path: str
    unlabelled_digest: str
    estimated: LabelSpread
    """Of the unlabelled real images."""
    training: LabelSpread
    """Of the synthetic labels as they are."""
    error_sd_deg: tuple[float, float]
    """Assumed error of the predictions, pitch and yaw."""
    held_out_by: Literal["identity", "row"]
    """Unit by which synthetic rows were held out to estimate it."""
    signal_share: tuple[float, float]
    """Share of the predictions' variance that is not their error's, pitch and yaw."""
    num_iterations: int
    effective_share: float
    """Kish's effective sample size of the weighted synthetic rows, as a share of all."""
    doubt: str
    """Why labels are better left unmatched; empty where the estimate is trusted."""

    def __str__(self) -> str:
        doubt = f"; NOT to be trusted: {self.doubt}" if self.doubt else ""
        return (
            f"gaze of unlabelled real images estimated at {self.estimated}; synthetic labels: "
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


class Comparison(_Model):
    """Plan of a comparison; its id follows from the content of all that takes part."""

    id: str
    measure: MeasureName
    protocol: Protocol
    arms: tuple[Arm, ...]
    test: str
    test_digest: str
    people: tuple[str, ...]
    """People in the test set, where its ids name them."""
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
    datasets: dict[str, DatasetInfo] = {}
    """Every dataset that takes part, by its place as arms name it, as it was when this was
    planned."""

    @property
    def jobs(self) -> list[Job]:
        """All trainings, in order. Methods that draw nothing at random are trained once."""
        left_out = self.people if self.protocol.name == "leave-one-person-out" else ("",)
        return [
            Job(arm, seed, person)
            for arm in self.arms
            for seed in range(1 if arm.method else self.seeds)
            for person in left_out
        ]

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
        """Mixtures name the real part first."""
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


def choose_arms(
    config: ComparisonConfig,
    synthetic: str,
    refined: str,
    real: str | None,
    look_reference: str | None,
    num_rows: int,
    *,
    matched: bool,
    teachers: tuple[str, ...] = (),
) -> tuple[Arm, ...]:
    """Make the arms that a comparison can have of what it is given.

    `num_rows` are those of the synthetic dataset; `matched`: labels are matched; `teachers`: other
    simulators' datasets for the adapted arms. Under leave-one-person-out the real images are the
    test set's other people, and every arm has them.
    """
    if config.protocol.name == "leave-one-person-out":
        extra: dict[ArmName, tuple[str, ...]] = {
            "real": (),
            "real_synthetic": (synthetic,),
            "real_refined": (refined,),
        }
        return tuple(_arm(name, extra[name]) for name in _WITH_REAL if name in config.arms)
    datasets: dict[ArmName, tuple[str, ...]] = {
        "synthetic": (synthetic,),
        "synthetic_augmented": (synthetic,),
        "refined": (refined,),
        "refined_augmented": (refined,),
        "synthetic_refined": (synthetic, refined),
    }
    if matched:
        datasets["synthetic_unmatched"] = (synthetic,)
    if look_reference is not None:
        datasets |= dict.fromkeys(_LOOKS, (synthetic,))
        datasets |= {"adapted": (synthetic,), "adapted_refined": (refined,)}
    if real is not None:
        datasets |= {"real": (real,), "real_synthetic": (real, synthetic)}
        datasets["real_refined"] = (real, refined)
    arms = [
        _arm(name, datasets[name], look_reference, teachers)
        for name in ARM_TITLES
        if name in config.arms and name in datasets
    ]
    if config.protocol.name == "cross-domain":
        arms += _sized_arms(config, datasets, num_rows)
        arms += [
            Arm(
                name=f"{method}_{name}",
                title=f"{METHOD_TITLES[method]}, {name}",
                training_set=name,
                datasets=datasets[name],
                method=method,
            )
            for method in config.methods
            for name in _SIZED
            if name in config.arms
        ]
    if matched:
        # Teachers have to know the broad distribution: trained on a narrow one they predict its
        # mean too often.
        as_they_are = {"synthetic_unmatched", "real", *_ADAPTED}
        arms = [
            arm.model_copy(update={"matched": arm.training_set not in as_they_are}) for arm in arms
        ]
    return tuple(arms)


def _arm(
    name: ArmName,
    datasets: tuple[str, ...],
    look_reference: str | None = None,
    teachers: tuple[str, ...] = (),
) -> Arm:
    return Arm(
        name=name,
        title=ARM_TITLES[name],
        training_set=name,
        datasets=datasets,
        look=_LOOKS.get(name),
        look_reference=look_reference if name in _LOOKS else None,
        teachers_of=look_reference if name in _ADAPTED else None,
        teachers=teachers if name in _ADAPTED else (),
        augmented=name in _AUGMENTED,
    )


def _sized_arms(
    config: ComparisonConfig, datasets: dict[ArmName, tuple[str, ...]], num_rows: int
) -> list[Arm]:
    wrong = [share for share in config.shares if not 0 < share < 1]
    if wrong:
        raise InputError(
            f"a share of the training set should be between 0 and 1, found {wrong[0]:g}; all rows "
            "take part by themselves"
        )
    sizes = sorted({max(2, round(share * num_rows)) for share in config.shares})
    return [
        Arm(
            name=f"{name}_{size}",
            title=f"{name}, {size:,} images",
            training_set=name,
            datasets=datasets[name],
            num_rows=size,
        )
        for name in _SIZED
        if name in config.arms
        for size in sizes
    ]


def person_of(sample_id: str) -> str:
    """Name whose image it is, or nobody ("").

    Whose it is says the first part of an id, if it is p and a number (`p00/day01/0005/left`) or
    begins with `person-` (`person-anna/3`). Any other first part may be a day or a folder: images
    that are grouped by those would look surer than they are, or less.
    """
    first, slash, _ = sample_id.partition("/")
    return first if slash and _PERSON.fullmatch(first) else ""


def people_in(ids: Iterable[str]) -> tuple[str, ...]:
    """Name all people, in order; empty where not every id says whose it is."""
    people = {person_of(sample_id) for sample_id in ids}
    return () if "" in people else tuple(sorted(people))


@dataclass(frozen=True)
class ArmPredictions:
    """All predictions of an arm: S seeds, N test images in the order of their ids."""

    ids: list[str]
    truth: NDArray[np.float32]
    """[N, …]"""
    predicted: NDArray[np.float32]
    """[S, N, …]"""
    errors: NDArray[np.float64]
    """[S, N] in the measure's unit."""
    within: NDArray[np.float64]
    """[S, N], share of an image's predictions that are right."""

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Each image's person as a number [N]; None where there are no people to tell apart."""
        people = people_in(self.ids)
        if len(people) < 2:
            return None
        number = {person: index for index, person in enumerate(people)}
        return np.array([number[person_of(sample_id)] for sample_id in self.ids])


def read_predictions(
    estimates: Iterable[Estimate], measure_name: MeasureName
) -> dict[str, ArmPredictions]:
    """Return the predictions of each arm's trainings, joined; arms in the order given.

    Raises InputError where two arms predict on different images: they must not be
    compared.
    """
    measure = ERROR_METRICS[measure_name]
    by_arm: dict[str, dict[int, list[Path]]] = {}
    for estimate in estimates:
        by_arm.setdefault(estimate.arm, {}).setdefault(estimate.seed, []).append(
            Path(estimate.path)
        )
    predictions = {name: _joined(seeds, measure) for name, seeds in by_arm.items()}
    first = next(iter(predictions))
    for name, found in predictions.items():
        if found.ids != predictions[first].ids:
            raise InputError(
                f"arm {name} predicts on {len(found.ids)} images and arm {first} on other "
                f"{len(predictions[first].ids)}: they are not of one comparison"
            )
    return predictions


def _joined(seeds: dict[int, list[Path]], measure: ErrorMetric) -> ArmPredictions:
    """Join the people of every seed, and stack the seeds."""
    parts = [_of_seed(seeds[seed], measure) for seed in sorted(seeds)]
    ids, truth, _ = parts[0]
    predicted = np.stack([each for _, _, each in parts])
    pairs = [errors_of(measure, truth, each) for each in predicted]
    errors, within = (np.stack(values) for values in zip(*pairs, strict=True))
    return ArmPredictions(ids, truth, predicted, errors, within)


def _of_seed(paths: list[Path], measure: ErrorMetric) -> tuple[list[str], Any, Any]:
    kept = [_read(path, measure) for path in paths]
    ids, truth, predicted = (np.concatenate(arrays) for arrays in zip(*kept, strict=True))
    order = np.argsort(ids, kind="stable")
    return ids[order].tolist(), truth[order], predicted[order]


def _read(path: Path, measure: ErrorMetric) -> tuple[Any, Any, Any]:
    with np.load(path) as kept:
        return kept["id"], kept[measure.label], kept["predicted"]
