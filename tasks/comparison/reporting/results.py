"""Results of a comparison: errors with confidence intervals, paired differences, the verdict."""

from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field, model_serializer

from tasks.comparison.arms import Protocol
from tasks.comparison.error_metrics import ERROR_METRICS, MeasureName
from tasks.comparison.plan import LabelPriorRef, LabelSpread, PseudoLabelsRef


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class ArmResult(_Model):
    """Error of an arm's estimators on the real test images."""

    title: str
    measure: MeasureName
    error: float
    ci95: tuple[float, float]
    within: float
    median: float
    seeds: int
    pseudo_label_error_deg: float | None = None
    """Mean over seeds; None where the arm is not judged on unlabelled images."""
    pseudo_label_error_sd_deg: float | None = None
    """Between seeds; None with a single one."""

    @model_serializer
    def _with_units(self) -> dict[str, Any]:
        measure = ERROR_METRICS[self.measure]
        return {
            measure.error_key: self.error,
            "ci95": list(self.ci95),
            measure.within_key: self.within,
            f"median_{measure.error_key}": self.median,
            "pseudo_label_error_deg": self.pseudo_label_error_deg,
            "pseudo_label_error_sd_deg": self.pseudo_label_error_sd_deg,
            "title": self.title,
            "seeds": self.seeds,
        }


class Difference(_Model):
    """A paired difference of mean errors: below zero where the first is better."""

    measure: MeasureName
    error: float
    ci95: tuple[float, float]

    @model_serializer
    def _with_units(self) -> dict[str, Any]:
        return {ERROR_METRICS[self.measure].error_key: self.error, "ci95": list(self.ci95)}

    @property
    def is_better(self) -> bool:
        """True where the first is shown to be better."""
        return self.ci95[1] < 0

    @property
    def is_worse(self) -> bool:
        """True where the first is shown to be worse."""
        return self.ci95[0] > 0


class PupilShift(_Model):
    """Shift of the pupils by refinement, in pixels of the stored images."""

    mean: float
    sd: float
    median: float


class LabelMatching(_Model):
    """The label distribution that arms were matched to, and the true one of the test set."""

    prior: LabelPriorRef
    test: LabelSpread
    matched: bool
    """True where any arm was matched; with a doubtful estimate none is."""

    def __str__(self) -> str:
        prior = self.prior
        done = (
            "Labels matched: synthetic and refined rows are drawn as often as their gaze is "
            "estimated to occur among unlabelled real images"
            if self.matched
            else "Labels NOT matched, since the estimate of how gaze is distributed among "
            "unlabelled real images is doubtful"
        )
        why = f": {prior.doubt}" if prior.doubt else ""
        return (
            f"{done}{why} (estimated {prior.estimated}; true on the test images: {self.test}; "
            f"synthetic labels: {prior.training}; {prior.effective_share:.0%} of the synthetic "
            "rows in effect if matched)."
        )


class Results(_Model):
    """Results that follow from predictions alone, the same from files and from MLflow."""

    comparison: str
    measure: MeasureName
    protocol: Protocol
    arms: dict[str, ArmResult]
    differences: dict[str, Difference]
    """`a_minus_b` by name."""
    test_digest: str
    num_test: int
    num_people: int | None
    people_in_common: dict[str, tuple[str, ...]] = {}
    """People of the test set who are also in other real images, by these images' role."""
    seeds: int
    pupil_shift_px: PupilShift | None
    label_matching: LabelMatching | None
    pseudo_labels: dict[str, PseudoLabelsRef]
    """Pseudo-labels of the adapted arms, by arm."""
    judged_by: PseudoLabelsRef | None = None
    """Pseudo-labels of the errors on them."""
    verdict: str
    """The answer in a sentence or a few; the first is the one."""


class ComparisonResult(Results):
    """Result of a comparison and its output locations, as `compare --json` prints it."""

    test_evaluations: int
    """Predictions on this test set so far, all comparisons together."""
    registered_model: str | None
    """The estimator to use, as MLflow names it."""
    champion: str | None = None
    """Which refiner is MLflow's champion after this, and why; None where nothing says so."""
    mlflow_run_id: str
    flow_run: str | None
    report: str

    @computed_field
    def synthetic(self) -> ArmResult | None:
        """The arm of this name, as `arms` has it."""
        return self.arms.get("synthetic")

    @computed_field
    def tone_matched(self) -> ArmResult | None:
        """The arm of this name, as `arms` has it."""
        return self.arms.get("tone_matched")

    @computed_field
    def refined(self) -> ArmResult | None:
        """The arm of this name, as `arms` has it."""
        return self.arms.get("refined")

    @computed_field
    def real(self) -> ArmResult | None:
        """The arm of this name, as `arms` has it."""
        return self.arms.get("real")

    @computed_field
    def refined_minus_synthetic(self) -> Difference | None:
        """The difference of this name, as `differences` has it."""
        return self.differences.get("refined_minus_synthetic")

    @computed_field
    def refined_minus_tone_matched(self) -> Difference | None:
        """The difference of this name, as `differences` has it."""
        return self.differences.get("refined_minus_tone_matched")
