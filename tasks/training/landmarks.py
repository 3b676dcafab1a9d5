"""Training of a landmark model from the built-in simulator and from labelled datasets."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from prefect import task
from pydantic import BaseModel, ConfigDict, TypeAdapter

from simgan_core.config import LandmarkTraining
from simgan_core.errors import InputError
from simgan_core.landmarks.examples import Examples, points_of, simulated_examples
from simgan_core.landmarks.model import LandmarkModel, Landmarks
from simgan_core.landmarks.network import LANDMARKS
from simgan_core.landmarks.training import Progress, train_landmarks
from storage.atomic_file import atomic_write
from storage.reader import Dataset, open_dataset
from storage.schema import CORNERS_PX, IRIS_PX, PUPIL_PX
from tasks.runtime.content_ids import content_id
from tasks.runtime.paths import landmark_model_folder
from tasks.runtime.policies import CACHE, stop_if_told
from tasks.runtime.recipes import recipe_version
from tasks.runtime.stages import position
from tasks.runtime.tracking.experiments import LANDMARKS as EXPERIMENT
from tasks.runtime.tracking.runs import TrackedRun, tracked_run

logger = logging.getLogger(__name__)

_HELD_OUT = 20
"""Every so many rows one is kept out of training, for the errors that are reported."""
_WIDTH_PX = 55
"""Width of the images in whose pixels errors are reported, that of the paper."""
_BUILT_IN = "built-in"
_NEEDED = (CORNERS_PX.name, PUPIL_PX.name, IRIS_PX.name)
"""Labels that landmarks are learnt from."""


class LandmarkErrors(BaseModel):
    """Errors of landmarks on held-out rows, in pixels of an image 55 wide."""

    model_config = ConfigDict(frozen=True)

    name: str
    num_images: int
    median_px: dict[str, float]
    """Median distance by landmark; `midpoint` is midway between the corners."""
    p95_px: dict[str, float]
    """95th percentile."""

    def __str__(self) -> str:
        each = ", ".join(
            f"{name.replace('_', ' ')} {self.median_px[name]:.1f} ({self.p95_px[name]:.1f})"
            for name in self.median_px
        )
        return f"{self.name}, {self.num_images} images held out: {each}"


class LandmarkModelRef(BaseModel):
    """Reference to a trained landmark model: id, file, digest of the weights, errors."""

    model_config = ConfigDict(frozen=True)

    id: str
    out: str
    digest: str
    errors: tuple[LandmarkErrors, ...]
    """On the built-in simulator's eyes, then on each dataset's."""
    mlflow_run_id: str


_ErrorsOfSets = TypeAdapter(tuple[LandmarkErrors, ...])


@task(name="train-landmark-model", cache_policy=CACHE)
def train_landmark_model(
    out: str, datasets: Sequence[str], num_simulated: int, config: LandmarkTraining
) -> LandmarkModelRef:
    """Train on the built-in simulator's eyes and on datasets; write the model and measure it.

    Half of the `num_simulated` eyes are of either of the simulator's domains. Datasets need the
    labels `corners_px`, `pupil_px` and `iris_px`, as `simulate unityeyes --to` writes them. A
    killed training resumes from its checkpoint under SIMGAN_HOME; a finished one is found there.
    """
    opened = [open_dataset(url) for url in datasets]
    for dataset in opened:
        _require_landmarks(dataset)
    content = {
        "datasets": [dataset.info.digest for dataset in opened],
        "num_simulated": num_simulated,
        "config": config.model_dump(mode="json"),
        "recipe": recipe_version("landmarks"),
    }
    model_id = content_id("landmark-model", content)
    folder = landmark_model_folder(model_id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "training.lock", timeout=0):
            return _tracked(model_id, folder, Path(out), opened, num_simulated, config)
    except Timeout:
        raise InputError(
            f"landmark model {model_id} is being trained by another process; wait for it, then "
            "run the same command to get its result"
        ) from None


def _tracked(
    model_id: str,
    folder: Path,
    out: Path,
    datasets: Sequence[Dataset],
    num_simulated: int,
    config: LandmarkTraining,
) -> LandmarkModelRef:
    weights, kept_errors = folder / "landmarks.pt", folder / "errors.json"
    with tracked_run(EXPERIMENT, model_id, model_id, {"stage": "landmarks"}) as run:
        # Written last: a model without it is not finished.
        if not kept_errors.exists():
            run.params(config.model_dump() | {"num_simulated": num_simulated})
            run.datasets({_role(n): each.info for n, each in enumerate(datasets, 1)})
            say = partial(_say_progress, run)
            found = _trained(weights, datasets, num_simulated, config, say)
            with atomic_write(kept_errors) as partial_file:
                partial_file.write_bytes(_ErrorsOfSets.dump_json(tuple(found)))
        errors = _ErrorsOfSets.validate_json(kept_errors.read_bytes())
        model = LandmarkModel.load(weights)
        out.parent.mkdir(parents=True, exist_ok=True)
        model.save(out)
        for number, each in enumerate(errors):
            run.metrics(_metrics(_role(number) if number else _BUILT_IN, each))
        run.tags({"simgan.weights_digest": model.digest})
        run.artifact(weights, "model")
        (folder / "training.ckpt").unlink(missing_ok=True)
    return LandmarkModelRef(
        id=model_id,
        out=str(out),
        digest=model.digest,
        errors=errors,
        mlflow_run_id=run.run_id,
    )


def _trained(
    weights: Path,
    datasets: Sequence[Dataset],
    num_simulated: int,
    config: LandmarkTraining,
    on_progress: Progress,
) -> list[LandmarkErrors]:
    """Train from the checkpoint beside `weights`, if there is one; returns the model's errors."""
    given = [(Path(each.info.url).name, _dataset_examples(each)) for each in datasets]
    logger.info("rendering %d eyes of the built-in simulator", num_simulated)
    half = -(-num_simulated // 2)
    synthetic, real = (
        simulated_examples(domain, half, config.seed) for domain in ("synthetic", "real")
    )
    sets = [(_BUILT_IN, _joined(synthetic, real)), *given]
    trained = [_rows(each, held_out=False) for _, each in sets]
    checkpoint = weights.with_name("training.ckpt")
    model = LandmarkModel(train_landmarks(config, trained, on_progress, checkpoint))
    model.save(weights)
    return [landmark_errors(name, model, _rows(each, held_out=True)) for name, each in sets]


def _role(number: int) -> str:
    return f"dataset-{number}"


def _metrics(role: str, errors: LandmarkErrors) -> dict[str, float]:
    """Return the errors by name, as MLflow keeps them."""
    return {
        f"{role}/{landmark}.{what}_px": value
        for what, values in (("median", errors.median_px), ("p95", errors.p95_px))
        for landmark, value in values.items()
    }


def landmark_errors(name: str, model: LandmarkModel, examples: Examples) -> LandmarkErrors:
    """Return a model's errors on examples."""
    found: Landmarks = model.predict(examples.images[..., None])
    scale = _WIDTH_PX / examples.images.shape[2]
    off = (found.points - examples.points) * scale
    distances = np.linalg.norm(off, axis=2).T
    midpoint = np.linalg.norm(off[:, :2].mean(axis=1), axis=1)
    named = {**dict(zip(LANDMARKS, distances, strict=True)), "midpoint": midpoint}
    return LandmarkErrors(
        name=name,
        num_images=len(examples.images),
        median_px={each: float(np.median(values)) for each, values in named.items()},
        p95_px={each: float(np.percentile(values, 95)) for each, values in named.items()},
    )


def _require_landmarks(dataset: Dataset) -> None:
    spec, url = dataset.info.spec, dataset.info.url
    found = [label.name for label in spec.labels]
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        raise InputError(
            f"{url} has no label {', '.join(missing)}, which landmarks are learnt from; render a "
            "dataset that has: simgan simulate unityeyes --to DATASET --framing corners"
        )
    if spec.dtype != "uint8":
        raise InputError(f"{url} has images of {spec.dtype}; landmarks are learnt from uint8")


def _dataset_examples(dataset: Dataset) -> Examples:
    block = dataset.load()
    points, images = points_of(*(block.labels[name] for name in _NEEDED)), block.images
    known = np.isfinite(points).all(axis=(1, 2))
    return Examples(images[known].mean(axis=3).round().astype(np.uint8), points[known])


def _joined(*parts: Examples) -> Examples:
    return Examples(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.points for part in parts]),
    )


def _rows(examples: Examples, *, held_out: bool) -> Examples:
    chosen = (np.arange(len(examples.images)) % _HELD_OUT == _HELD_OUT - 1) == held_out
    if not chosen.any():
        raise InputError(
            f"{len(examples.images)} images are too few to learn landmarks from; expected at "
            f"least {_HELD_OUT}"
        )
    return Examples(examples.images[chosen], examples.points[chosen])


def _say_progress(run: TrackedRun, step: int, total: int, loss: float) -> None:
    stop_if_told()
    run.metrics({"loss": loss}, step)
    at = position("training landmarks", step, total)
    logger.info("step %d of %d, loss %.3f", step, total, loss, extra=at)
