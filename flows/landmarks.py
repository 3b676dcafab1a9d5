"""Train a landmark model, for crops about the eye's corners."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.run_names import named
from simgan_core.config import LandmarkTraining
from tasks.runtime.policies import gpu_slot
from tasks.training.landmarks import LandmarkModelRef, train_landmark_model


@flow(name="train-landmarks", flow_run_name=named("train landmarks to {out}"))
def train_landmarks(
    out: str,
    datasets: tuple[str, ...] = (),
    num_simulated: Annotated[int, Field(ge=1)] = 4000,
    config: LandmarkTraining = LandmarkTraining(),
) -> LandmarkModelRef:
    """Train a landmark model, with a run in MLflow; after a stop the same run resumes.

    Args:
        out: File to write the model to.
        datasets: Datasets with the labels corners_px, pupil_px and iris_px, paths or URLs.
        num_simulated: Number of simulated eyes, half of them "synthetic" and half "real".
        config: Updates, batch size, learning rate and seed.
    """
    with gpu_slot():
        return train_landmark_model(out, datasets, num_simulated, config)
