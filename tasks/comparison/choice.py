"""Choice among refiners without real labels: the least error on pseudo-labels."""

import logging
from collections.abc import Iterable
from statistics import fmean, stdev, variance
from typing import Literal

from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from storage.schema import DatasetInfo
from tasks.comparison.champion import decide_champion
from tasks.comparison.criterion import (
    PSEUDO_LABEL_ERROR,
    doubt_of_teachers,
    error_on_pseudo_labels_deg,
)
from tasks.comparison.estimators import content_of, with_number_format
from tasks.comparison.networks import network_id, trained_network
from tasks.comparison.plan import Arm, EstimatorPlan, Job
from tasks.runtime.compatibility import (
    require_distinct,
    require_domain,
    require_gaze,
    require_same_images,
    require_valid_rows,
)
from tasks.runtime.content_ids import content_id
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.devices import describe_compute, take_device_of_worker
from tasks.runtime.paths import shown_path
from tasks.runtime.policies import CACHE, IO_RETRIES, IO_RETRY_DELAYS_S, retry_on_io
from tasks.runtime.recipes import recipe_version
from tasks.runtime.stages import position
from tasks.runtime.tracking.experiments import COMPARISONS
from tasks.runtime.tracking.links import link_to_mlflow
from tasks.runtime.tracking.runs import begin_run, runs_with, tracked_run

logger = logging.getLogger(__name__)

MatchLabels = Literal["auto", "always", "never"]


class Candidate(BaseModel):
    """A refined dataset and its estimators' errors on pseudo-labels."""

    model_config = ConfigDict(frozen=True)

    refined: str
    refiner: str | None
    """Id of the refiner; None where another program refined the images."""
    pseudo_label_error_deg: float
    """Mean over estimator seeds."""
    by_seed_deg: tuple[float, ...]


class ChoiceResult(BaseModel):
    """Refined datasets by their error on pseudo-labels; what `choose --json` prints."""

    model_config = ConfigDict(frozen=True)

    choice: str
    candidates: tuple[Candidate, ...]
    """The best first."""
    lead_deg: float
    """Of the best over the next."""
    seed_spread_deg: float | None
    """Standard deviation between estimators of one dataset; None with a single seed."""
    verdict: str
    champion: str | None
    """Which refiner is MLflow's champion after this, and why; None where nothing says so."""
    labels_matched: bool
    mlflow_run_id: str


@task(name="plan-choice", cache_policy=CACHE)
def plan_choice(
    datasets: DatasetCache,
    synthetic: str,
    refined: tuple[str, ...],
    unlabelled: str,
    seeds: int,
    estimator: EstimatorConfig,
    match_labels: MatchLabels,
    teachers: tuple[str, ...],
) -> EstimatorPlan:
    """Check that the datasets may be compared, and name the choice by their content."""
    infos = {url: datasets.find(url) for url in (synthetic, *refined, unlabelled, *teachers)}
    _require_comparable(infos, synthetic, refined, unlabelled, teachers)
    if estimator.head_pose or estimator.architecture == "hourglass":
        raise InputError(
            "unlabelled images have no head pose, and teachers predict gaze: choose another "
            "--architecture than hourglass, and leave --head-pose out"
        )
    estimator = with_number_format(estimator)
    arms = tuple(
        Arm(
            name=f"refined_{number}",
            title=shown_path(url),
            training_set="refined",
            datasets=(url,),
            matched=match_labels != "never",
        )
        for number, url in enumerate(refined, 1)
    )
    key = content_id(
        "choice",
        {
            "arms": [content_of(arm, infos) for arm in arms],
            "judged": [infos[url].digest for url in (unlabelled, synthetic, *teachers)],
            "match_labels": match_labels,
            "seeds": seeds,
            "estimator": estimator.model_dump(mode="json"),
            "recipes": [recipe_version("estimate"), recipe_version("compare")],
        },
    )
    run = begin_run(COMPARISONS, key, key, {"stage": "choice"})
    run.params(estimator.model_dump() | {"seeds": seeds, "match_labels": match_labels})
    run.datasets(
        {"synthetic": infos[synthetic], "unlabelled": infos[unlabelled]}
        | {arm.name: infos[arm.datasets[0]] for arm in arms}
    )
    return EstimatorPlan(
        id=key,
        arms=arms,
        seeds=seeds,
        estimator=estimator,
        mlflow_run_id=run.run_id,
        unlabelled=None if match_labels == "never" else unlabelled,
        prior_source=None if match_labels == "never" else synthetic,
        match_doubtful_labels=match_labels == "always",
        judged_on=unlabelled,
        judged_by=(synthetic, *teachers),
        datasets=infos,
    )


def _require_comparable(
    infos: dict[str, DatasetInfo],
    synthetic: str,
    refined: tuple[str, ...],
    unlabelled: str,
    teachers: tuple[str, ...],
) -> None:
    """Refuse less than two refined datasets, and datasets in the wrong role."""
    if len(refined) < 2:
        raise InputError(
            f"a choice is among two or more refined datasets, found {len(refined)}: repeat "
            "--refined; simgan compare measures a single one"
        )
    roles = {"synthetic": synthetic, "unlabelled real": unlabelled}
    roles |= {f"refined number {number}": url for number, url in enumerate(refined, 1)}
    roles |= {f"teachers' number {number}": url for number, url in enumerate(teachers, 1)}
    require_distinct({role: infos[url] for role, url in roles.items()})
    require_domain(infos[unlabelled], "unlabelled", "real")
    for role, url in roles.items():
        info = infos[url]
        require_valid_rows(info)
        require_same_images(info, infos[unlabelled], role, "unlabelled real")
        if url != unlabelled:
            require_gaze(info)
            require_domain(info, role, *_domains_of(role))
        parent = info.spec.provenance.get("parent_digest")
        if url in refined and parent not in {None, infos[synthetic].digest}:
            raise InputError(
                f"{url} was refined from another dataset than {synthetic} (digest "
                f"{str(parent)[:12]}, expected {infos[synthetic].digest[:12]}): give datasets "
                "refined from one, or that one as --synthetic"
            )


def _domains_of(role: str) -> tuple[Literal["synthetic", "refined"], ...]:
    # Images that another program refined may be ingested as synthetic ones.
    return ("synthetic",) if role == "synthetic" else ("synthetic", "refined")


@task(name="find-judged", cache_policy=CACHE)
def find_judged(plan: EstimatorPlan) -> dict[str, float]:
    """Return the errors that an earlier run of this choice measured, by the job's name."""
    tags = {"stage": "judge", "simgan.choice": plan.id}
    measured = {
        run.tags["simgan.job"]: run.metrics[PSEUDO_LABEL_ERROR]
        for run in runs_with(COMPARISONS, tags)
        if run.status == "FINISHED"
    }
    found = {job.name: measured[job.name] for job in plan.jobs if job.name in measured}
    if found:
        logger.info("%d of %d estimators are found from an earlier run", len(found), len(plan.jobs))
    return found


@task(
    name="judge-estimator",
    task_run_name="{job.arm.name}-{job.seed}",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def judge(job: Job, plan: EstimatorPlan, datasets: DatasetCache) -> float:
    """Train one estimator; returns its error on pseudo-labels in degrees."""
    take_device_of_worker()
    name = network_id(job, plan)
    tags = {
        "stage": "judge",
        "arm": job.arm.title,
        "seed": str(job.seed),
        "simgan.choice": plan.id,
        "simgan.job": job.name,
    }
    key = f"{plan.id}/{name}"
    with tracked_run(COMPARISONS, job.name, key, tags, plan.mlflow_run_id) as run:
        run.params({"seed": job.seed, "estimator": name})
        network = trained_network(job, plan, None, name, datasets)
        run.computed_by(describe_compute(plan.estimator.precision))
        error_deg = error_on_pseudo_labels_deg(network, plan, datasets)
        run.metrics({PSEUDO_LABEL_ERROR: error_deg})
    done, total = plan.jobs.index(job) + 1, len(plan.jobs)
    logger.info(
        "estimator %d of %d, %s, seed %d: %.2f° from the pseudo-labels",
        *(done, total, job.arm.title, job.seed, error_deg),
        extra=position("training and judging estimators", done, total),
    )
    return error_deg


@task(name="conclude-choice", cache_policy=CACHE)
def conclude_choice(plan: EstimatorPlan, errors_deg: list[float]) -> ChoiceResult:
    """Order the refined datasets; publish the table and let the champion follow."""
    by_arm: dict[str, tuple[float, ...]] = {arm.name: () for arm in plan.arms}
    for job, error_deg in zip(plan.jobs, errors_deg, strict=True):
        by_arm[job.arm.name] += (error_deg,)
    best, *others = ordered = sorted(
        (_candidate(arm, plan, by_arm[arm.name]) for arm in plan.arms),
        key=lambda each: each.pseudo_label_error_deg,
    )
    lead_deg = others[0].pseudo_label_error_deg - best.pseudo_label_error_deg
    spread_deg = _spread_deg(by_arm.values())
    champion = decide_champion(
        plan,
        {
            name: (fmean(each), stdev(each) if len(each) > 1 else None)
            for name, each in by_arm.items()
        },
    )
    assert plan.pseudo_labels is not None, "teach_students comes before"
    doubt = doubt_of_teachers(plan.pseudo_labels, plan.label_prior)
    with tracked_run(COMPARISONS, plan.id, plan.id) as run:
        result = ChoiceResult(
            choice=plan.id,
            candidates=tuple(ordered),
            lead_deg=lead_deg,
            seed_spread_deg=spread_deg,
            verdict=_verdict(best, others[0], spread_deg, doubt),
            champion=champion,
            labels_matched=any(arm.matched for arm in plan.arms),
            mlflow_run_id=plan.mlflow_run_id,
        )
        run.metrics(
            {"lead_deg": lead_deg, f"best.{PSEUDO_LABEL_ERROR}": best.pseudo_label_error_deg}
        )
        run.table("candidates.json", [each.model_dump(exclude={"by_seed_deg"}) for each in ordered])
        run.tags(
            {
                "verdict": result.verdict,
                "champion": champion or "stays",
                "mlflow.note.content": choice_table(result),
            }
        )
    create_markdown_artifact(choice_table(result), key="choice", description=result.verdict)
    link_to_mlflow("mlflow-choice", plan.mlflow_run_id, f"{plan.id} in MLflow, every estimator")
    return result


def _candidate(arm: Arm, plan: EstimatorPlan, by_seed_deg: tuple[float, ...]) -> Candidate:
    refiner = plan.datasets[arm.datasets[0]].spec.provenance.get("refiner")
    return Candidate(
        refined=arm.title,
        refiner=None if refiner is None else str(refiner),
        pseudo_label_error_deg=fmean(by_seed_deg),
        by_seed_deg=by_seed_deg,
    )


def _spread_deg(errors_deg: Iterable[tuple[float, ...]]) -> float | None:
    """Return the standard deviation between seeds of one dataset, pooled; None with one seed."""
    several = [each for each in errors_deg if len(each) > 1]
    return fmean(variance(each) for each in several) ** 0.5 if several else None


def _verdict(best: Candidate, second: Candidate, spread_deg: float | None, doubt: str) -> str:
    lead = _lead(best, second, spread_deg)
    return f"{lead} NOT to be trusted, and no champion is chosen: {doubt}." if doubt else lead


def _lead(best: Candidate, second: Candidate, spread_deg: float | None) -> str:
    lead_deg = second.pseudo_label_error_deg - best.pseudo_label_error_deg
    lead = (
        f"{best.refined} has the least error on pseudo-labels, {lead_deg:.2f}° less than the next"
    )
    if spread_deg is None:
        return f"{lead}. One estimator seed cannot tell that from chance: use --seeds 3."
    if lead_deg > spread_deg:
        return f"{lead}: more than the spread between estimator seeds (±{spread_deg:.2f}°)."
    return (
        f"{lead}: within the spread between estimator seeds (±{spread_deg:.2f}°), so that "
        f"{second.refined} may be as good."
    )


def choice_table(result: ChoiceResult) -> str:
    """Return the candidates as a Markdown table, with the verdict below it."""
    rows = [
        f"| {each.refined} | {each.refiner or '–'} | {each.pseudo_label_error_deg:.2f}° "
        f"| {', '.join(f'{error:.2f}' for error in each.by_seed_deg)} |"
        for each in result.candidates
    ]
    head = [
        "| refined dataset | refiner | error on pseudo-labels | by seed |",
        "|---|---|---:|---:|",
    ]
    matched = "matched" if result.labels_matched else "not matched"
    note = (
        "No real label was used: predictions of each refined dataset's estimators (labels "
        f"{matched}) against those of estimators of synthetic images, on the unlabelled images."
    )
    return "\n".join([*head, *rows, "", note, result.verdict])
