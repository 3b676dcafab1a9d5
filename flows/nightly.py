"""Nightly run: ingest what is new, retrain by rule, refine, compare.

A new refiner is trained only when a rule says so; the run shows the rule's decision and reason.
"""

from prefect import flow

from flows.evaluate import Seeds, compare
from flows.ingest import ingest
from flows.refine import refine
from flows.run_names import named
from flows.train import train
from simgan_core.config import DEFAULT_PRESET, PRESETS, EstimatorConfig, TrainingConfig
from storage.schema import Preprocess
from tasks.comparison.preconditions import require_comparable
from tasks.comparison.reporting.results import ComparisonResult
from tasks.ingestion.inputs import SourceInput
from tasks.nightly import RetrainRule, decide_retraining, remember_training, watch_outcome


@flow(name="nightly", flow_run_name=named("night of {date} in {out}"))
def nightly(
    synthetic: SourceInput,
    real: SourceInput,
    test: SourceInput,
    out: str,
    preprocess: Preprocess = "equalize",
    training: TrainingConfig = PRESETS[DEFAULT_PRESET],
    retrain: RetrainRule = RetrainRule(),
    estimator: EstimatorConfig = EstimatorConfig(),
    seeds: Seeds = 3,
) -> ComparisonResult:
    """Ingest new samples, refine them, compare, and raise an event when refined images got worse.

    Args:
        synthetic: The simulator's output, to which it adds.
        real: Real images that the refiner learns from.
        test: Labelled real images to test on, none of them among `real`.
        out: Folder or URL in which the four datasets stay from night to night.
        preprocess: Preprocessing of both domains: histogram equalisation, as MPIIGaze's images have
            it, or none.
        training: The refiner's hyperparameters, for nights that train one.
        retrain: When to train a new refiner.
        estimator: The estimator's network and training recipe, the same for every training set.
        seeds: Number of estimators to train on each training set.
    """
    synthetic_set = ingest(synthetic, f"{out}/synthetic.zarr", preprocess, append=True)
    real_set = ingest(real, f"{out}/real.zarr", preprocess, append=True)
    test_set = ingest(test, f"{out}/test.zarr", preprocess, append=True)
    require_comparable(synthetic_set.url, real_set.url, test_set.url)
    decision = decide_retraining(out, synthetic_set, real_set, training, retrain)
    refiner = decision.refiner
    if refiner is None:
        refiner = train(synthetic_set.url, real_set.url, training).refiner
        remember_training(out, refiner, synthetic_set, real_set, training)
    # What another refiner made is replaced, what this one made is kept.
    refined_set = refine(
        synthetic_set.url, refiner, f"{out}/refined.zarr", overwrite=True, append=True
    )
    result = compare(
        synthetic=synthetic_set.url,
        refined=refined_set.url,
        real=real_set.url,
        test=test_set.url,
        seeds=seeds,
        estimator=estimator,
    )
    watch_outcome(out, result)
    return result
