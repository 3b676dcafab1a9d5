"""Results of one or many comparisons as Markdown tables."""

from collections.abc import Sequence

from tasks.comparison.criterion import doubt_of_teachers
from tasks.comparison.error_metrics import ERROR_METRICS
from tasks.comparison.people import caution_of_people
from tasks.comparison.reporting.results import ArmResult, Results

_PSEUDO_LABEL_HEADING = "pseudo-labels"
_PSEUDO_LABEL_NOTE = (
    "Column pseudo-labels: error on pseudo-labels (no real label used), the distance of an arm's "
    "predictions on the unlabelled real images from those of estimators of synthetic images. It "
    "ranks refiners of one synthetic dataset (rank correlation with the true error 0.50 and 0.76, "
    "KID 0.07 and −0.62: 18 refiners, two folds of people); it does not compare refined with "
    "synthetic images, from which the pseudo-labels come."
)


def table(results: Results) -> str:
    """The results as a Markdown table with the verdict below it."""
    measure = ERROR_METRICS[results.measure]
    judged = is_judged(results)
    lines = [
        f"| trained on | {measure.noun} | 95% interval | {measure.within} |"
        + f" {_PSEUDO_LABEL_HEADING} |" * judged,
        "|---|---:|---:|---:|" + "---:|" * judged,
    ]
    for arm in results.arms.values():
        low, high = arm.ci95
        row = (
            f"| {arm.title} | {measure.with_unit(arm.error)} | {low:.2f}–{high:.2f}{measure.unit} "
            f"| {arm.within:.1%} |"
        )
        lines.append(row + f" {pseudo_label_error(arm)} |" * judged)
    rules = [
        f"Protocol: {results.protocol.title}; {results.num_test:,} real test images.",
        caution_of_people(results.people_in_common),
    ]
    return "\n".join([*lines, "", " ".join(filter(None, rules)), *notes(results), results.verdict])


def notes(results: Results) -> list[str]:
    """Return a line for each use of unlabelled real images: matching, pseudo-labels, adaptation."""
    matched = [] if results.label_matching is None else [str(results.label_matching)]
    judged = [_note_on_pseudo_labels(results)] if is_judged(results) else []
    return [*matched, *adaptation(results), *judged]


def _note_on_pseudo_labels(results: Results) -> str:
    matching = results.label_matching
    assert results.judged_by is not None, "arms are judged"
    doubt = doubt_of_teachers(results.judged_by, None if matching is None else matching.prior)
    return f"{_PSEUDO_LABEL_NOTE} NOT to be trusted here: {doubt}." if doubt else _PSEUDO_LABEL_NOTE


def is_judged(results: Results) -> bool:
    """Return whether any arm has an error on pseudo-labels."""
    return any(arm.pseudo_label_error_deg is not None for arm in results.arms.values())


def pseudo_label_error(arm: ArmResult) -> str:
    """Return an arm's error on pseudo-labels as text, with the deviation between seeds."""
    if arm.pseudo_label_error_deg is None:
        return "–"
    spread = arm.pseudo_label_error_sd_deg
    return (
        f"{arm.pseudo_label_error_deg:.2f}" + ("" if spread is None else f" ± {spread:.2f}") + "°"
    )


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
                f"| {one.comparison} | {arm.title} | {measure.with_unit(arm.error)} "
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
