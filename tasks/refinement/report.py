"""Report of a bulk refinement in Prefect: counts, rate, samples, pupil shifts."""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from prefect import task
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from simgan_core.quality.gate import HISTOGRAM_EDGES_PX
from storage.reader import Dataset, open_dataset
from storage.schema import DatasetInfo
from tasks.refinement.refine import RefinementPlan
from tasks.runtime.pictures import Pixels, as_8_bits, columns, data_uri, png
from tasks.runtime.policies import CACHE
from tasks.runtime.styles import load_first_style
from tasks.runtime.tracking.experiments import REFINERS
from tasks.runtime.tracking.links import link_to_mlflow
from tasks.runtime.tracking.runs import (
    UnknownExperimentError,
    has_pages,
    remember_dataset,
    runs_with,
)

PAIRS_SHOWN = 30
PAIRS_A_ROW = 10
BAR_LENGTH = 30


@dataclass(frozen=True)
class Summary:
    """Summary of a finished refinement."""

    dataset: DatasetInfo
    num_refined: int
    """Rows refined by this run; an earlier run did the others."""
    seconds: float
    """Duration from planning to the end."""
    reasons: dict[str, int]
    """Number of invalid rows by reason, most frequent first."""
    figures: list[tuple[int, dict[str, float | None]]]
    """Number of valid rows and metrics of every shard."""


@task(name="show-refinement", cache_policy=CACHE)
def show_refinement(dataset: str, to: str, plan: RefinementPlan) -> None:
    """Create Prefect artifacts: a summary of the refinement and images before and after."""
    refined = open_dataset(to)
    reasons = Counter(r.reason for record in refined.records() for r in record.rejections)
    summary = Summary(
        dataset=refined.info,
        num_refined=plan.num_rows,
        seconds=time.time() - plan.began,
        reasons=dict(reasons.most_common()),
        figures=[(record.num_valid, record.figures) for record in refined.records()],
    )
    create_markdown_artifact(markdown(summary), key="refinement", description=f"Refined into {to}")
    create_image_artifact(
        data_uri(png(before_after(open_dataset(dataset), refined))),
        key="refined-images",
        description="Rows in pairs: synthetic, and the same images refined.",
    )
    _link(refined.info)


def _link(refined: DatasetInfo) -> None:
    """Create links to the dataset and to its refiner's training, where MLflow is a server."""
    if not has_pages():
        return
    made = refined.spec.provenance
    tags = {name: str(value) for name, value in made.items() if value is not None}
    name = Path(refined.url).name
    link_to_mlflow("mlflow-dataset", remember_dataset(refined, tags), f"Dataset {name} in MLflow")
    refiner = str(made["refiner"])
    with suppress(UnknownExperimentError):
        for run in runs_with(REFINERS, {"simgan.refiner": refiner})[-1:]:
            link_to_mlflow("mlflow-refiner", run.run_id, f"Training of {refiner} in MLflow")


def markdown(summary: Summary) -> str:
    """Return the summary as markdown: counts, rate, reasons and histogram of pupil shifts."""
    info = summary.dataset
    made = info.spec.provenance
    gate = made["gate_shift_px"]
    lines = [
        "| | |",
        "|---|---:|",
        f"| rows | {info.spec.num_rows:,} |",
        f"| valid | {info.num_valid:,} |",
        *(f"| not valid: {reason} | {count:,} |" for reason, count in summary.reasons.items()),
        f"| refined in this run | {summary.num_refined:,} |",
        f"| time | {timedelta(seconds=round(summary.seconds))} |",
        f"| rate | {summary.num_refined / max(summary.seconds, 1e-9):,.0f} images a second |",
        f"| refiner | {made['refiner']}, {made['dtype']} |",
        f"| gate | {'none' if gate is None else f'{gate} px'} |",
        f"| saturated images | {_total(summary, 'num_saturated'):,.0f} |",
    ]
    shifts = _shifts(summary)
    if shifts:
        lines += ["", "**How far the pupils moved**", "", *shifts]
    return "\n".join(lines)


def before_after(synthetic: Dataset, refined: Dataset) -> Pixels:
    """Return the first images in pairs of rows: synthetic above, the same ones refined below."""
    shown = min(len(synthetic), PAIRS_SHOWN)
    before, after = (
        as_8_bits(load_first_style(dataset, shown, valid_only=False).images)
        for dataset in (synthetic, refined)
    )
    rows: list[Pixels] = []
    for start in range(0, shown, PAIRS_A_ROW):
        rows += [images[start : start + PAIRS_A_ROW] for images in (before, after)]
    return columns(rows, min(shown, PAIRS_A_ROW))


def _shifts(summary: Summary) -> list[str]:
    """Return mean and histogram of the pupil shifts as lines; empty without measurements."""
    counts = [_total(summary, f"pupil_shift_px.from_{edge:.2f}") for edge in HISTOGRAM_EDGES_PX]
    if not any(counts):
        return []
    means = [
        (figures["pupil_shift_px.mean"], rows)
        for rows, figures in summary.figures
        if figures.get("pupil_shift_px.mean") is not None
    ]
    mean = np.average([mean for mean, _ in means], weights=[max(rows, 1) for _, rows in means])
    lines = [
        f"Mean {mean:.2f} px; found in both images: {sum(counts):,.0f}, lost by refinement: "
        f"{_total(summary, 'num_lost'):,.0f}.",
        "",
        "| shift, px | images | |",
        "|---|---:|:---|",
    ]
    for edge, count in zip(HISTOGRAM_EDGES_PX, counts, strict=True):
        bar = "█" * round(BAR_LENGTH * count / max(counts))
        lines.append(f"| from {edge:.2f} | {count:,.0f} | {bar} |")
    return lines


def _total(summary: Summary, name: str) -> float:
    return sum(figures.get(name) or 0.0 for _, figures in summary.figures)
