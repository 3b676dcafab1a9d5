"""Report of a training in Prefect: samples before and after, links to its curves."""

import torch
from prefect.artifacts import create_image_artifact

from simgan_core.inference import UInt8Refiner
from simgan_core.models.checkpoint import LoadedRefiner
from storage.reader import Dataset
from tasks.runtime.pictures import as_8_bits, before_after, data_uri, png
from tasks.runtime.tracking.links import link_to_mlflow

IMAGES_SHOWN = 30


def show_training(
    refiner_id: str, mlflow_run_id: str, loaded: LoadedRefiner, synthetic: Dataset, real: Dataset
) -> None:
    """Create Prefect artifacts: images before and after refinement, link to the MLflow run."""
    before = synthetic.load(max_rows=IMAGES_SHOWN).images
    wanted = real.load_spread(IMAGES_SHOWN).images
    style = loaded.refiner.random_style(len(before), torch.Generator().manual_seed(0))
    with torch.inference_mode():
        after = UInt8Refiner(loaded.refiner)(torch.tensor(before), style).numpy()
    create_image_artifact(
        data_uri(png(before_after(as_8_bits(before), as_8_bits(after), as_8_bits(wanted)))),
        key="refined-samples",
        description="Synthetic images, the same images refined below them, and real images.",
    )
    link_to_mlflow("mlflow-refiner", mlflow_run_id, f"Training of {refiner_id} in MLflow")
