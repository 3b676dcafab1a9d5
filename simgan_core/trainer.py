"""Training the refiner: Algorithm 1 of the paper, from pretraining to the averaged refiner.

A training is a function of its configuration and the two sets of images: on one CPU the same ones
give the same bits, also when the training was killed in between and resumed from its checkpoint.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from simgan_core.arithmetic import Arithmetic, choose_arithmetic
from simgan_core.checkpoint import load_checkpoint, save_checkpoint, tensors_digest
from simgan_core.config import TrainingConfig
from simgan_core.errors import InputError
from simgan_core.refinement import refine_pixels
from simgan_core.refiner import Refiner, average_towards
from simgan_core.shuffling import ShuffledImages
from simgan_core.steps import (
    NonFiniteGuard,
    discriminator_step,
    refiner_pretraining_step,
    refiner_step,
)
from simgan_core.training_state import TrainingState

logger = logging.getLogger(__name__)

NUM_SAMPLES = 16
"""Synthetic images whose refinement is shown as training goes, or all where there are fewer."""
_SAMPLES = 3
"""The stream of random numbers that chooses them."""


class Sink(Protocol):
    """Where a training tells what it does; a step is an update of one network, from 1 on."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Take figures by name, each a mean over the steps since the last call."""

    def samples(self, step: int, images: Tensor) -> None:
        """Take the same synthetic images as refined now, uint8 [n, H, W, C]; step 0: unrefined."""

    def progress(self, step: int, total: int) -> None:
        """Take how many steps are done, and of how many."""


class NullSink:
    """Takes everything and does nothing."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Do nothing."""

    def samples(self, step: int, images: Tensor) -> None:
        """Do nothing."""

    def progress(self, step: int, total: int) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class TrainedRefiner:
    """What a training came to, finished or stopped on the way."""

    refiner: Refiner
    """The averaged refiner: the one to refine with."""
    arithmetic: Arithmetic
    """How it was computed."""
    step: int
    total_steps: int

    @property
    def finished(self) -> bool:
        """Whether every step was taken."""
        return self.step == self.total_steps


def never() -> bool:
    """Answer no: the training is not to be stopped."""
    return False


class Trainer:
    """Trains a refiner on unlabelled synthetic and real images.

    >>> trained = Trainer(TrainingConfig(), synthetic, real).run(Path("training.ckpt"))
    """

    def __init__(
        self,
        config: TrainingConfig,
        synthetic: Tensor,
        real: Tensor,
        device: torch.device | str = "cpu",
        sink: Sink | None = None,
    ) -> None:
        """Prepare to train on uint8 [N, H, W, C] and [M, H, W, C]; both are kept on the device.

        Raises `InputError` where the two are not images of one kind.
        """
        _require_same_kind(synthetic, real)
        self._config = config
        self._arithmetic = choose_arithmetic(device, config.precision, config.micro_batch_size)
        self._sink = sink or NullSink()
        self._synthetic = synthetic.to(self._arithmetic.device)
        self._real = real.to(self._arithmetic.device)
        self._state = TrainingState(config, self._synthetic, self._real)
        self._guard = NonFiniteGuard(self._arithmetic.device)
        sampling = ShuffledImages(self._synthetic, config.seed, _SAMPLES)
        self._samples = sampling.deal(min(NUM_SAMPLES, len(synthetic)))

    @property
    def total_steps(self) -> int:
        """Pretraining of both networks and the refiner's updates after it."""
        config = self._config
        pretraining = config.refiner_pretraining_steps + config.discriminator_pretraining_steps
        return pretraining + config.steps

    def run(
        self, checkpoint_path: Path | None = None, should_stop: Callable[[], bool] = never
    ) -> TrainedRefiner:
        """Train to the end, or until `should_stop`, which is asked before every step.

        With `checkpoint_path` the training goes on from what is there, saves itself there now and
        then, and when it ends. Raises `InputError` where the checkpoint is not this training's, and
        `NonFiniteLossError` where the training diverged.
        """
        state, config = self._state, self._config
        if checkpoint_path is not None and checkpoint_path.exists():
            self._resume(checkpoint_path)
        self._show_samples()
        while state.step < self.total_steps and not should_stop():
            self._advance()
            state.step += 1
            last = state.step == self.total_steps
            if last or state.step % config.log_every == 0:
                self._report()
            if last or state.step % config.sample_every == 0:
                self._show_samples()
            if checkpoint_path is not None and state.step % config.checkpoint_every == 0:
                self._save(checkpoint_path)
        self._guard.require_finite(state.step)
        if checkpoint_path is not None:
            self._save(checkpoint_path)
        refiner = state.averaged_refiner.eval()
        return TrainedRefiner(refiner, self._arithmetic, state.step, self.total_steps)

    def _advance(self) -> None:
        """Take the next step: which one follows from the number of those taken."""
        config = self._config
        step = self._state.step - config.refiner_pretraining_steps
        if step < 0:
            self._pretrain_refiner()
            return
        step -= config.discriminator_pretraining_steps
        if step < 0:
            self._train_discriminator(use_history=False)
            return
        self._train_refiner()
        if (step + 1) % config.refiner_steps_per_round == 0:
            for _ in range(config.discriminator_steps_per_round):
                self._train_discriminator(use_history=True)

    def _pretrain_refiner(self) -> None:
        state, config = self._state, self._config
        figures = refiner_pretraining_step(
            state.refiner,
            state.refiner_optimizer,
            state.synthetic.deal(config.batch_size),
            weights=config.regularization,
            arithmetic=self._arithmetic,
            guard=self._guard,
        )
        average_towards(state.averaged_refiner, state.refiner, config.ema_decay)
        state.figures.add("refiner_pretraining", figures)

    def _train_refiner(self) -> None:
        state, config = self._state, self._config
        figures = refiner_step(
            state.refiner,
            state.discriminator,
            state.refiner_optimizer,
            state.synthetic.deal(config.batch_size),
            weights=config.regularization,
            arithmetic=self._arithmetic,
            guard=self._guard,
        )
        average_towards(state.averaged_refiner, state.refiner, config.ema_decay)
        state.figures.add("refiner", figures)

    def _train_discriminator(self, use_history: bool) -> None:
        state, config = self._state, self._config
        figures = discriminator_step(
            state.discriminator,
            state.discriminator_optimizer,
            self._refined_batch(use_history),
            state.real.deal(config.batch_size),
            arithmetic=self._arithmetic,
            guard=self._guard,
        )
        state.figures.add("discriminator", figures)

    def _refined_batch(self, use_history: bool) -> Tensor:
        """Refine a batch, or with history half of one, which then enters it, and draw the rest.

        Before the history holds half a batch, and in pretraining, where the refiner stands still,
        all of the batch is new.
        """
        state, config = self._state, self._config
        half = config.batch_size // 2
        num_old = half if use_history and len(state.history) >= half else 0
        synthetic = state.synthetic.deal(config.batch_size - num_old)
        refined = refine_pixels(state.refiner, synthetic, self._arithmetic)
        batch = torch.cat([refined, state.history.draw(num_old)]) if num_old else refined
        if use_history:
            state.history.add(refined[:half])
        return batch

    def _report(self) -> None:
        self._guard.require_finite(self._state.step)
        self._sink.metrics(self._state.step, self._state.figures.read())
        self._sink.progress(self._state.step, self.total_steps)

    def _show_samples(self) -> None:
        images = self._samples
        if self._state.step > 0:
            images = refine_pixels(self._state.averaged_refiner, images, self._arithmetic)
        self._sink.samples(self._state.step, images)

    def _save(self, path: Path) -> None:
        # A diverged state must never replace the last good one.
        self._guard.require_finite(self._state.step)
        save_checkpoint(path, {**self._identity(), "state": self._state.state_dict()})

    def _resume(self, path: Path) -> None:
        """Go on from a checkpoint of this training, in the arithmetic that it was begun with."""
        saved = load_checkpoint(path)
        _require_same_training(path, saved, self._identity())
        try:
            self._state.load_state_dict(saved["state"])
            self._arithmetic = replace(self._arithmetic, **saved["arithmetic"])
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise InputError(f"checkpoint {path} is damaged; delete it to start anew") from error
        logger.info("resumed from step %d of %d: %s", self._state.step, self.total_steps, path)

    @cached_property
    def _images_digest(self) -> str:
        return tensors_digest({"synthetic": self._synthetic, "real": self._real})

    def _identity(self) -> dict[str, Any]:
        """Return what makes this training the one that it is."""
        arithmetic = self._arithmetic
        return {
            "config": self._config.model_dump(mode="json"),
            "images": self._images_digest,
            "arithmetic": {
                "precision": arithmetic.precision,
                "micro_batch_size": arithmetic.micro_batch_size,
            },
        }


def _require_same_kind(synthetic: Tensor, real: Tensor) -> None:
    for name, images in (("synthetic", synthetic), ("real", real)):
        if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape:
            raise InputError(
                f"{name} images: expected uint8 [N, H, W, C] with at least one image, "
                f"found {images.dtype} {list(images.shape)}"
            )
    if synthetic.shape[1:] != real.shape[1:]:
        raise InputError(
            f"synthetic images are {list(synthetic.shape[1:])} (height, width, channels) and real "
            f"ones {list(real.shape[1:])}; ingest both with one size and number of channels"
        )


def _require_same_training(path: Path, saved: dict[str, Any], ours: dict[str, Any]) -> None:
    if saved.get("config") != ours["config"]:
        raise InputError(
            f"checkpoint {path} is of a training with another configuration "
            f"({json.dumps(saved.get('config'))}); give that one, or delete it to start anew"
        )
    if saved.get("images") != ours["images"]:
        raise InputError(
            f"checkpoint {path} is of a training on other images; give those, or delete it to "
            "start anew"
        )
