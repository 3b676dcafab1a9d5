"""Choose among refiners without real labels, by the error on pseudo-labels."""

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
    """Rank refined datasets by their error on pseudo-labels, and update the champion.

    Args:
        synthetic: The simulator's dataset, path or URL.
        refined: Datasets refined from `synthetic`, two or more, each by another refiner; repeat the
            option for each.
        unlabelled: Real images; their labels, if they have any, are not read.
        seeds: Number of estimators to train on each refined dataset.
        estimator: Network and training recipe, the same for all.
        match_labels: Label matching: resample rows to the estimated gaze distribution of the
            unlabelled images. auto: unless that estimate is doubtful.
        teachers: Labelled datasets of other simulators. Estimators trained on them also predict
            pseudo-labels.
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
