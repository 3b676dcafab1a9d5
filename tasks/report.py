"""What a comparison found: table, verdict and pictures, in MLflow, in Prefect and on one page."""

import html
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prefect import runtime, task
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from simgan_core.metrics import Interval, bootstrap_difference, bootstrap_mean
from simgan_core.quality import pupil_shift_px
from storage.reader import open_dataset
from tasks.compatibility import as_uint8
from tasks.evaluate import EXPERIMENT, ArmName, Comparison, Estimate, people_of, read_errors
from tasks.home import comparison_folder
from tasks.pictures import before_after, data_uri, png
from tasks.policies import CACHE
from tasks.tracking import TrackedRun, tracked_run, tracking_uri

logger = logging.getLogger(__name__)

LIMIT_DEG = 7.0
BOOTSTRAP_SEED = 0
MAX_SHIFT_PAIRS = 4000
TITLES = {
    "synthetic": "synthetic",
    "tone_matched": "synthetic, tone-matched",
    "refined": "refined",
    "real": "real (ceiling)",
}


class ArmResult(BaseModel):
    """How an estimator trained on one arm does on the real test images."""

    model_config = ConfigDict(frozen=True)

    error_deg: float
    ci95: tuple[float, float]
    within_7deg: float


class Difference(BaseModel):
    """A paired difference of mean errors: below zero where the first is better."""

    model_config = ConfigDict(frozen=True)

    error_deg: float
    ci95: tuple[float, float]


class PupilShift(BaseModel):
    """How far refinement moved the pupils, in pixels of the stored images."""

    model_config = ConfigDict(frozen=True)

    mean: float
    sd: float
    median: float


class ComparisonResult(BaseModel):
    """The answer of a comparison; what `compare --json` prints."""

    model_config = ConfigDict(frozen=True)

    synthetic: ArmResult
    tone_matched: ArmResult | None
    refined: ArmResult
    real: ArmResult | None
    refined_minus_synthetic: Difference
    refined_minus_tone_matched: Difference | None
    pupil_shift_px: PupilShift | None
    num_test: int
    num_people: int | None
    seeds: int
    verdict: str
    comparison: str
    mlflow_run_id: str
    flow_run: str | None
    report: str


class EvaluationResult(BaseModel):
    """How estimators trained on one dataset do; what `evaluate --json` prints."""

    model_config = ConfigDict(frozen=True)

    error_deg: float
    ci95: tuple[float, float]
    within_7deg: float
    num_test: int
    num_people: int | None
    seeds: int
    mlflow_run_id: str


Errors = Mapping[ArmName, NDArray[np.float64]]


@task(name="summarize-evaluation", cache_policy=CACHE)
def summarize(evaluation: Comparison, estimates: list[Estimate]) -> EvaluationResult:
    """Put an interval on the error of estimators trained on one dataset."""
    people = people_of(open_dataset(evaluation.test).read_ids())
    (errors,) = _errors_by_arm(estimates).values()
    arm = _arm_result(errors, people)
    with tracked_run(EXPERIMENT, evaluation.id, evaluation.id) as run:
        run.metrics({"error_deg": arm.error_deg, "within_7deg": arm.within_7deg})
    return EvaluationResult(
        **arm.model_dump(),
        num_test=errors.shape[1],
        num_people=_count(people),
        seeds=errors.shape[0],
        mlflow_run_id=evaluation.mlflow_run_id,
    )


@task(name="conclude-comparison", cache_policy=CACHE)
def conclude(comparison: Comparison, estimates: list[Estimate]) -> ComparisonResult:
    """Put intervals on what was measured, say it in words and keep it where people look."""
    test = open_dataset(comparison.test)
    synthetic, refined = _dataset(comparison, "synthetic"), _dataset(comparison, "refined")
    people = people_of(test.read_ids())
    errors = _errors_by_arm(estimates)
    folder = comparison_folder(comparison.id)
    folder.mkdir(parents=True, exist_ok=True)
    result = _result(comparison, errors, people, _pupil_shift(synthetic, refined), folder)
    picture = png(_before_after(synthetic, refined, comparison.test))
    (folder / "before_after.png").write_bytes(picture)
    (folder / "report.html").write_text(_page(result, picture), encoding="utf-8")
    (folder / "result.json").write_text(result.model_dump_json(indent=2), encoding="utf-8")
    with tracked_run(EXPERIMENT, comparison.id, comparison.id) as run:
        _remember(run, result, folder)
    _publish(result, picture)
    return result


def table(result: ComparisonResult) -> str:
    """The result as a Markdown table with the verdict below it."""
    lines = [
        "| trained on | mean error on real test images | 95% interval | within 7° |",
        "|---|---:|---:|---:|",
    ]
    for name, title in TITLES.items():
        arm: ArmResult | None = getattr(result, name)
        if arm is not None:
            low, high = arm.ci95
            lines.append(
                f"| {title} | {arm.error_deg:.2f}° | {low:.2f}–{high:.2f}° "
                f"| {arm.within_7deg:.1%} |"
            )
    return "\n".join([*lines, "", result.verdict])


def _dataset(comparison: Comparison, name: ArmName) -> str:
    return next(arm.dataset for arm in comparison.arms if arm.name == name)


def _count(people: NDArray[np.int64] | None) -> int | None:
    return None if people is None else int(people.max()) + 1


def _errors_by_arm(estimates: list[Estimate]) -> Errors:
    """Stack the seeds of each arm: float64 [S, N] degrees."""
    names = {estimate.arm for estimate in estimates}
    return {
        name: np.stack(
            [
                read_errors(Path(found.path))
                for found in sorted(estimates, key=lambda e: e.seed)
                if found.arm == name
            ]
        )
        for name in names
    }


def _result(
    comparison: Comparison,
    errors: Errors,
    people: NDArray[np.int64] | None,
    shift: PupilShift | None,
    folder: Path,
) -> ComparisonResult:
    arms = {name: _arm_result(of_arm, people) for name, of_arm in errors.items()}
    gain = _difference(errors, "refined", "synthetic", people)
    gain_over_tone = (
        _difference(errors, "refined", "tone_matched", people) if "tone_matched" in errors else None
    )
    num_seeds, num_test = errors["refined"].shape
    num_people = _count(people)
    return ComparisonResult(
        synthetic=arms["synthetic"],
        tone_matched=arms.get("tone_matched"),
        refined=arms["refined"],
        real=arms.get("real"),
        refined_minus_synthetic=gain,
        refined_minus_tone_matched=gain_over_tone,
        pupil_shift_px=shift,
        num_test=num_test,
        num_people=num_people,
        seeds=num_seeds,
        verdict=verdict(arms, gain, gain_over_tone, shift, num_seeds, num_people),
        comparison=comparison.id,
        mlflow_run_id=comparison.mlflow_run_id,
        flow_run=runtime.flow_run.root_flow_run_id,
        report=str(folder / "report.html"),
    )


def verdict(
    arms: Mapping[ArmName, ArmResult],
    gain: Difference,
    gain_over_tone: Difference | None,
    shift: PupilShift | None,
    num_seeds: int,
    num_people: int | None,
) -> str:
    """Say in plain words what was shown and what was not."""
    people = "" if num_people is None else f", {num_people} people"
    said = [
        _said(gain, "synthetic") + f" ({num_seeds} estimator seeds{people}; one refiner).",
    ]
    if "real" in arms:
        gap = arms["synthetic"].error_deg - arms["real"].error_deg
        if gap > 0:
            said.append(f"It closes {-gain.error_deg / gap:.0%} of the gap to real training data.")
    if gain_over_tone is not None:
        said.append(
            _said(gain_over_tone, "synthetic tone-matched to real by histograms, without a network")
            + "."
        )
    if shift is not None:
        said.append(
            f"Pupils moved {shift.mean:.2f} ± {shift.sd:.2f} px (median {shift.median:.2f})."
        )
    return " ".join(said)


def _said(difference: Difference, other: str) -> str:
    low, high = difference.ci95
    amount, interval = abs(difference.error_deg), f"95% interval {low:+.2f} to {high:+.2f}°"
    if high < 0:
        return f"Refined beats {other} by {amount:.2f}° ({interval})"
    if low > 0:
        return f"Refined is WORSE than {other} by {amount:.2f}° ({interval})"
    return f"No difference shown between refined and {other} ({interval})"


def _arm_result(errors: NDArray[np.float64], people: NDArray[np.int64] | None) -> ArmResult:
    interval = bootstrap_mean(errors, people, BOOTSTRAP_SEED)
    return ArmResult(
        error_deg=interval.mean,
        ci95=(interval.low, interval.high),
        within_7deg=float((errors <= LIMIT_DEG).mean()),
    )


def _difference(
    errors: Errors, of: ArmName, minus: ArmName, people: NDArray[np.int64] | None
) -> Difference:
    interval: Interval = bootstrap_difference(errors[of], errors[minus], people, BOOTSTRAP_SEED)
    return Difference(error_deg=interval.mean, ci95=(interval.low, interval.high))


def _pupil_shift(synthetic: str, refined: str) -> PupilShift | None:
    """Measure the shift on rows valid in both, at most MAX_SHIFT_PAIRS of them."""
    before = open_dataset(synthetic).load(valid_only=False, max_rows=MAX_SHIFT_PAIRS)
    after = open_dataset(refined).load(valid_only=False, max_rows=MAX_SHIFT_PAIRS)
    if "pupil_px" not in before.labels or before.ids != after.ids:
        return None
    both = before.valid & after.valid
    shift = pupil_shift_px(before.images[both], after.images[both], before.labels["pupil_px"][both])
    figures = shift.summary()
    if figures["share_found"] == 0:
        return None
    return PupilShift(mean=figures["mean"], sd=figures["sd"], median=figures["median"])


def _before_after(synthetic: str, refined: str, test: str) -> NDArray[np.uint8]:
    shown = [open_dataset(url) for url in (synthetic, refined, test)]
    images = [as_uint8(dataset.load(max_rows=60).images, dataset.info) for dataset in shown]
    return before_after(images[0], images[1], images[2])


def _remember(run: TrackedRun, result: ComparisonResult, folder: Path) -> None:
    for name in TITLES:
        arm: ArmResult | None = getattr(result, name)
        if arm is not None:
            run.metrics(
                {
                    f"{name}.error_deg": arm.error_deg,
                    f"{name}.error_deg_ci95_low": arm.ci95[0],
                    f"{name}.error_deg_ci95_high": arm.ci95[1],
                    f"{name}.within_7deg": arm.within_7deg,
                }
            )
    gain = result.refined_minus_synthetic
    run.metrics(
        {
            "refined_minus_synthetic.error_deg": gain.error_deg,
            "refined_minus_synthetic.ci95_low": gain.ci95[0],
            "refined_minus_synthetic.ci95_high": gain.ci95[1],
        }
    )
    if result.pupil_shift_px is not None:
        run.metrics({f"pupil_shift_px.{k}": v for k, v in result.pupil_shift_px})
    run.tags({"verdict": result.verdict, "mlflow.note.content": table(result)})
    run.artifact(folder)


def _publish(result: ComparisonResult, picture: bytes) -> None:
    create_markdown_artifact(table(result), key="comparison", description=result.verdict)
    create_image_artifact(
        data_uri(picture),
        key="before-after",
        description="Rows in pairs: synthetic, and the same images refined; below, real images.",
    )
    create_link_artifact(
        Path(result.report).as_uri(),
        link_text=f"Report, and MLflow run {result.mlflow_run_id}",
        key="report",
    )


def _page(result: ComparisonResult, picture: bytes) -> str:
    """One HTML page that needs no network."""
    rows = "".join(
        f"<tr><th scope=row>{html.escape(TITLES[name])}</th><td>{arm.error_deg:.2f}°</td>"
        f"<td>{arm.ci95[0]:.2f}–{arm.ci95[1]:.2f}°</td><td>{arm.within_7deg:.1%}</td></tr>"
        for name, arm in _arms_of(result)
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(result.comparison)}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
        color: #1b1b1b; background: #fff }}
table {{ border-collapse: collapse; margin: 1.5rem 0 }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: right }}
th[scope=row] {{ text-align: left; font-weight: 500 }}
img {{ max-width: 100%; image-rendering: pixelated }}
</style>
<h1>Did refinement help on real images?</h1>
<p><strong>{html.escape(result.verdict)}</strong></p>
<table>
<tr><th scope=row>trained on</th><th>mean error</th><th>95% interval</th><th>within 7°</th></tr>
{rows}</table>
<p>{result.num_test} test images, {result.seeds} estimator seeds. Intervals: bootstrap over people
(where known), images and seeds; differences are paired.</p>
<h2>Before and after</h2>
<p>Rows in pairs: synthetic, and the same images refined. The last two rows: real images.</p>
<img src="{data_uri(picture)}" alt="Synthetic eyes above the same eyes refined; real eyes below.">
<p>Comparison {html.escape(result.comparison)}, MLflow run {html.escape(result.mlflow_run_id)}.</p>
</html>
"""


def _arms_of(result: ComparisonResult) -> list[tuple[str, ArmResult]]:
    arms = [(name, getattr(result, name)) for name in TITLES]
    return [(name, arm) for name, arm in arms if arm is not None]


def whereabouts(result: ComparisonResult) -> str:
    """Say where everything is that a person may want to look at."""
    folder = Path(result.report).parent
    return "\n".join(
        [
            f"report    {result.report}",
            f"pictures  {folder}",
            f"MLflow    run {result.mlflow_run_id} in {tracking_uri()}",
            f"          mlflow ui --backend-store-uri {tracking_uri()}",
            f"Prefect   flow run {result.flow_run or '(none)'}",
            f"          PREFECT_HOME={os.environ.get('PREFECT_HOME', '~/.prefect')} "
            "prefect server start",
        ]
    )
