"""Training of a landmark model from the built-in simulator and from labelled datasets."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simgan_core.errors import InputError
from simgan_core.landmarks.examples import Examples, points_of, simulated_examples
from simgan_core.landmarks.model import LandmarkModel, Landmarks
from simgan_core.landmarks.network import LANDMARKS
from simgan_core.landmarks.training import LandmarkTraining, train_landmarks
from storage.reader import open_dataset
from storage.schema import CORNERS_PX, IRIS_PX, PUPIL_PX
from tasks.runtime.stages import position

logger = logging.getLogger(__name__)

_HELD_OUT = 20
"""Every so many rows one is kept out of training, for the errors that are reported."""
_WIDTH_PX = 55
"""Width of the images in whose pixels errors are reported, that of the paper."""


@dataclass(frozen=True)
class LandmarkErrors:
    """Errors of landmarks on held-out rows, in pixels of an image 55 wide."""

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


def train_landmark_model(
    out: Path, datasets: Sequence[str], config: LandmarkTraining, num_simulated: int = 4000
) -> tuple[LandmarkModel, list[LandmarkErrors]]:
    """Train on the built-in simulator's eyes and on datasets; write the model and measure it.

    Half of the `num_simulated` eyes are of either of the simulator's domains.
    A killed training resumes from `out` + ".training". Datasets need the labels `corners_px`,
    `pupil_px` and `iris_px`, as `simulate unityeyes --to` writes them.
    """
    # What is missing or wrong shows before anything is rendered.
    given = {Path(url).name: _dataset_examples(url) for url in datasets}
    logger.info("rendering %d eyes of the built-in simulator", num_simulated)
    half = -(-num_simulated // 2)
    synthetic, real = (
        simulated_examples(domain, half, config.seed) for domain in ("synthetic", "real")
    )
    sets = {"built-in": _joined(synthetic, real), **given}
    trained = [_rows(each, held_out=False) for each in sets.values()]
    checkpoint = out.with_name(f"{out.name}.training")
    model = LandmarkModel(train_landmarks(config, trained, _say_progress, checkpoint))
    model.save(out)
    checkpoint.unlink(missing_ok=True)
    errors = [
        landmark_errors(name, model, _rows(each, held_out=True)) for name, each in sets.items()
    ]
    return model, errors


def landmark_errors(name: str, model: LandmarkModel, examples: Examples) -> LandmarkErrors:
    """Return a model's errors on examples."""
    found: Landmarks = model.predict(examples.images[..., None])
    scale = _WIDTH_PX / examples.images.shape[2]
    off = (found.points - examples.points) * scale
    distances = np.linalg.norm(off, axis=2).T
    midpoint = np.linalg.norm(off[:, :2].mean(axis=1), axis=1)
    named = {**dict(zip(LANDMARKS, distances, strict=True)), "midpoint": midpoint}
    return LandmarkErrors(
        name,
        len(examples.images),
        {each: float(np.median(values)) for each, values in named.items()},
        {each: float(np.percentile(values, 95)) for each, values in named.items()},
    )


def _dataset_examples(url: str) -> Examples:
    dataset = open_dataset(url)
    needed = (CORNERS_PX.name, PUPIL_PX.name, IRIS_PX.name)
    found = [label.name for label in dataset.info.spec.labels]
    missing = [name for name in needed if name not in found]
    if missing:
        raise InputError(
            f"{url} has no label {', '.join(missing)}, which landmarks are learnt from; render a "
            "dataset that has: simgan simulate unityeyes --to DATASET --framing corners"
        )
    labels, valid = dataset.read_labels(), dataset.read_valid()
    points = points_of(*(labels[name][valid] for name in needed))
    images = dataset.load().images
    if images.dtype != np.uint8:
        raise InputError(f"{url} has images of {images.dtype}; landmarks are learnt from uint8")
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


def _say_progress(step: int, total: int, loss: float) -> None:
    at = position("training landmarks", step, total)
    logger.info("step %d of %d, loss %.3f", step, total, loss, extra=at)
