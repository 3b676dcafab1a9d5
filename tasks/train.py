"""Training the refiner: two datasets in, a refiner out, all of it remembered in MLflow."""

import logging
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from prefect import task
from torch import Tensor

from simgan_core.checkpoint import LoadedRefiner, load_refiner, save_refiner
from simgan_core.config import TrainingConfig
from simgan_core.errors import InputError
from simgan_core.refinement import UInt8Refiner
from simgan_core.trainer import Trainer
from storage.reader import Dataset, open_dataset
from tasks.compatibility import as_uint8, require_same_images
from tasks.devices import default_device
from tasks.home import refiner_folder
from tasks.identity import code_version, content_id
from tasks.pictures import grid, refinement_progress
from tasks.policies import CACHE
from tasks.termination import EXIT_CODE, termination_noticed
from tasks.tracking import TrackedRun, tracked_run

logger = logging.getLogger(__name__)

EXPERIMENT = "refiners"
REGISTERED_MODEL = "refiner"
SECONDS_BETWEEN_PROGRESS = 10.0


class RefinerRef(NamedTuple):
    """A trained refiner, by name."""

    refiner: str
    weights_digest: str
    mlflow_run_id: str
    model_version: str
    path: str


@task(name="train-refiner", cache_policy=CACHE)
def train_refiner(synthetic: str, real: str, config: TrainingConfig) -> RefinerRef:
    """Train, or go on with, the refiner that these datasets and settings name.

    A killed training continues from its last checkpoint and ends in the same bits (on CPU); one
    that is finished is returned at once. SIGTERM saves a checkpoint and then exits (code 143).
    """
    synthetic_set, real_set = open_dataset(synthetic), open_dataset(real)
    require_same_images(synthetic_set.info, real_set.info, "synthetic", "real")
    refiner_id = _refiner_id(synthetic_set, real_set, config)
    folder = refiner_folder(refiner_id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "training.lock", timeout=0):
            return _train(refiner_id, folder, synthetic_set, real_set, config)
    except Timeout:
        raise InputError(
            f"refiner {refiner_id} is being trained by another process; wait for it, then run "
            "the same command to get its result"
        ) from None


def _refiner_id(synthetic: Dataset, real: Dataset, config: TrainingConfig) -> str:
    return content_id(
        "refiner",
        {
            "synthetic": synthetic.info.digest,
            "real": real.info.digest,
            "config": config.model_dump(mode="json"),
            "code": code_version(),
        },
    )


def _train(
    refiner_id: str, folder: Path, synthetic: Dataset, real: Dataset, config: TrainingConfig
) -> RefinerRef:
    tags = {"simgan.refiner": refiner_id, "stage": "train"}
    with tracked_run(EXPERIMENT, refiner_id, refiner_id, tags) as run:
        weights = folder / "refiner.pt"
        if not weights.exists():
            run.params(config.model_dump())
            run.datasets({"synthetic": synthetic.info, "real": real.info})
            _fit(weights, synthetic, real, config, run)
        loaded = load_refiner(weights)
        version = _register(run, loaded, weights)
        (folder / "training.ckpt").unlink(missing_ok=True)
    return RefinerRef(refiner_id, loaded.weights_digest, run.run_id, version, str(weights))


def _fit(
    weights: Path, synthetic: Dataset, real: Dataset, config: TrainingConfig, run: TrackedRun
) -> None:
    block = synthetic.load()
    synthetic_images = as_uint8(block.images, synthetic.info)
    real_images = as_uint8(real.load().images, real.info)
    pupil_px = block.labels.get("pupil_px")
    sink = TrackedSink(run)
    trainer = Trainer(
        config,
        torch.from_numpy(synthetic_images),
        torch.from_numpy(real_images),
        device=default_device(),
        sink=sink,
        pupil_px=None if pupil_px is None else torch.from_numpy(pupil_px),
    )
    with termination_noticed() as should_stop:
        trained = trainer.run(weights.with_name("training.ckpt"), should_stop)
    if not trained.finished:
        logger.warning("told to stop at step %d; the checkpoint is written", trained.step)
        raise SystemExit(EXIT_CODE)
    logger.info("training ended at step %d: %s", trained.step, trained.verdict)
    run.tags({"simgan.verdict": trained.verdict})
    run.metrics({f"best/{name}": value for name, value in trained.figures.items()}, trained.step)
    run.image("refined_while_training", sink.progress_picture())
    info = synthetic.info
    metadata = {
        "refiner": weights.parent.name,
        "synthetic_digest": info.digest,
        "real_digest": real.info.digest,
        "real_url": real.info.url,
        "preprocess": info.spec.preprocess,
        "image_height": info.spec.height,
        "image_width": info.spec.width,
        "code_version": code_version(),
        "verdict": trained.verdict,
        "figures": trained.figures,
    }
    save_refiner(weights, trained.refiner, config, metadata)


def _register(run: TrackedRun, loaded: LoadedRefiner, weights: Path) -> str:
    """Log the refiner, for us as weights and for others as a model, and give it a version."""
    size = (2, loaded.image_height, loaded.image_width, loaded.channels)
    run.artifact(weights, "checkpoint")
    run.pytorch_model("model", UInt8Refiner(loaded.refiner), np.zeros(size, dtype=np.uint8))
    run.tags({"simgan.weights_digest": loaded.weights_digest})
    tags = {"simgan.refiner": loaded.metadata["refiner"], "weights_digest": loaded.weights_digest}
    return run.register_model(REGISTERED_MODEL, "model", tags)


class TrackedSink:
    """Takes what a training tells and gives it to MLflow and the log."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = run
        self._samples: dict[int, NDArray[np.uint8]] = {}
        self._started = time.monotonic()
        self._first_step: int | None = None
        self._last_said = 0.0

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Pass on the losses: the article's Figure 7."""
        self._run.metrics(values, step)

    def samples(self, step: int, images: Tensor) -> None:
        """Keep the same synthetic images as refined at this step: the article's Figure 6."""
        self._samples[step] = images.cpu().numpy()
        self._run.image("refined", grid(self._samples[step]), step=step)

    def progress(self, step: int, total: int) -> None:
        """Say how far the training is and how long it will take."""
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._started = step, now
        if now - self._last_said < SECONDS_BETWEEN_PROGRESS and step < total:
            return
        self._last_said = now
        rate = (step - self._first_step) / max(now - self._started, 1e-9)
        left = f", {(total - step) / rate:.0f} s left" if rate > 0 else ""
        logger.info("training: step %d of %d, %.1f a second%s", step, total, rate, left)

    def progress_picture(self) -> NDArray[np.uint8]:
        """The kept samples in one picture, a row a step."""
        return refinement_progress(self._samples)
