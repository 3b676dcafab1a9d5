"""Training loop shared by all estimators: learning-rate schedule, early stopping, best weights.

Nothing but the training set is seen: where training stops and which weights are the result is
decided on a part of it that was kept out. A test set cannot be given, so none can be selected by.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simgan_core.compute.malloc import keep_freed_memory
from simgan_core.compute.non_finite import NonFiniteGuard, require_finite_weights
from simgan_core.compute.settings import ComputeSettings, choose_compute_settings, has_fast_bf16
from simgan_core.config import EstimatorConfig
from simgan_core.data.label_matching import resampled_rows
from simgan_core.data.sampler import ImageSampler, seeded_generator

_ORDER, _CHANGES, _SPLIT = range(3)
"""Streams of random numbers of a training's seed."""
_NUM_REPORTS = 100
"""Progress reports and checks of the loss in a training."""
_NUM_VALIDATIONS = 20
"""Validations in a training, if they began at its start."""
_MICRO_BATCH = {"compact": 128, "paper": 128}
"""Images that a CPU computes at once: few enough for its caches, so many that casting the weights
is nothing beside them. Batch normalisation, which the other networks have, needs batches whole."""

Progress = Callable[[int, int, float], None]
"""Progress callback: step, number of steps, loss; about a hundred calls in a training."""
Examples = Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]
"""Makes the augmented inputs and targets of some rows, each [B, …]."""
Loss = Callable[..., Tensor]
"""Mean loss of some examples, a scalar; runs the network."""


def no_progress(step: int, total: int, loss: float) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class Split:
    """Rows of the training set and of the validation set, for early stopping."""

    train: Tensor
    """Rows [N_t], int64, where the images are."""
    validation: Tensor
    """Rows [N_v], none of them among the former; may be empty."""

    def resampled(self, weights: NDArray[np.floating[Any]], seed: int) -> "Split":
        """Resample the rows of either set in proportion to their weights [N]."""
        return Split(*(_resampled(rows, weights, seed) for rows in (self.train, self.validation)))


def split_rows(
    num_rows: int,
    share: float,
    seed: int,
    device: torch.device,
    image_of_row: NDArray[np.int64] | None = None,
) -> Split:
    """Split off a random share of the images as the validation set; a function of seed and number.

    `image_of_row` [N] is the number of the image that each row shows, None: each its own; rows of
    one image are in one set. Synthetic and refined training sets have the same order of images,
    so they keep out the same.
    """
    if image_of_row is None:
        image_of_row = np.arange(num_rows)
    images, number = np.unique(image_of_row, return_inverse=True)
    order = torch.randperm(len(images), generator=seeded_generator(seed, _SPLIT))
    place = order.argsort()[torch.from_numpy(number)]
    rows = place.argsort(stable=True).to(device)
    num_validation = int((place < min(round(share * len(images)), len(images) - 1)).sum())
    return Split(train=rows[num_validation:], validation=rows[:num_validation])


def _resampled(rows: Tensor, weights: NDArray[np.floating[Any]], seed: int) -> Tensor:
    if len(rows) == 0:
        return rows
    drawn = resampled_rows(weights[rows.cpu().numpy()], seed)
    return rows[torch.from_numpy(drawn).to(rows.device)]


def estimator_compute_settings(config: EstimatorConfig, device: torch.device) -> ComputeSettings:
    """Choose precision and micro-batch size for an estimator on this device."""
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    whole = device.type == "cuda" or config.architecture not in _MICRO_BATCH
    micro = config.batch_size if whole else _MICRO_BATCH[config.architecture]
    return choose_compute_settings(device, precision, micro)


def fit(
    network: nn.Module,
    config: EstimatorConfig,
    split: Split,
    seed: int,
    examples: Examples,
    loss: Loss,
    validate: Callable[[Tensor], float],
    on_progress: Progress,
) -> float:
    """Train a network in place to its best weights by early stopping; returns their error.

    The network is left in eval mode. `validate` returns its error on the given rows. Without a
    validation set the error is NaN and the weights are the last ones. Raises NonFiniteLossError
    where the training diverged.
    """
    device = split.train.device
    if device.type == "cpu":
        keep_freed_memory()
    compute = estimator_compute_settings(config, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _learning_rate_factor(step, config.steps)
    )
    guard = NonFiniteGuard(device)
    sampler = ImageSampler(split.train, seed, _ORDER)
    changes = seeded_generator(seed, _CHANGES)
    early_stopping = _EarlyStopping(network, config.patience)
    report_every = max(1, config.steps // _NUM_REPORTS)
    validate_every = max(1, config.steps // _NUM_VALIDATIONS)
    # Before that the learning rate is at its highest and validation errors are erratic.
    first_validation = config.steps // 3
    network.train()
    for step in range(1, config.steps + 1):
        batch = examples(sampler.next_batch(config.batch_size), changes)
        optimizer.zero_grad()
        batch_loss = torch.zeros((), device=device)
        for parts in compute.micro_batches(*batch):
            share = len(parts[0]) / config.batch_size
            with compute.autocast():
                part_loss = loss(*parts) * share
            part_loss.backward()  # type: ignore[no-untyped-call]
            batch_loss += part_loss.detach()
        guard.step(optimizer, batch_loss)
        schedule.step()
        if step % report_every == 0 or step == config.steps:
            guard.require_finite(step)
            on_progress(step, config.steps, batch_loss.item())
        is_due = step >= first_validation and (step % validate_every == 0 or step == config.steps)
        if is_due and len(split.validation) and early_stopping.update(validate(split.validation)):
            break
    early_stopping.restore()
    require_finite_weights(config.steps, network)
    network.eval()
    return early_stopping.error


class _EarlyStopping:
    """Early stopping: the weights of least validation error so far, and patience."""

    def __init__(self, network: nn.Module, patience: int) -> None:
        self.error = math.nan
        self._network, self._patience = network, patience
        self._weights: dict[str, Tensor] | None = None
        self._validations_since = 0

    def update(self, error: float) -> bool:
        """Update with a validation error; returns true when patience is exhausted."""
        if self._weights is None or error < self.error:
            self.error, self._validations_since = error, 0
            self._weights = copy.deepcopy(self._network.state_dict())
        else:
            self._validations_since += 1
        return self._validations_since >= self._patience

    def restore(self) -> None:
        """Load the best weights into the network, if there was a validation."""
        if self._weights is not None:
            self._network.load_state_dict(self._weights)


def _learning_rate_factor(step: int, total: int) -> float:
    """Learning-rate schedule: factor of the peak rate, linear warm-up, then cosine to 0."""
    ramp = min(1.0, (step + 1) / 50)
    return ramp * (1 + math.cos(math.pi * step / total)) / 2
