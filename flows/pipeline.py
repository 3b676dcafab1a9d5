"""The whole pipeline in order: start reading here.

simulator output ─┐                               ┌─ refined dataset ─┐
                  ├─ ingest ─ train ─ bulk refine ┤                   ├─ compare on real test data
real images ──────┘                               └─ synthetic ───────┘

simgan pipeline --synthetic DIR --real DIR --real-people p00,p01 --test-people p02 --out DIR
"""

from prefect import flow

from flows.evaluate import Seeds, compare
from flows.ingest import ingest
from flows.refine import refine
from flows.run_names import named
from flows.train import train
from simgan_core.config import DEFAULT_PRESET, PRESETS, EstimatorConfig, TrainingConfig
from storage.schema import Preprocess
from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.label_prior import with_matched_labels
from tasks.comparison.preconditions import require_comparable
from tasks.comparison.reporting.results import ComparisonResult
from tasks.ingestion.inputs import SourceInput
from tasks.runtime.policies import gpu_slot


@flow(name="pipeline", flow_run_name=named("the whole way round in {out}"))
def pipeline(
    synthetic: SourceInput,
    real: SourceInput,
    test: SourceInput,
    out: str,
    preprocess: Preprocess = "equalize",
    training: TrainingConfig = PRESETS[DEFAULT_PRESET],
    estimator: EstimatorConfig = EstimatorConfig(),
    seeds: Seeds = 3,
    comparison: ComparisonConfig = ComparisonConfig(),
) -> ComparisonResult:
    """Ingest both domains, train the refiner, refine, and compare on real test images.

    Args:
        synthetic: The simulator's output.
        real: Real images that the refiner learns from; their labels serve only the arms of real
            images (the ceiling).
        test: Labelled real images to test on, none of them among `real`.
        out: Folder or URL for the four datasets.
        preprocess: Preprocessing of both domains: histogram equalisation, as MPIIGaze's images have
            it, or none.
        training: The refiner's hyperparameters.
        estimator: The estimator's network and training recipe, the same for every training set.
        seeds: Number of estimators to train on each training set.
        comparison: Protocol, training sets, classical baselines and sizes that take part.
    """
    synthetic_set = ingest(synthetic, f"{out}/synthetic.zarr", preprocess)
    real_set = ingest(real, f"{out}/real.zarr", preprocess)
    test_set = ingest(test, f"{out}/test.zarr", preprocess)
    require_comparable(synthetic_set.url, real_set.url, test_set.url, comparison)
    with gpu_slot():
        training = with_matched_labels(
            training, synthetic_set.url, real_set.url, estimator, comparison
        )
    refiner = train(synthetic_set.url, real_set.url, training)
    refined_set = refine(synthetic_set.url, refiner.refiner, f"{out}/refined.zarr")
    return compare(
        synthetic=synthetic_set.url,
        refined=refined_set.url,
        real=real_set.url,
        test=test_set.url,
        seeds=seeds,
        estimator=estimator,
        comparison=comparison,
    )
