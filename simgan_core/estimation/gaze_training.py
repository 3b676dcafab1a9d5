"""Train gaze estimators by one fixed recipe, and predict with them."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.compute.settings import to_channels_last
from simgan_core.config import EstimatorConfig
from simgan_core.data.augmentation import randomly_degrade, randomly_shift_and_scale
from simgan_core.data.images import to_network
from simgan_core.errors import InputError
from simgan_core.estimation.fitting import Progress, fit, no_progress, split_rows
from simgan_core.models.estimator import Estimator, build_estimator

Numbers = Tensor | NDArray[np.floating[Any]]
_FINE_TUNING_RATE = 0.1
"""Peak learning rate of fine-tuning, as a factor of the training's."""


def train_estimator(
    config: EstimatorConfig,
    images: Tensor,
    gaze: Numbers,
    seed: int,
    on_progress: Progress = no_progress,
    head_pose: Numbers | None = None,
    weights: NDArray[np.floating[Any]] | None = None,
    image_of_row: NDArray[np.int64] | None = None,
) -> Estimator:
    """Train an estimator on images [N, H, W, C] (uint8 or uint16) and their gaze [N, 3].

    It runs on the device of `images`, which stay there as pixels until their batch is sampled.
    `head_pose` [N, 2 or 3] in radians is needed where the configuration asks for it. `weights` [N]
    are the sampling weights of the rows, None: uniform; rows are resampled after the validation set
    is split off, so that no row is in both. `image_of_row` [N] is the number of the image that each
    row shows, where several show one: all of them train, or all validate. `seed` decides initial
    weights, order, crops and the validation set: the same seed gives the same bits on the same CPU
    with the same number of threads.

    Raises InputError where images and labels do not belong together, NonFiniteLossError where the
    training diverged.
    """
    targets = _unit_targets(images, gaze)
    pose = _poses(config, len(images), images.device, head_pose)
    estimator = _fresh_estimator(config, images, seed)
    _fit(estimator, config, images, targets, pose, seed, on_progress, weights, image_of_row)
    return estimator


def fine_tune_estimator(
    estimator: Estimator,
    images: Tensor,
    gaze: Numbers,
    seed: int,
    head_pose: Numbers | None = None,
) -> Estimator:
    """Fine-tune a copy of an estimator on a few images [K, H, W, C] of one person.

    `fine_tuning_steps` updates at a tenth of the rate, all images in every batch where there are
    no more than a batch holds, no validation set, and fixed normalisation: all that k samples
    allow. Raises InputError as `train_estimator` does.
    """
    targets = _unit_targets(images, gaze)
    pose = _poses(estimator.config, len(images), images.device, head_pose)
    tuned = copy.deepcopy(estimator)
    tuned.normalization_is_fixed = True
    recipe = estimator.config.model_copy(
        update={
            "steps": estimator.config.fine_tuning_steps,
            "learning_rate": estimator.config.learning_rate * _FINE_TUNING_RATE,
            "batch_size": min(estimator.config.batch_size, len(images)),
            "validation_share": 0.0,
        }
    )
    _fit(tuned, recipe, images, targets, pose, seed, no_progress)
    return tuned


@torch.no_grad()
def predict_gaze(
    estimator: Estimator,
    images: NDArray[Any],
    batch_size: int = 64,
    head_pose: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.float32]:
    """Return the gaze, unit vectors [N, 3], in images [N, H, W, C], computed in float32.

    Raises InputError where the images are not of the size that the estimator was made for, or
    their head poses [N, 2 or 3] are missing where it wants them.
    """
    if images.shape[1:] != estimator.image_shape:
        raise InputError(
            f"this estimator is for images {list(estimator.image_shape)} (height, width, "
            f"channels), found {list(images.shape[1:])}"
        )
    device = next(estimator.parameters()).device
    pose = _poses(estimator.config, len(images), device, head_pose)
    gaze = np.empty((len(images), 3), np.float32)
    for first in range(0, len(images), batch_size):
        rows = slice(first, first + batch_size)
        # A copy, since torch warns of arrays that it may not write to, such as memory maps.
        pixels = torch.from_numpy(images[rows].copy()).to(device)
        poses = None if pose is None else pose[rows]
        gaze[rows] = estimator(to_network(pixels), poses).cpu().numpy()
    return gaze


def _fit(
    estimator: Estimator,
    config: EstimatorConfig,
    images: Tensor,
    targets: Tensor,
    pose: Tensor | None,
    seed: int,
    on_progress: Progress,
    weights: NDArray[np.floating[Any]] | None = None,
    image_of_row: NDArray[np.int64] | None = None,
) -> None:
    """Train a gaze estimator by the shared training loop."""

    def examples(rows: Tensor, changes: torch.Generator) -> tuple[Tensor, ...]:
        eyes = randomly_shift_and_scale(
            to_network(images[rows]), config.max_shift_px, config.max_scale, changes
        )
        if config.degrade:
            eyes = randomly_degrade(eyes, changes)
        return (eyes, targets[rows]) if pose is None else (eyes, targets[rows], pose[rows])

    def loss(eyes: Tensor, truth: Tensor, poses: Tensor | None = None) -> Tensor:
        return gaze_loss(estimator(eyes, poses), truth, config.loss)

    @torch.no_grad()
    def validate(rows: Tensor) -> float:
        estimator.eval()
        angles = [
            _angle(
                estimator(to_network(images[part]), None if pose is None else pose[part]),
                targets[part],
            )
            for part in torch.split(rows, 64)
        ]
        estimator.train()
        return float(torch.cat(angles).rad2deg().mean())

    split = split_rows(len(images), config.validation_share, seed, images.device, image_of_row)
    if weights is not None:
        split = split.resampled(weights, seed)
    error_deg = fit(estimator, config, split, seed, examples, loss, validate, on_progress)
    if config.validation_share > 0:
        estimator.validation_error_deg = error_deg


def gaze_loss(estimated: Tensor, truth: Tensor, kind: str) -> Tensor:
    """Return the mean distance of unit vectors [N, 3], or with "angle" their mean angle in radians.

    The distance is nearly the angle; both are less ruled by the few worst images than the paper's
    squared distance is.
    """
    if kind == "angle":
        return _angle(estimated, truth).mean()
    return torch.mean(torch.linalg.vector_norm(estimated - truth, dim=1))


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Return angles [N] in radians; exact, and with gradients, near 0 and π, unlike arccos."""
    sine = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=1)
    return torch.atan2(sine, (a * b).sum(dim=1))


def _fresh_estimator(config: EstimatorConfig, images: Tensor, seed: int) -> Estimator:
    """Make an estimator with weights from the seed, on the images' device."""
    # Drawn on the CPU: the same weights on every device, and the caller's generator as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return to_channels_last(build_estimator(config, *map(int, images.shape[1:])), images.device)


def _unit_targets(images: Tensor, gaze: Numbers) -> Tensor:
    """Return the gaze as unit vectors on the images' device; InputError for wrong shapes."""
    targets = torch.as_tensor(gaze, dtype=torch.float32, device=images.device)
    if images.ndim != 4 or len(images) == 0 or targets.shape != (len(images), 3):
        raise InputError(
            "an estimator is trained on images [N, H, W, C] and gaze [N, 3], N at least 1, "
            f"found {list(images.shape)} and {list(targets.shape)}"
        )
    lengths = torch.linalg.vector_norm(targets, dim=1, keepdim=True)
    if not (lengths.isfinite() & (lengths > 0)).all():
        raise InputError("a gaze is zero or not a number: leave out the rows without a label")
    return torch.div(targets, lengths)


def _poses(
    config: EstimatorConfig, num_images: int, device: torch.device, head_pose: Numbers | None
) -> Tensor | None:
    """Return head poses on the device, if the estimator wants them."""
    if not config.head_pose:
        return None
    if head_pose is None:
        raise InputError("this estimator takes head poses beside images: give head_pose")
    poses = torch.as_tensor(head_pose, dtype=torch.float32, device=device)
    if poses.ndim != 2 or len(poses) != num_images or poses.shape[1] not in {2, 3}:
        raise InputError(
            f"head poses should be pitch, yaw (and roll) of {num_images} images, found the shape "
            f"{list(poses.shape)}"
        )
    if not poses[:, :2].isfinite().all():
        raise InputError(
            "a head pose is not a number: leave out the rows without one, or train without "
            "head_pose"
        )
    return poses
