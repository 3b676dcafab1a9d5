"""Train estimators and test them on real images: one training set, or a comparison of several."""

from typing import Annotated, TypeVar

from prefect import Task, flow
from pydantic import Field

from flows.run_names import named
from simgan_core.config import EstimatorConfig
from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.estimate import estimate, find_estimates
from tasks.comparison.label_prior import match_labels
from tasks.comparison.plan import EstimatorPlan
from tasks.comparison.planning import plan_comparison, plan_evaluation
from tasks.comparison.pseudo_labels import teach_students
from tasks.comparison.reporting.report import EvaluationResult, conclude, summarize
from tasks.comparison.reporting.results import ComparisonResult
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.policies import (
    Runner,
    gpu_slot,
    placed,
    require_runner,
    task_runner,
    tasks_stop_too,
)

Seeds = Annotated[int, Field(ge=1, le=100)]
T = TypeVar("T")


@flow(name="evaluate", flow_run_name=named("train on {train}, test on {test}"))
def evaluate(
    train: str,
    test: str,
    seeds: Seeds = 3,
    estimator: EstimatorConfig = EstimatorConfig(),
    unlabelled: str | None = None,
    runner: Runner = Runner(),
) -> EvaluationResult:
    """Train estimators on one dataset and test them on another.

    Args:
        train: Dataset to train on, path or URL.
        test: Dataset to test on; it takes no part in early stopping or any other choice.
        seeds: Number of estimators to train, each with another seed.
        estimator: Network and training recipe.
        unlabelled: Real images for label matching: rows are resampled to their estimated gaze
            distribution. The result without it is shown too.
        runner: Where estimators are trained: in this process, or by Dask's workers.
    """
    require_runner(runner, to_mlflow=True)
    datasets = DatasetCache()
    plan = plan_evaluation(datasets, train, test, seeds, estimator, unlabelled)
    with gpu_slot():
        plan = match_labels(plan, datasets)
    estimates = trained_estimators(plan, find_estimates(plan), estimate, datasets, runner)
    return summarize(plan, estimates)


@flow(name="compare", flow_run_name=named("compare {refined} with {synthetic} on {test}"))
def compare(
    synthetic: str,
    refined: str,
    test: str,
    real: str | None = None,
    seeds: Seeds = 3,
    estimator: EstimatorConfig = EstimatorConfig(),
    comparison: ComparisonConfig = ComparisonConfig(),
    unlabelled: str | None = None,
    teachers: tuple[str, ...] = (),
    runner: Runner = Runner(),
) -> ComparisonResult:
    """Compare synthetic with refined training images by their error on labelled real images.

    Args:
        synthetic: The simulator's dataset, path or URL.
        refined: The dataset refined from `synthetic`.
        test: Labelled real images to test on; they take no part in early stopping or any other
            choice.
        real: Labelled real images to train on: what real labels would give (the ceiling).
        seeds: Number of estimators to train on each training set.
        estimator: Network and training recipe, the same for every training set.
        comparison: Protocol, training sets, classical baselines and sizes that take part.
        unlabelled: Real images for label matching, tone matching and domain adaptation, none of
            them in the test set. By default `real`, else the real images of the refiner's training.
        teachers: Labelled datasets of other simulators. Estimators trained on them also predict
            pseudo-labels, for the adapted arms and the error on pseudo-labels.
        runner: Where estimators are trained: in this process, or by Dask's workers.
    """
    require_runner(runner, to_mlflow=True)
    datasets = DatasetCache()
    plan = plan_comparison(
        datasets,
        *(synthetic, refined, real, test, seeds, estimator, comparison, unlabelled, teachers),
    )
    with gpu_slot():
        plan = match_labels(plan, datasets)
        plan = teach_students(plan, datasets)
    estimates = trained_estimators(plan, find_estimates(plan), estimate, datasets, runner)
    return conclude(plan, estimates, datasets)


def trained_estimators(
    plan: EstimatorPlan,
    known: dict[str, T],
    step: Task[..., T],
    datasets: DatasetCache,
    runner: Runner,
) -> list[T]:
    """Train a plan's missing estimators; returns the result of `step` for each job."""
    found = dict(known)
    missing = [job for job in plan.jobs if job.name not in found]
    # Where nothing is to be computed, no slot is waited for that another run may hold.
    if missing:
        # Tasks are told to stop before their runner waits for them.
        with gpu_slot(), task_runner(runner) as tasks, tasks_stop_too(), placed(tasks, "gpu"):
            trainings = {
                job.name: tasks.submit(step, {"job": job, "plan": plan, "datasets": datasets})
                for job in missing
            }
            found |= {name: training.result() for name, training in trainings.items()}
    return [found[job.name] for job in plan.jobs]
