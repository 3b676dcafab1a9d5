"""Comparison report as one self-contained HTML page."""

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template

from tasks.comparison.error_metrics import ERROR_METRICS, ErrorMetric
from tasks.comparison.people import caution_of_people
from tasks.comparison.reporting.charts import Chart
from tasks.comparison.reporting.results import ComparisonResult, Difference
from tasks.comparison.reporting.tables import (
    is_judged,
    notes,
    pseudo_label_error,
)
from tasks.runtime.pictures import data_uri

BEFORE_AFTER_CAPTION = (
    "Synthetic images, the same ones refined below them, and real images of the test set."
)


def comparison_page(
    result: ComparisonResult,
    charts: Sequence[Chart],
    before_after: bytes,
    facts: Mapping[str, str],
) -> str:
    """Write the page as text; `facts` are shown at its end as they are."""
    measure = ERROR_METRICS[result.measure]
    answer, *more = result.verdict.split(". ")
    template = Template((files("tasks") / "pages" / "comparison.html").read_text("utf-8"))
    return template.substitute(
        title=html.escape(result.comparison),
        answer=html.escape(answer.rstrip(".") + "."),
        more="\n".join(f"<p>{html.escape(each.rstrip('.'))}.</p>" for each in more),
        noun=html.escape(measure.noun),
        within=html.escape(measure.within),
        arms=_arms(result, measure),
        rules=html.escape(
            f"Protocol: {result.protocol.title}. {result.num_test:,} test images, {result.seeds} "
            "estimator seeds; classical baselines are trained once. "
            + caution_of_people(result.people_in_common)
        ),
        judged='<th scope="col">pseudo-labels</th>' * is_judged(result),
        labels="\n".join(f"<p>{html.escape(each)}</p>" for each in notes(result)),
        differences="\n".join(
            _difference(name, each, measure) for name, each in result.differences.items()
        ),
        charts="\n".join(_figure(chart) for chart in charts),
        before_after=_before_after(before_after),
        test_evaluations=result.test_evaluations,
        sampled="people, images and seeds" if result.num_people else "images and seeds",
        facts="\n".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
            for name, value in facts.items()
        ),
    )


def _arms(result: ComparisonResult, measure: ErrorMetric) -> str:
    judged = is_judged(result)
    return "\n".join(
        f'<tr><th scope="row">{html.escape(arm.title)}</th><td>{arm.error:.2f}{measure.unit}</td>'
        f"<td>{arm.ci95[0]:.2f}–{arm.ci95[1]:.2f}{measure.unit}</td>"
        f"<td>{arm.median:.2f}{measure.unit}</td><td>{arm.within:.1%}</td>"
        + f"<td>{pseudo_label_error(arm)}</td>" * judged
        + "</tr>"
        for arm in result.arms.values()
    )


def _difference(name: str, difference: Difference, measure: ErrorMetric) -> str:
    words = name.replace("_minus_", " − ").replace("_", " ")
    shown = (
        "better" if difference.is_better else "worse" if difference.is_worse else "no difference"
    )
    low, high = difference.ci95
    return (
        f'<tr><th scope="row">{html.escape(words)}</th><td>{difference.error:+.2f}{measure.unit}'
        f"</td><td>{low:+.2f} to {high:+.2f}{measure.unit}</td><td>{shown}</td></tr>"
    )


def _figure(chart: Chart) -> str:
    return (
        f"<figure><h3>{html.escape(chart.title)}</h3>"
        f'<img src="{data_uri(chart.png)}" alt="{html.escape(chart.alt)}">'
        f"<figcaption>{html.escape(chart.caption)}</figcaption></figure>"
    )


def _before_after(png: bytes) -> str:
    return (
        f'<figure class="broad"><img class="pixels" src="{data_uri(png)}" alt="Synthetic images '
        'above the same images refined; real images below.">'
        f"<figcaption>{BEFORE_AFTER_CAPTION}</figcaption></figure>"
    )
