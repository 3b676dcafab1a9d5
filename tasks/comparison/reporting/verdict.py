"""Verdict of a comparison in words: differences shown and not shown, with intervals."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tasks.comparison.error_metrics import ERROR_METRICS
from tasks.comparison.plan import Comparison
from tasks.comparison.reporting.results import ArmResult, Difference, PupilShift

CHEAP = {
    "tone_matched": "histogram matching",
    "fourier": "Fourier amplitudes",
    "synthetic_augmented": "generic augmentation",
    "adapted": "adaptation to unlabelled images",
}
"""Alternatives without a refiner, which refinement should beat."""
_TEACHERS = {
    "adapted_refined_minus_adapted": ("refined teachers", "synthetic teachers"),
    "adapted_both_minus_adapted": ("teachers of both", "synthetic teachers alone"),
}
"""Differences between teachers that learnt from refined and from synthetic images, in words."""


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
    gain = differences.get("refined_minus_synthetic")
    if gain is not None and gain.error < 0 and "real" in arms:
        gap = arms["synthetic"].error - arms["real"].error
        if gap > 0:
            sentences.append(f"It closes {-gain.error / gap:.0%} of the gap to real training data.")
    sentences += _as_teachers(differences)
    sentences += _against_unmatched(differences)
    if shift is not None:
        sentences.append(
            f"Pupils moved {shift.mean:.2f} ± {shift.sd:.2f} px (median {shift.median:.2f})."
        )
    if comparison.caveat:
        sentences.append(comparison.caveat)
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
            f"{arm.title} {ERROR_METRICS[arm.measure].with_unit(arm.error)}"
            for arm in arms.values()
        )
        return f"No pair to compare: {listed} ({', '.join(sure)})."
    if comparison.protocol.by_person:
        sure.append(comparison.protocol.title)
    return f"{_sentence(*names, difference)[:-1]}; {', '.join(sure)})."


def _against_cheap_methods(differences: Mapping[str, Difference]) -> list[str]:
    """Return whether refinement beats alternatives without a refiner, in words.

    Adaptation is not one of them where refined images teach as well: then alike is compared.
    """
    named = set(CHEAP) - ({"adapted"} if differences.keys() & _TEACHERS.keys() else set())
    tried = {
        words: differences[f"refined_minus_{name}"]
        for name, words in CHEAP.items()
        if name in named and f"refined_minus_{name}" in differences
    }
    if not tried or "refined_minus_synthetic" not in differences:
        return []
    sentences = "; ".join(
        _inside(_sentence("refined", words, each)) for words, each in tried.items()
    )
    worth = all(
        each.is_better for each in (differences["refined_minus_synthetic"], *tried.values())
    )
    start = (
        "It also beats the alternatives without a refiner"
        if worth
        else "It is not shown to beat the alternatives without a refiner"
    )
    return [f"{start}: {sentences}."]


def _as_teachers(differences: Mapping[str, Difference]) -> list[str]:
    """Return what refined images are worth where they teach on unlabelled real ones."""
    sentences = [
        _sentence(f"adaptation by {first}", f"adaptation by {second}", differences[name])
        for name, (first, second) in _TEACHERS.items()
        if name in differences
    ]
    return [f"{each[0].upper()}{each[1:]}." for each in sentences]


def _against_unmatched(differences: Mapping[str, Difference]) -> list[str]:
    """Return the gain by unlabelled real images: label matching, adaptation, both refined."""
    matched = {
        "synthetic": "matching labels alone",
        "refined": "matching labels and refining",
    }
    adapted = {
        "adapted": "adapting to unlabelled real images",
        "adapted_refined": "refining and adapting",
        "adapted_both": "refining and adapting by both",
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


def _inside(sentence: str) -> str:
    """Return a sentence as it goes on after a colon or a semicolon."""
    return f"{sentence[0].lower()}{sentence[1:]}"


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
