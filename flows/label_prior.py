"""Label prior: estimate of the gaze distribution of unlabelled real images."""

from prefect import flow

from flows.run_names import named
from simgan_core.config import EstimatorConfig
from tasks.comparison.label_prior import estimate_prior
from tasks.comparison.plan import LabelPriorRef
from tasks.runtime.policies import gpu_slot


@flow(name="label-prior", flow_run_name=named("label prior of {unlabelled} from {synthetic}"))
def label_prior(
    synthetic: str, unlabelled: str, estimator: EstimatorConfig = EstimatorConfig()
) -> LabelPriorRef:
    """Estimate the gaze distribution of real images by estimators trained on synthetic ones.

    Args:
        synthetic: The simulator's dataset, path or URL.
        unlabelled: Real images; their labels, if they have any, are not read.
        estimator: Network and training recipe.
    """
    with gpu_slot():
        return estimate_prior(synthetic, unlabelled, estimator)
