"""Results of one or many comparisons as Markdown tables."""

from collections.abc import Sequence

from tasks.comparison.error_metrics import ERROR_METRICS
from tasks.comparison.reporting.results import Results


def table(results: Results) -> str:
    """The results as a Markdown table with the verdict below it."""
    measure = ERROR_METRICS[results.measure]
    lines = [
        f"| trained on | {measure.noun} | 95% interval | {measure.within} |",
        "|---|---:|---:|---:|",
    ]
    for arm in results.arms.values():
        low, high = arm.ci95
        lines.append(
            f"| {arm.title} | {measure.with_unit(arm.error)} | {low:.2f}–{high:.2f}{measure.unit} "
            f"| {arm.within:.1%} |"
        )
    rules = f"Protocol: {results.protocol.title}; {results.num_test:,} real test images."
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
