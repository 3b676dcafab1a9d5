"""Training of the landmark network: random views of eyes, cross-entropy of heat maps, Adam.

A step depends on the seed and its number alone, so a checkpoint of weights and optimiser is all
that a resumed training needs: it gives the same bits as one that was never interrupted.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simgan_core.compute.malloc import keep_freed_memory
from simgan_core.compute.non_finite import NonFiniteGuard
from simgan_core.compute.settings import choose_compute_settings
from simgan_core.config import LandmarkTraining
from simgan_core.data.sampler import seeded_generator
from simgan_core.errors import InputError
from simgan_core.landmarks.augmentation import random_views
from simgan_core.landmarks.examples import Examples
from simgan_core.landmarks.network import LandmarkNetwork, heat_map_loss, normalized
from simgan_core.models.checkpoint import load_checkpoint, save_checkpoint, tensors_digest

_CHECKPOINT_EVERY = 250

Progress = Callable[[int, int, float], None]
"""Progress callback: step, number of steps, loss; about a hundred calls in a training."""


def train_landmarks(
    config: LandmarkTraining,
    sets: Sequence[Examples],
    on_progress: Progress,
    checkpoint: Path | None = None,
) -> LandmarkNetwork:
    """Train a landmark network on sets of examples; returns it in eval mode, on the CPU.

    With `checkpoint`, the training's state is written there from time to time, and a training of
    the same configuration and examples resumes from it. Raises InputError where there are no sets
    or the checkpoint is another training's, NonFiniteLossError where the training ran away.
    """
    if not 0 < len(sets) <= config.batch_size:
        raise InputError(f"expected 1 to {config.batch_size} sets of examples, found {len(sets)}")
    keep_freed_memory()
    compute = choose_compute_settings("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = LandmarkNetwork()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    identity = {"config": config.model_dump_json(), "examples": [_digest(each) for each in sets]}
    done = 0
    if checkpoint is not None and checkpoint.exists():
        done = _restore(checkpoint, identity, network, optimizer)
    guard = NonFiniteGuard(torch.device("cpu"))
    network.train()
    report_every = max(1, config.steps // 100)
    for step in range(done + 1, config.steps + 1):
        canvases, points = _batch(config, sets, step)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _learning_rate_factor(step, config.steps)
        optimizer.zero_grad()
        with compute.autocast():
            loss = heat_map_loss(network(canvases), points)
        loss.backward()  # type: ignore[no-untyped-call]
        guard.step(optimizer, loss.detach())
        if step % report_every == 0 or step == config.steps:
            guard.require_finite(step)
            on_progress(step, config.steps, loss.item())
        if checkpoint is not None and (step % _CHECKPOINT_EVERY == 0 or step == config.steps):
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(checkpoint, {**identity, "step": step, **state})
    return network.eval()


def _batch(config: LandmarkTraining, sets: Sequence[Examples], step: int) -> tuple[Tensor, Tensor]:
    """Return the canvases [B, 1, 48, 72] and points [B, L, 2] of a step."""
    generator = seeded_generator(config.seed, step)
    canvases, points = [], []
    for number, examples in enumerate(sets):
        count = (config.batch_size + number) // len(sets)
        rows = torch.randint(len(examples.images), (count,), generator=generator).numpy()
        images = torch.from_numpy(examples.images[rows])[:, None].float() / 255
        views = random_views(images, torch.from_numpy(examples.points[rows]), generator)
        canvases.append(views[0])
        points.append(views[1])
    inputs = normalized(torch.cat(canvases))
    return inputs.contiguous(memory_format=torch.channels_last), torch.cat(points)


def _restore(
    checkpoint: Path,
    identity: dict[str, Any],
    network: LandmarkNetwork,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Load a training's state; returns how many steps it has done."""
    state = load_checkpoint(checkpoint)
    if {name: state.get(name) for name in identity} != identity:
        raise InputError(
            f"{checkpoint} is a training of other settings or examples; remove it to begin anew"
        )
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _digest(examples: Examples) -> str:
    values = {"images": examples.images, "points": examples.points}
    return tensors_digest({n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in values.items()})


def _learning_rate_factor(step: int, total: int) -> float:
    """Return the share of the peak rate: linear warm-up, then cosine to 0."""
    return min(1.0, step / 50) * (1 + math.cos(math.pi * (step - 1) / total)) / 2
