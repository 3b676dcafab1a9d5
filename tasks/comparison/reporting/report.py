"""Report of a comparison: MLflow, Prefect artifacts, a folder with one page."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prefect import runtime, task
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact
from pydantic import BaseModel, ConfigDict, model_serializer

from simgan_core.models.estimator import UInt8Estimator, load_estimator
from simgan_core.quality.label_drift import pupil_shift_px
from storage.atomic_file import atomic_write
from tasks.comparison.champion import decide_champion
from tasks.comparison.criterion import PSEUDO_LABEL_ERROR
from tasks.comparison.error_metrics import ERROR_METRICS
from tasks.comparison.kept_files import fetched
from tasks.comparison.people import caution_of_people
from tasks.comparison.plan import Comparison, Estimate
from tasks.comparison.predictions import read_predictions
from tasks.comparison.reporting.analysis import arm_result, label_matching, results_from_predictions
from tasks.comparison.reporting.charts import Chart, draw_charts
from tasks.comparison.reporting.page import comparison_page
from tasks.comparison.reporting.pairs import Pairs, valid_pairs
from tasks.comparison.reporting.results import (
    ArmResult,
    ComparisonResult,
    Difference,
    LabelMatching,
    PupilShift,
    Results,
)
from tasks.comparison.reporting.tables import table
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.paths import comparison_folder, shown_path
from tasks.runtime.pictures import as_8_bits, before_after, data_uri, png
from tasks.runtime.policies import CACHE
from tasks.runtime.stages import position
from tasks.runtime.tracking.experiments import COMPARISONS, REFINERS
from tasks.runtime.tracking.links import link_to_mlflow
from tasks.runtime.tracking.runs import (
    TrackedRun,
    UnknownExperimentError,
    metric_curves,
    page_of_run,
    remember_dataset,
    runs_with,
    tracked_run,
    warn_of_refiner,
)

logger = logging.getLogger(__name__)

REGISTERED_MODEL = "estimator"
MAX_SHIFT_PAIRS = 4000
MAX_TEST_PICTURES = 60
REAL_IMAGES_SHOWN = 20
_HEADLINE_ARMS = ("synthetic", "refined", "real", "tone_matched", "real_refined")
_HEADLINE_DIFFERENCES = ("refined_minus_synthetic", "real_refined_minus_real")
_WRITING = "writing charts and report"


class EvaluationResult(BaseModel):
    """Result of an evaluation, as `evaluate --json` prints it."""

    model_config = ConfigDict(frozen=True)

    arm: ArmResult
    num_test: int
    num_people: int | None
    test_evaluations: int
    mlflow_run_id: str
    answers: tuple[str, ...]
    """Files of each estimator's predictions."""
    estimators: tuple[str, ...]
    """Files of the estimators of gaze: what trainings take as stopping.estimator and
    regularization.features_from."""
    unmatched: ArmResult | None = None
    """The same training set with its labels as they are, where labels are matched."""
    label_matching: LabelMatching | None = None
    people_in_common: dict[str, tuple[str, ...]] = {}
    """People of the test set who are also in other real images, by these images' role."""

    def __str__(self) -> str:
        measure = ERROR_METRICS[self.arm.measure]
        low, high = self.arm.ci95
        summary = (
            f"{measure.noun} {self.arm.error:.2f}{measure.unit} (95% interval {low:.2f}–{high:.2f}"
            f"{measure.unit}), {self.arm.within:.1%} {measure.within}, {self.num_test} test images"
        )
        lines = [summary, caution_of_people(self.people_in_common)]
        if self.unmatched is not None:
            lines += [f"labels unmatched: {self.unmatched.error:.2f}", str(self.label_matching)]
        return "\n".join(filter(None, lines))

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        """Serialize the arm's figures at the top level."""
        return self.arm.model_dump() | {
            name: getattr(self, name) for name in type(self).model_fields if name != "arm"
        }


@task(name="summarize-evaluation", cache_policy=CACHE)
def summarize(evaluation: Comparison, estimates: list[Estimate]) -> EvaluationResult:
    """Compute the error of estimators trained on one dataset, with its confidence interval."""
    estimates = [fetched(each) for each in estimates]
    by_arm = read_predictions(estimates, evaluation.measure)
    arm, *unmatched = (arm_result(arm, by_arm[arm.name], evaluation) for arm in evaluation.arms)
    predictions = by_arm[evaluation.arms[0].name]
    own = [each for each in estimates if each.arm == evaluation.arms[0].name]
    matching = label_matching(evaluation, predictions)
    groups = predictions.groups
    with tracked_run(COMPARISONS, evaluation.id, evaluation.id) as run:
        measure = ERROR_METRICS[evaluation.measure]
        run.metrics({measure.error_key: arm.error, measure.within_key: arm.within})
        if unmatched:
            run.metrics({f"unmatched.{measure.error_key}": unmatched[0].error})
    return EvaluationResult(
        arm=arm,
        num_test=len(predictions.ids),
        num_people=None if groups is None else int(groups.max()) + 1,
        test_evaluations=_count_evaluations(evaluation),
        mlflow_run_id=evaluation.mlflow_run_id,
        answers=tuple(each.path for each in own),
        estimators=tuple(each.model for each in own if each.model is not None),
        unmatched=unmatched[0] if unmatched else None,
        label_matching=matching,
        people_in_common=evaluation.people_in_common,
    )


@task(name="conclude-comparison", cache_policy=CACHE)
def conclude(
    comparison: Comparison, estimates: list[Estimate], datasets: DatasetCache
) -> ComparisonResult:
    """Compute the results with confidence intervals; publish report, MLflow run, artifacts."""
    estimates = [fetched(each) for each in estimates]
    predictions = read_predictions(estimates, comparison.measure)
    num_test = len(next(iter(predictions.values())).ids)
    logger.info("%d estimators tested on %s images", len(estimates), f"{num_test:,}")
    logger.info("charts and report", extra=position(_WRITING, 0, 1))
    pairs = _pairs(comparison, datasets)
    pupils = pairs and _pupils(pairs)
    results = results_from_predictions(comparison, predictions, pupils and pupils.shift)
    folder = comparison_folder(comparison.id)
    folder.mkdir(parents=True, exist_ok=True)
    charts = draw_charts(
        comparison,
        results,
        predictions,
        _test_images(comparison, datasets),
        pupils and (pupils.before_px, pupils.after_px),
        _realism_curves(comparison),
        {arm.name: arm.num_rows or _num_rows(arm.datasets, comparison) for arm in comparison.arms},
    )
    with tracked_run(COMPARISONS, comparison.id, comparison.id) as run:
        result = ComparisonResult(
            **dict(results),
            test_evaluations=_count_evaluations(comparison),
            registered_model=register_winner(comparison, results, estimates),
            champion=_champion(comparison, results),
            mlflow_run_id=comparison.mlflow_run_id,
            flow_run=runtime.flow_run.root_flow_run_id,
            report=str(folder / "report.html"),
        )
        picture = png(_before_after(comparison, datasets, pairs))
        _write(folder, result, charts, picture, comparison)
        record(run, result, folder)
    _warn_of_refiner(comparison, result)
    _publish(result, charts, picture)
    logger.info("charts and report are written", extra=position(_WRITING, 1, 1))
    return result


class Pupils(NamedTuple):
    """Pupils' centres before and after refinement."""

    before_px: NDArray[np.float32]
    after_px: NDArray[np.float32]
    shift: PupilShift


def _pairs(comparison: Comparison, datasets: DatasetCache) -> Pairs | None:
    """Return pairs of the datasets of the synthetic and the refined arms, if both take part."""
    synthetic, refined = comparison.synthetic, comparison.refined
    if synthetic is None or refined is None:
        return None
    before, after = (datasets.open(comparison.datasets[url]) for url in (synthetic, refined))
    return valid_pairs(before, after, MAX_SHIFT_PAIRS)


def _pupils(pairs: Pairs) -> Pupils | None:
    """Measure how far refinement moved pupils; None without labels, or where none is found."""
    start_px = pairs.pupil_px
    if start_px is None:
        return None
    shift = pupil_shift_px(pairs.synthetic, pairs.refined, start_px)
    figures = shift.summary()
    if figures["share_found"] == 0:
        return None
    moved = shift.displacement_px[shift.found]
    return Pupils(
        start_px[shift.found],
        start_px[shift.found] + moved,
        PupilShift(mean=figures["mean"], sd=figures["sd"], median=figures["median"]),
    )


def _test_images(comparison: Comparison, datasets: DatasetCache) -> dict[str, NDArray[np.uint8]]:
    """The test images by id."""
    block = datasets.load(comparison.datasets[comparison.test])
    return dict(zip(block.ids, as_8_bits(block.images), strict=True))


def _num_rows(urls: Sequence[str], comparison: Comparison) -> int:
    return sum(comparison.datasets[url].num_valid for url in urls)


def _realism_curves(comparison: Comparison) -> dict[str, list[tuple[int, float]]]:
    """Realism metrics over the refiner's training, from its own MLflow run where there is one."""
    refined = comparison.refined
    if refined is None:
        return {}
    refiner = comparison.datasets[refined].spec.provenance.get("refiner")
    try:
        runs = runs_with(REFINERS, {"simgan.refiner": str(refiner)})
    except UnknownExperimentError:
        return {}
    curves = metric_curves(runs[-1].run_id, "realism/") if runs else {}
    return {name: points for name, points in curves.items() if len(points) > 1}


def _before_after(
    comparison: Comparison, datasets: DatasetCache, pairs: Pairs | None
) -> NDArray[np.uint8]:
    """Lay out pairs, or the first images of each dataset where rows cannot be paired."""
    if pairs is not None:
        shown = [pairs.synthetic[:MAX_TEST_PICTURES], pairs.refined[:MAX_TEST_PICTURES]]
    else:
        first = comparison.arms[0].datasets or (comparison.test,)
        shown = [
            datasets.first_images(comparison.datasets[url], MAX_TEST_PICTURES)
            for url in (comparison.synthetic or first[0], comparison.refined or first[0])
        ]
    synthetic, refined = map(as_8_bits, shown)
    real = datasets.spread_images(comparison.datasets[comparison.test], REAL_IMAGES_SHOWN)
    return before_after(synthetic, refined, as_8_bits(real))


def _count_evaluations(comparison: Comparison) -> int:
    """Count the predictions on this test set so far, and tag the dataset with it in MLflow.

    Counted anew from the runs: a step that was killed and repeated counts once.
    """
    runs = runs_with(
        COMPARISONS, {"stage": "evaluate", "simgan.test_digest": comparison.test_digest}
    )
    count = len({run.tags["simgan.estimate"] for run in runs})
    comparisons = len({run.tags["simgan.comparison"] for run in runs})
    remember_dataset(
        comparison.datasets[comparison.test],
        {"test_evaluations": str(count), "test_comparisons": str(comparisons)},
    )
    return count


def register_winner(
    comparison: Comparison, results: Results, estimates: list[Estimate]
) -> str | None:
    """Register the best arm's estimator, of those that learn without real labels.

    Which arm is best is the comparison's own answer, so that its error there flatters it a little:
    the version's tags say among how many it was the best. Which of its seeds is taken is decided by
    the part of the training set that was kept out, not by the test set.
    """
    kept = {arm.name for arm in comparison.arms if not arm.training_set.startswith("real")}
    own = [each for each in estimates if each.arm in kept and each.model is not None]
    if not own or comparison.protocol.by_person or comparison.estimator.head_pose:
        return None
    names = {each.arm for each in own}
    winner = min(names, key=lambda name: results.arms[name].error)
    best = min(
        (each for each in own if each.arm == winner),
        key=lambda each: (np.nan_to_num(each.validation_error, nan=np.inf), each.seed),
    )
    estimator = load_estimator(Path(str(best.model))).requires_grad_(False)
    tags = {
        "arm": winner,
        "seed": str(best.seed),
        "best_of_arms": str(len(names)),
        "test_digest": comparison.test_digest,
        "comparison": comparison.id,
        "error_deg": f"{results.arms[winner].error:.4f}",
    }
    name = f"{comparison.id}/model"
    with tracked_run(
        COMPARISONS, f"model-{winner}", name, {"stage": "model"}, comparison.mlflow_run_id
    ) as run:
        version = run.registered_version(REGISTERED_MODEL)
        if version is None:
            # Of 8 or 16 bits, as all of the comparison's datasets.
            pixels = comparison.datasets[comparison.test].spec.dtype
            images = np.zeros((2, *estimator.image_shape), pixels)
            run.pytorch_model("model", UInt8Estimator(estimator), {"images": images})
            run.artifact(Path(str(best.model)), "checkpoint")
            version = run.register_model(REGISTERED_MODEL, "model", tags)
    return f"models:/{REGISTERED_MODEL}/{version}"


def _write(
    folder: Path,
    result: ComparisonResult,
    charts: Sequence[Chart],
    picture: bytes,
    comparison: Comparison,
) -> None:
    page = comparison_page(result, charts, picture, _facts(result, comparison))
    files = {
        "before_after.png": picture,
        **{f"{chart.name}.png": chart.png for chart in charts},
        "report.html": page.encode(),
        "table.md": table(result).encode(),
        "result.json": result.model_dump_json(indent=2).encode(),
    }
    for name, content in files.items():
        with atomic_write(folder / name, durable=False) as partial:
            partial.write_bytes(content)


def _facts(result: ComparisonResult, comparison: Comparison) -> Mapping[str, str]:
    urls = {url for arm in comparison.arms for url in arm.datasets}
    datasets = {
        f"{info.spec.domain} dataset": f"{info.url} (digest {info.digest[:12]})"
        for info in (comparison.datasets[url] for url in sorted(urls))
    }
    return {
        "comparison": result.comparison,
        "protocol": result.protocol.title,
        "estimator": comparison.estimator.architecture,
        **datasets,
        "test dataset": f"{comparison.test} (digest {comparison.test_digest[:12]})",
        "MLflow run": result.mlflow_run_id,
        "label prior": "none"
        if result.label_matching is None
        else f"{result.label_matching.prior.id}, {result.label_matching.prior}",
        "registered estimator": result.registered_model or "none",
    } | ({} if result.champion is None else {"champion": result.champion})


def record(run: TrackedRun, result: ComparisonResult, folder: Path) -> None:
    """Put the result on its MLflow run: headline metrics, tables, the report's folder."""
    run.metrics(headline_metrics(result))
    run.table("arms.json", _rows("arm", result.arms))
    run.table("differences.json", _rows("difference", result.differences))
    run.tags(
        {
            "verdict": result.verdict,
            "test_evaluations": str(result.test_evaluations),
            "mlflow.note.content": table(result),
        }
    )
    run.artifact(folder)


def _rows(what: str, named: Mapping[str, ArmResult | Difference]) -> list[dict[str, Any]]:
    rows = [{what: name} | dict(each) for name, each in named.items()]
    for row in rows:
        row["ci95_low"], row["ci95_high"] = row.pop("ci95")
    return rows


def headline_metrics(result: Results) -> dict[str, float]:
    """Return the dozen figures that MLflow's list of runs shows; its tables have all of them."""
    measure = ERROR_METRICS[result.measure]
    found: dict[str, float] = {}
    for name in [name for name in _HEADLINE_ARMS if name in result.arms][:4]:
        found[f"{name}.{measure.error_key}"] = result.arms[name].error
    for name in ("synthetic", "refined"):
        if name in result.arms:
            found[f"{name}.{measure.within_key}"] = result.arms[name].within
    for name in [name for name in _HEADLINE_DIFFERENCES if name in result.differences][:1]:
        difference = result.differences[name]
        found[f"{name}.{measure.error_key}"] = difference.error
        found[f"{name}.ci95_low"], found[f"{name}.ci95_high"] = difference.ci95
    refined = result.arms.get("refined")
    if refined is not None and refined.pseudo_label_error_deg is not None:
        found[f"refined.{PSEUDO_LABEL_ERROR}"] = refined.pseudo_label_error_deg
    if result.pupil_shift_px is not None:
        found |= {f"pupil_shift_px.{name}": value for name, value in result.pupil_shift_px}
    return found


def _champion(comparison: Comparison, results: Results) -> str | None:
    """Update MLflow's champion by the refined arm's error on pseudo-labels."""
    errors_deg = {
        name: (arm.pseudo_label_error_deg, arm.pseudo_label_error_sd_deg)
        for name, arm in results.arms.items()
        if arm.pseudo_label_error_deg is not None
    }
    return decide_champion(comparison, errors_deg) if errors_deg else None


def _warn_of_refiner(comparison: Comparison, result: ComparisonResult) -> None:
    """Tag the refiner where refined images are shown to be worse on real test images."""
    difference = result.differences.get("refined_minus_synthetic")
    refined = comparison.refined
    if refined is None or difference is None or not difference.is_worse:
        return
    if comparison.datasets[comparison.test].spec.domain == "real":
        provenance = comparison.datasets[refined].spec.provenance
        warn_of_refiner(str(provenance.get("refiner")), comparison.id, result.verdict)


def _publish(result: ComparisonResult, charts: Sequence[Chart], picture: bytes) -> None:
    create_markdown_artifact(table(result), key="comparison", description=result.verdict)
    create_image_artifact(
        data_uri(picture),
        key="before-after",
        description="Synthetic images, the same ones refined below them, and real images.",
    )
    for chart in charts:
        create_image_artifact(
            data_uri(chart.png),
            key=chart.name.replace("_", "-"),
            description=f"{chart.title}. {chart.alt}",
        )
    page = page_of_run(result.mlflow_run_id)
    # The report lies beside the figures in MLflow; a browser opens no file of another machine.
    create_link_artifact(
        Path(result.report).as_uri() if page is None else f"{page}/artifacts/report.html",
        link_text="The whole report, with every picture",
        key="report",
        description=f"Report of {result.comparison}.",
    )
    link_to_mlflow(
        "mlflow-comparison", result.mlflow_run_id, f"{result.comparison} in MLflow, every estimator"
    )


def output_locations(result: ComparisonResult) -> str:
    """Return the paths of the report, the pictures and the estimator, a line each."""
    report = Path(shown_path(result.report))
    lines = [f"report    {report}", f"pictures  {report.with_name('before_after.png')}"]
    if result.registered_model is not None:
        lines.append(f"estimator {result.registered_model} in MLflow")
    if result.champion is not None:
        lines.append(f"champion  {result.champion}")
    return "\n".join(lines)
