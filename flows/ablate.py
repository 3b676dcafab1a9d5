"""Ablation: the training as configured, and once without each part of the method."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.evaluate import Seeds, evaluate
from flows.refine import refine
from flows.run_names import named
from flows.train import train
from simgan_core.config import PARTS, PRESETS, EstimatorConfig, Part, TrainingConfig
from tasks.comparison.ablation import Ablation, VariantSeed, measure_variant, tabulate, variants


@flow(name="ablate", flow_run_name=named("ablate a training from {synthetic} to {real}"))
def ablate(
    synthetic: str,
    real: str,
    test: str,
    out: str,
    training: TrainingConfig = PRESETS["stable"],
    seeds: Seeds = 3,
    estimator_seeds: Seeds = 3,
    estimator: EstimatorConfig = EstimatorConfig(),
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = PARTS,
) -> Ablation:
    """Train, refine and evaluate each variant; run again, it goes on where it was.

    Args:
        synthetic: The simulator's dataset, path or URL.
        real: The unlabelled real dataset.
        test: Labelled real images to test on; nothing of it is used for any choice.
        out: Folder or URL for the refined datasets.
        training: What parts are taken from.
        seeds: Refiners trained for each variant.
        estimator_seeds: Estimators trained on what each refiner made.
        estimator: Network and recipe, the same for all.
        parts: What to do without, each in turn: a training for each of them and each seed.
    """
    baseline = evaluate(synthetic, test, estimator_seeds, estimator)
    matching = baseline.estimators[0] if baseline.estimators else None
    measured: dict[str, list[VariantSeed]] = {}
    for name, config in variants(training, matching, parts).items():
        for seed in range(training.seed, training.seed + seeds):
            seeded = config.model_copy(update={"seed": seed})
            trained = train(synthetic, real, seeded, may_lead=False)
            refined = refine(synthetic, trained.refiner, f"{out}/{trained.refiner}.zarr")
            evaluation = evaluate(refined.url, test, estimator_seeds, estimator)
            measured.setdefault(name, []).append(measure_variant(trained.path, evaluation))
    return tabulate(measured, baseline)
