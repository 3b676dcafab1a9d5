"""Choose among refiners without real labels."""

from typing import Literal

from prefect import flow

from flows.evaluate import Seeds, trained_estimators
from flows.run_names import named
from simgan_core.config import EstimatorConfig
from tasks.comparison.choice import (
    ChoiceResult,
    conclude_choice,
    find_judged,
    judge,
    plan_choice,
)
from tasks.comparison.label_prior import match_labels as match
from tasks.comparison.pseudo_labels import teach_students
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.policies import Runner, gpu_slot, require_runner


@flow(name="choose", flow_run_name=named("choose among refiners of {synthetic}"))
def choose(
    synthetic: str,
    refined: tuple[str, ...],
    unlabelled: str,
    seeds: Seeds = 3,
    estimator: EstimatorConfig = EstimatorConfig(),
    match_labels: Literal["auto", "always", "never"] = "auto",
    teachers: tuple[str, ...] = (),
    runner: Runner = Runner(),
) -> ChoiceResult:
    """Order refined datasets by their error on pseudo-labels, and name the champion.

    Args:
        synthetic: The simulator's dataset, path or URL.
        refined: Datasets refined from it, two or more, each by another refiner.
        unlabelled: Real images; their labels, if they have any, are not looked at.
        seeds: Estimators trained for each refined dataset.
        estimator: Network and recipe, the same for all.
        match_labels: Draw refined rows as often as their gaze is estimated to occur among the
            unlabelled images; auto: unless that estimate is doubtful.
        teachers: Labelled datasets of other simulators, whose estimators label the unlabelled
            images too.
        runner: Where estimators are trained: in this process, or by Dask's workers.
    """
    require_runner(runner, to_mlflow=True)
    datasets = DatasetCache()
    plan = plan_choice(
        datasets, synthetic, refined, unlabelled, seeds, estimator, match_labels, teachers
    )
    with gpu_slot():
        plan = match(plan, datasets)
        plan = teach_students(plan, datasets)
    errors = trained_estimators(plan, find_judged(plan), judge, datasets, runner)
    return conclude_choice(plan, errors)
