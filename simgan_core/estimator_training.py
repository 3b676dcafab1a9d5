"""Training a gaze estimator by one fixed recipe, and asking it.

The recipe sees nothing but the training set: there is no early stopping and no choice by a
validation score, so that the same budget goes into every arm of a comparison. The estimator of
the last step is the result.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.arithmetic import choose_arithmetic, place
from simgan_core.augmentation import randomly_shift_and_scale
from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from simgan_core.estimator import Estimator, build_estimator
from simgan_core.images import to_network
from simgan_core.shuffling import ShuffledImages, seeded_generator
from simgan_core.steps import NonFiniteGuard

_ORDER, _CROPS = range(2)
"""Streams of random numbers under the one seed of a training."""
_NUM_REPORTS = 100
"""How often in a training progress is told and the loss is looked at."""

Progress = Callable[[int, int, float], None]
"""Told the step, all steps and the loss, about a hundred times in a training."""


def say_nothing(step: int, total: int, loss: float) -> None:
    """Ignore progress."""


def train_estimator(
    config: EstimatorConfig,
    images: Tensor,
    gaze: Tensor | NDArray[np.floating[Any]],
    seed: int,
    on_progress: Progress = say_nothing,
) -> Estimator:
    """Train an estimator on images [N, H, W, C] (uint8 or uint16) and their gaze [N, 3].

    It runs where `images` are; they stay there as pixels, and a batch becomes numbers in its step.
    The loss is the mean distance of estimated from true unit vectors: nearly the angle, and less
    ruled by the few worst images than the paper's squared one. `seed` decides weights, order and
    crops: the same seed gives the same bits on the same CPU with the same number of threads.

    Raises InputError where images and gaze do not belong together, NonFiniteLossError where the
    training ran away.
    """
    targets = _unit_targets(images, gaze)
    arithmetic = choose_arithmetic(images.device, config.precision)
    estimator = _fresh_estimator(config, images, seed)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config.steps))
    guard = NonFiniteGuard(images.device)
    deck = ShuffledImages(torch.arange(len(images), device=images.device), seed, _ORDER)
    generator = seeded_generator(seed, _CROPS)
    report_every = max(1, config.steps // _NUM_REPORTS)
    for step in range(1, config.steps + 1):
        rows = deck.deal(config.batch_size)
        batch = randomly_shift_and_scale(
            to_network(images[rows]), config.max_shift_px, config.max_scale, generator
        )
        with arithmetic.autocast():
            estimated = estimator(batch)
        loss = torch.linalg.vector_norm(estimated - targets[rows], dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        guard.step(optimizer, loss)
        schedule.step()
        if step % report_every == 0 or step == config.steps:
            guard.require_finite(step)
            on_progress(step, config.steps, loss.item())
    return estimator.eval()


@torch.no_grad()
def predict_gaze(
    estimator: Estimator, images: NDArray[Any], batch_size: int = 256
) -> NDArray[np.float32]:
    """Return the gaze, unit vectors [N, 3], in images [N, H, W, C], computed in float32.

    Raises InputError where the images are not of the size that the estimator was made for.
    """
    if images.shape[1:] != estimator.image_shape:
        raise InputError(
            f"this estimator is for images {list(estimator.image_shape)} (height, width, "
            f"channels), found {list(images.shape[1:])}"
        )
    device = next(estimator.parameters()).device
    gaze = np.empty((len(images), 3), np.float32)
    for first in range(0, len(images), batch_size):
        rows = slice(first, first + batch_size)
        # A copy, since torch warns of arrays that it may not write to, such as memory maps.
        pixels = torch.from_numpy(images[rows].copy()).to(device)
        gaze[rows] = estimator(to_network(pixels)).cpu().numpy()
    return gaze


def _fresh_estimator(config: EstimatorConfig, images: Tensor, seed: int) -> Estimator:
    _, height, width, channels = images.shape
    # Drawn on the CPU: the same weights on every device, and the caller's generator as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return place(build_estimator(config, height, width, channels), images.device)


def _unit_targets(images: Tensor, gaze: Tensor | NDArray[np.floating[Any]]) -> Tensor:
    """Return the gaze as unit vectors where the images are; refuse what is no pair of them."""
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


def _rate(step: int, total: int) -> float:
    """Return the share of the peak learning rate: up a short ramp, then down a cosine to 0."""
    ramp = min(1.0, (step + 1) / 50)
    return ramp * (1 + math.cos(math.pi * step / total)) / 2
