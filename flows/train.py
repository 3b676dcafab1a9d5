"""Train a refiner from a synthetic and an unlabelled real dataset."""

from prefect import flow

from flows.run_names import named
from simgan_core.config import DEFAULT_PRESET, PRESETS, TrainingConfig
from tasks.runtime.policies import gpu_slot
from tasks.training.train import RefinerRef, train_refiner


@flow(name="train", flow_run_name=named("train a refiner from {synthetic} to {real}"))
def train(
    synthetic: str,
    real: str,
    config: TrainingConfig = PRESETS[DEFAULT_PRESET],
    may_lead: bool = True,
) -> RefinerRef:
    """Train a refiner and register it in MLflow; after a stop the same run resumes.

    Args:
        synthetic: The simulator's dataset, path or URL.
        real: The real dataset; its labels, if it has any, are not read.
        config: Hyperparameters of networks, losses, learning-rate schedule and early stopping.
        may_lead: Let the refiner become MLflow's champion where it is the best.
    """
    with gpu_slot():
        return train_refiner(synthetic, real, config, may_lead)
