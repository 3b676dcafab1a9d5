"""Ablation study: the training as configured, and once without each part of the method."""

from collections.abc import Iterator
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.evaluate import Seeds, evaluate
from flows.label_prior import label_prior
from flows.refine import refine
from flows.run_names import named
from flows.train import train
from simgan_core.config import DEFAULT_PRESET, PARTS, PRESETS, EstimatorConfig, Part, TrainingConfig
from tasks.comparison.ablation import Ablation, VariantSeed, measure_variant, tabulate, variants
from tasks.runtime.policies import (
    Runner,
    gpu_slot,
    placed,
    require_runner,
    task_runner,
    tasks_stop_too,
)
from tasks.training.named_files import contents_of
from tasks.training.train import RefinerRef, train_refiner


@flow(name="ablate", flow_run_name=named("ablate a training from {synthetic} to {real}"))
def ablate(
    synthetic: str,
    real: str,
    test: str,
    out: str,
    training: TrainingConfig = PRESETS[DEFAULT_PRESET],
    seeds: Seeds = 3,
    estimator_seeds: Seeds = 3,
    estimator: EstimatorConfig = EstimatorConfig(),
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = PARTS,
    runner: Runner = Runner(),
) -> Ablation:
    """Train, refine and evaluate each variant; after a stop the same run resumes.

    Args:
        synthetic: The simulator's dataset, path or URL.
        real: The unlabelled real dataset.
        test: Labelled real images to test on; they take no part in early stopping or any other
            choice.
        out: Folder or URL for the refined datasets.
        training: The training of which each variant lacks one part.
        seeds: Number of refiners to train for each variant.
        estimator_seeds: Number of estimators to train on each refined dataset.
        estimator: Network and training recipe, the same for all.
        parts: Parts of the method to leave out, one in each variant.
        runner: Where refiners and estimators are trained and datasets refined: in this process, or
            by Dask's workers.
    """
    require_runner(runner, to_mlflow=True)
    baseline = evaluate(synthetic, test, estimator_seeds, estimator, runner=runner)
    # Estimators of gaze have files; where joints are labelled there is no label to match.
    is_added = training.match_labels_by is None and "label-matching" in parts
    needs_prior = bool(baseline.estimators) and is_added
    matching = label_prior(synthetic, real, estimator).path if needs_prior else None
    trainings = [
        (name, config.model_copy(update={"seed": seed}))
        for name, config in variants(training, matching, parts).items()
        for seed in range(training.seed, training.seed + seeds)
    ]
    refiners = _train_each([config for _, config in trainings], synthetic, real, runner)
    measured: dict[str, list[VariantSeed]] = {}
    for (name, _), trained in zip(trainings, refiners, strict=True):
        # A worker on another machine leaves the refiner in MLflow.
        refiner = trained.refiner if runner.kind == "local" else f"runs:/{trained.mlflow_run_id}"
        refined = refine(synthetic, refiner, f"{out}/{trained.refiner}.zarr", runner=runner)
        evaluation = evaluate(refined.url, test, estimator_seeds, estimator, runner=runner)
        measured.setdefault(name, []).append(
            measure_variant(refiner, refined.url, real, evaluation)
        )
    return tabulate(measured, baseline)


def _train_each(
    configs: list[TrainingConfig], synthetic: str, real: str, runner: Runner
) -> Iterator[RefinerRef]:
    """Train a refiner by each configuration: here one after the other, on Dask side by side."""
    if runner.kind == "local":
        for config in configs:
            yield train(synthetic, real, config, may_lead=False)
        return
    shared = {"synthetic": synthetic, "real": real, "may_lead": False}
    # Tasks are told to stop before their runner waits for them.
    with gpu_slot(), task_runner(runner) as tasks, tasks_stop_too(), placed(tasks, "gpu"):
        trainings = [
            tasks.submit(train_refiner, {"config": config, "files": contents_of(config), **shared})
            for config in configs
        ]
        refiners = [training.result() for training in trainings]
    yield from refiners
