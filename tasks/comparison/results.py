"""Results of a comparison: metrics with confidence intervals, paired differences, the verdict."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, computed_field, model_serializer

from simgan_core.stats.bootstrap import bootstrap_difference, bootstrap_mean
from tasks.comparison.arms import Protocol
from tasks.comparison.error_metrics import ERROR_METRICS, ErrorMetric, MeasureName
from tasks.comparison.label_prior import angles_deg, spread_of
from tasks.comparison.plan import (
    Arm,
    ArmPredictions,
    Comparison,
    LabelPriorRef,
    LabelSpread,
    PseudoLabelsRef,
)

BOOTSTRAP_SEED = 0
CHEAP = {
    "tone_matched": "histogram matching",
    "fourier": "Fourier amplitudes",
    "synthetic_augmented": "generic augmentation",
    "adapted": "adaptation to unlabelled images",
}
"""Alternatives without a refiner: refinement is worth its time where it beats them all."""
_PAIRS = (
    ("refined", "synthetic"),
    ("synthetic", "synthetic_unmatched"),
    ("refined", "synthetic_unmatched"),
    ("refined", "tone_matched"),
    ("refined", "fourier"),
    ("refined", "synthetic_augmented"),
    ("refined", "adapted"),
    ("synthetic_refined", "synthetic"),
    ("adapted", "synthetic_unmatched"),
    ("adapted_refined", "synthetic_unmatched"),
    ("adapted", "synthetic"),
    ("adapted_refined", "synthetic"),
    ("adapted_refined", "adapted"),
    ("refined_augmented", "synthetic_augmented"),
    ("refined", "real"),
    ("real_refined", "real"),
    ("real_refined", "real_synthetic"),
)
"""Differences that are always of interest; chosen before any result."""


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

    @model_serializer
    def _with_units(self) -> dict[str, Any]:
        measure = ERROR_METRICS[self.measure]
        return {
            measure.error_key: self.error,
            "ci95": list(self.ci95),
            measure.within_key: self.within,
            f"median_{measure.error_key}": self.median,
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
        """Whether the first is shown to be better."""
        return self.ci95[1] < 0

    @property
    def is_worse(self) -> bool:
        """Whether the first is shown to be worse."""
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
    """Whether any arm was matched: a doubtful estimate leaves labels as they are."""

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
    """All that follows from the predictions alone: the same from files and from MLflow."""

    comparison: str
    measure: MeasureName
    protocol: Protocol
    arms: dict[str, ArmResult]
    differences: dict[str, Difference]
    """`a_minus_b` by name."""
    test_digest: str
    num_test: int
    num_people: int | None
    seeds: int
    pupil_shift_px: PupilShift | None
    label_matching: LabelMatching | None
    pseudo_labels: dict[str, PseudoLabelsRef]
    """Pseudo-labels of the adapted arms, by arm."""
    verdict: str
    """The answer in a sentence or a few; the first is the one."""


class ComparisonResult(Results):
    """The answer of a comparison and where it is kept; what `compare --json` prints."""

    test_evaluations: int
    """Predictions on this test set so far, all comparisons together."""
    registered_model: str | None
    """The estimator to use, as MLflow names it."""
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


def find(
    comparison: Comparison, predictions: Mapping[str, ArmPredictions], shift: PupilShift | None
) -> Results:
    """Compute metrics with confidence intervals, paired differences and the verdict."""
    titles = {arm.name: arm for arm in comparison.arms}
    arms = {
        name: arm_result(titles[name], of_arm, comparison) for name, of_arm in predictions.items()
    }
    differences = {
        f"{first}_minus_{second}": _difference(predictions[first], predictions[second], comparison)
        for first, second in (*_PAIRS, *_size_pairs(comparison))
        if first in predictions and second in predictions
    }
    some = next(iter(predictions.values()))
    groups = some.groups
    return Results(
        comparison=comparison.id,
        measure=comparison.measure,
        protocol=comparison.protocol,
        arms=arms,
        differences=differences,
        test_digest=comparison.test_digest,
        num_test=len(some.ids),
        num_people=None if groups is None else int(groups.max()) + 1,
        seeds=comparison.seeds,
        pupil_shift_px=shift,
        label_matching=label_matching(comparison, some),
        pseudo_labels={
            arm.name: arm.pseudo_labels for arm in comparison.arms if arm.pseudo_labels is not None
        },
        verdict=verdict(comparison, arms, differences, shift, groups),
    )


def label_matching(comparison: Comparison, predictions: ArmPredictions) -> LabelMatching | None:
    """Set the distribution that labels were matched to beside the test set's true one."""
    if comparison.label_prior is None:
        return None
    return LabelMatching(
        prior=comparison.label_prior,
        test=spread_of(angles_deg(predictions.truth)),
        matched=any(arm.matched for arm in comparison.arms),
    )


def arm_result(arm: Arm, predictions: ArmPredictions, comparison: Comparison) -> ArmResult:
    """Compute the mean error of an arm with its confidence interval."""
    interval = bootstrap_mean(predictions.errors, predictions.groups, BOOTSTRAP_SEED)
    return ArmResult(
        title=arm.title,
        measure=comparison.measure,
        error=interval.mean,
        ci95=(interval.low, interval.high),
        within=float(predictions.within.mean()),
        median=float(np.median(predictions.errors)),
        seeds=predictions.errors.shape[0],
    )


def _difference(
    first: ArmPredictions, second: ArmPredictions, comparison: Comparison
) -> Difference:
    interval = bootstrap_difference(first.errors, second.errors, first.groups, BOOTSTRAP_SEED)
    return Difference(
        measure=comparison.measure, error=interval.mean, ci95=(interval.low, interval.high)
    )


def _size_pairs(comparison: Comparison) -> list[tuple[str, str]]:
    """Pair all rows with each smaller size, and each of those with the next smaller one."""
    parts = [arm for arm in comparison.arms if arm.num_rows is not None]
    steps = []
    for training_set in dict.fromkeys(arm.training_set for arm in parts):
        sizes = sorted(
            (arm for arm in parts if arm.training_set == training_set),
            key=lambda arm: arm.num_rows or 0,
        )
        steps += [(larger.name, smaller.name) for smaller, larger in pairwise(sizes)]
    return [(arm.training_set, arm.name) for arm in parts] + steps


def verdict(
    comparison: Comparison,
    arms: Mapping[str, ArmResult],
    differences: Mapping[str, Difference],
    shift: PupilShift | None,
    groups: NDArray[np.int64] | None,
) -> str:
    """Return in words what is shown and what is not; the first sentence is the answer."""
    sentences = [_headline(comparison, arms, differences, groups)]
    sentences += _against_cheap_methods(differences)
    sentences += _against_unmatched(differences)
    gain = differences.get("refined_minus_synthetic")
    if gain is not None and "real" in arms:
        gap = arms["synthetic"].error - arms["real"].error
        if gap > 0:
            sentences.append(f"It closes {-gain.error / gap:.0%} of the gap to real training data.")
    if shift is not None:
        sentences.append(
            f"Pupils moved {shift.mean:.2f} ± {shift.sd:.2f} px (median {shift.median:.2f})."
        )
    return " ".join(sentences)


def _headline(
    comparison: Comparison,
    arms: Mapping[str, ArmResult],
    differences: Mapping[str, Difference],
    groups: NDArray[np.int64] | None,
) -> str:
    sure = [f"{comparison.seeds} estimator seed{'s' * (comparison.seeds > 1)}"]
    if groups is not None:
        sure.append(f"{int(groups.max()) + 1} people")
    if "refined_minus_synthetic" in differences:
        sure.append("one refiner")
        names, difference = ("Refined", "synthetic"), differences["refined_minus_synthetic"]
    elif "real_refined_minus_real" in differences:
        names, difference = ("Real + refined", "real alone"), differences["real_refined_minus_real"]
    else:
        listed = ", ".join(
            f"{arm.title} {_number(arm.error, ERROR_METRICS[arm.measure])}" for arm in arms.values()
        )
        return f"No pair to compare: {listed} ({', '.join(sure)})."
    if comparison.protocol.by_person:
        sure.append(comparison.protocol.title)
    return f"{_sentence(*names, difference)[:-1]}; {', '.join(sure)})."


def _against_cheap_methods(differences: Mapping[str, Difference]) -> list[str]:
    """Return whether refinement beats the alternatives that a user would try first."""
    tried = {
        words: differences[f"refined_minus_{name}"]
        for name, words in CHEAP.items()
        if f"refined_minus_{name}" in differences
    }
    if not tried or "refined_minus_synthetic" not in differences:
        return []
    sentences = "; ".join(f"{_sentence('refined', words, each)}" for words, each in tried.items())
    worth = all(
        each.is_better for each in (differences["refined_minus_synthetic"], *tried.values())
    )
    start = (
        "It is worth its time: it also beats what costs no refiner"
        if worth
        else "It is not shown to be worth its time against what costs no refiner"
    )
    return [f"{start}: {sentences}."]


def _against_unmatched(differences: Mapping[str, Difference]) -> list[str]:
    """Return the gain by unlabelled real images: label matching, adaptation, both refined."""
    matched = {
        "synthetic": "matching labels alone",
        "refined": "matching labels and refining",
    }
    adapted = {
        "adapted": "adapting to unlabelled real images",
        "adapted_refined": "refining and adapting",
    }
    if any(name.endswith("_minus_synthetic_unmatched") for name in differences):
        base, parts, against = "synthetic_unmatched", matched | adapted, " with labels unmatched"
    else:
        base, parts, against = "synthetic", adapted, ""
    sentences = [
        f"{words}: {_interval(differences[name])}"
        for arm, words in parts.items()
        if (name := f"{arm}_minus_{base}") in differences
    ]
    if not sentences:
        return []
    words = "; ".join(sentences)
    return [f"{words[0].upper()}{words[1:]}, against synthetic images{against}."]


def _interval(difference: Difference) -> str:
    unit = ERROR_METRICS[difference.measure].unit
    low, high = difference.ci95
    return f"{difference.error:+.2f}{unit} (95% CI {low:+.2f} to {high:+.2f}{unit})"


def _sentence(first: str, second: str, difference: Difference) -> str:
    unit = ERROR_METRICS[difference.measure].unit
    low, high = difference.ci95
    amount = f"{abs(difference.error):.2f}{unit}"
    if difference.is_better:
        return (
            f"{first} is better than {second} by {amount} (95% CI {-high:.2f} to {-low:.2f}{unit})"
        )
    if difference.is_worse:
        return f"{first} is WORSE than {second} by {amount} (95% CI {low:.2f} to {high:.2f}{unit})"
    return (
        f"No difference shown between {first.lower()} and {second} "
        f"({difference.error:+.2f}{unit}, 95% CI {low:+.2f} to {high:+.2f}{unit})"
    )


def _number(value: float, measure: ErrorMetric) -> str:
    return f"{value:.2f}{measure.unit}"


def table(results: Results) -> str:
    """The results as a Markdown table with the verdict below it."""
    measure = ERROR_METRICS[results.measure]
    lines = [
        f"| trained on | {measure.noun} on real test images | 95% interval | {measure.within} |",
        "|---|---:|---:|---:|",
    ]
    for arm in results.arms.values():
        low, high = arm.ci95
        lines.append(
            f"| {arm.title} | {_number(arm.error, measure)} | {low:.2f}–{high:.2f}{measure.unit} "
            f"| {arm.within:.1%} |"
        )
    rules = f"Protocol: {results.protocol.title}; {results.num_test:,} test images."
    matched = [] if results.label_matching is None else [str(results.label_matching)]
    return "\n".join([*lines, "", rules, *matched, *adaptation(results), results.verdict])


def adaptation(results: Results) -> list[str]:
    """Return the pseudo-labels of the adapted arms, a line an arm."""
    return [
        f"{results.arms[name].title}: {labels}." for name, labels in results.pseudo_labels.items()
    ]


def table_of_many(all_results: Sequence[Results]) -> str:
    """Several comparisons in one table, a row an arm of each.

    Where they differ in protocol or test set, the first line says that their errors must not be
    compared, and a column tells them apart.
    """
    rules = list(dict.fromkeys(_rules(one) for one in all_results))
    mixed = len(rules) > 1
    lines = [
        "| comparison | trained on | mean error | 95% interval |" + " rules |" * mixed,
        "|---|---|---:|---:|" + "---|" * mixed,
    ]
    for one in all_results:
        measure = ERROR_METRICS[one.measure]
        for arm in one.arms.values():
            low, high = arm.ci95
            row = (
                f"| {one.comparison} | {arm.title} | {_number(arm.error, measure)} "
                f"| {low:.2f}–{high:.2f}{measure.unit} |"
            )
            lines.append(row + f" {_rules(one)} |" * mixed)
    if not mixed:
        return "\n".join([*lines, "", f"Rules: {rules[0]}."])
    warning = (
        f"These runs follow {len(rules)} different rules (protocol and test set): errors of "
        "different rules MUST NOT be compared with one another."
    )
    return "\n".join([warning, "", *lines])


def _rules(results: Results) -> str:
    return f"{results.protocol.title} on test set {results.test_digest[:12]}"
