"""Analysis of predictions: errors with bootstrap confidence intervals, paired differences."""

from collections.abc import Mapping
from itertools import pairwise
from statistics import fmean, stdev

import numpy as np

from simgan_core.stats.bootstrap import bootstrap_difference, bootstrap_mean
from tasks.comparison.label_prior import angles_deg, spread_of
from tasks.comparison.plan import Arm, Comparison
from tasks.comparison.predictions import ArmPredictions
from tasks.comparison.reporting.results import (
    ArmResult,
    Difference,
    LabelMatching,
    PupilShift,
    Results,
)
from tasks.comparison.reporting.verdict import verdict

BOOTSTRAP_SEED = 0
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
    ("adapted_both", "synthetic_unmatched"),
    ("adapted", "synthetic"),
    ("adapted_refined", "synthetic"),
    ("adapted_both", "synthetic"),
    ("adapted_refined", "adapted"),
    ("adapted_both", "adapted"),
    ("adapted_both", "adapted_refined"),
    ("refined_augmented", "synthetic_augmented"),
    ("refined", "real"),
    ("real_refined", "real"),
    ("real_refined", "real_synthetic"),
)
"""Differences that are always of interest; chosen before any result."""


def results_from_predictions(
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
        people_in_common=comparison.people_in_common,
        seeds=comparison.seeds,
        pupil_shift_px=shift,
        label_matching=label_matching(comparison, some),
        pseudo_labels={
            arm.name: arm.pseudo_labels for arm in comparison.arms if arm.pseudo_labels is not None
        },
        judged_by=comparison.pseudo_labels,
        verdict=verdict(comparison, arms, differences, shift, groups),
    )


def label_matching(comparison: Comparison, predictions: ArmPredictions) -> LabelMatching | None:
    """Compare the label prior with the true label distribution of the test set."""
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
    judged = predictions.pseudo_label_errors_deg
    return ArmResult(
        title=arm.title,
        measure=comparison.measure,
        error=interval.mean,
        ci95=(interval.low, interval.high),
        within=float(predictions.within.mean()),
        median=float(np.median(predictions.errors)),
        seeds=predictions.errors.shape[0],
        pseudo_label_error_deg=fmean(judged) if judged else None,
        pseudo_label_error_sd_deg=stdev(judged) if len(judged) > 1 else None,
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
