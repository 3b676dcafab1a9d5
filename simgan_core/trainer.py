"""Training the refiner: Algorithm 1 of the paper, from pretraining to the averaged refiner.

A training is a function of its configuration and the two sets of images: on one CPU the same ones
give the same bits, also when the training was killed in between and resumed from its checkpoint.
"""

import copy
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
from simgan_core.examination import Examiner, Figures
from simgan_core.psi import SelfRegularization
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
_SAMPLES, _EXAMINED_REAL = 3, 5
"""The streams of random numbers that choose them, and the images that are examined."""
_FEWEST_EXAMINED = 4
"""Images of a domain below which figures of realism mean nothing."""


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
    """The one to refine with: the best averaged refiner, or the last where none was examined."""
    arithmetic: Arithmetic
    """How it was computed."""
    step: int
    """Updates that were taken."""
    finished: bool
    """Whether the training ended, by itself or after all its steps."""
    best_step: int | None
    """After how many updates the refiner was as it is; None: the last, no candidate."""
    figures: Figures
    """What its examination found, empty where `best_step` is None."""
    verdict: str
    """Why this refiner, in a sentence."""


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
        pupil_px: Tensor | None = None,
    ) -> None:
        """Prepare to train on uint8 [N, H, W, C] and [M, H, W, C]; both are kept on the device.

        `pupil_px` [N, 2] says where pupils are in the synthetic images; with it, candidates pass
        the label gate. Raises `InputError` where the images are not of one kind.
        """
        _require_same_kind(synthetic, real)
        _require_a_place_each(synthetic, pupil_px)
        if config.stopping.evaluate_every > 0:
            _require_enough(synthetic, real)
        self._config = config
        self._arithmetic = choose_arithmetic(device, config.precision, config.micro_batch_size)
        self._sink = sink or NullSink()
        self._synthetic = synthetic.to(self._arithmetic.device)
        self._real = real.to(self._arithmetic.device)
        self._state = TrainingState(config, self._synthetic, self._real)
        self._guard = NonFiniteGuard(self._arithmetic.device)
        self._regularization = SelfRegularization(config.regularization)
        rows = ShuffledImages(torch.arange(len(synthetic)), config.seed, _SAMPLES)
        self._samples = self._synthetic[rows.deal(min(NUM_SAMPLES, len(synthetic)))]
        self._pupil_px = pupil_px

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
        if state.step == 0 and config.stopping.evaluate_every > 0:
            # What refinement starts from, to compare with.
            self._sink.metrics(0, self._examiner.examine(self._examiner.synthetic))
        while not self._ended and not should_stop():
            self._advance()
            state.step += 1
            if self._examination_is_due():
                self._examine()
            last = self._ended
            if last or state.step % config.log_every == 0:
                self._report()
            if last or state.step % config.sample_every == 0:
                self._show_samples()
            if checkpoint_path is not None and state.step % config.checkpoint_every == 0:
                self._save(checkpoint_path)
        self._guard.require_finite(state.step)
        if checkpoint_path is not None:
            self._save(checkpoint_path)
        return self._result()

    @property
    def _ended(self) -> bool:
        return self._state.step == self.total_steps or self._state.stopping.ended

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

    def _examination_is_due(self) -> bool:
        every, adversarial_step = self._config.stopping.evaluate_every, self._adversarial_step
        if every == 0 or adversarial_step <= 0:
            return False
        return adversarial_step % every == 0 or self._state.step == self.total_steps

    @property
    def _adversarial_step(self) -> int:
        """How many steps were taken since both networks are trained in turn."""
        return self._state.step - (self.total_steps - self._config.steps)

    def _examine(self) -> None:
        """Look at the averaged refiner: is it alive, and is it the best so far."""
        state = self._state
        self._guard.require_finite(state.step)
        refined = refine_pixels(state.averaged_refiner, self._examiner.synthetic, self._arithmetic)
        figures = self._examiner.examine(refined)
        state.collapse_watch.require_alive(state.step, figures)
        state.stopping.judge(state.step, figures, state.averaged_refiner)
        self._sink.metrics(state.step, figures)

    @cached_property
    def _examiner(self) -> Examiner:
        """Choose the images that every examination is of."""
        seed, count = self._config.seed, self._config.stopping.num_images
        num_synthetic, num_real = (
            min(count, len(images)) for images in (self._synthetic, self._real)
        )
        rows = ShuffledImages(torch.arange(len(self._synthetic)), seed, _SAMPLES).deal(
            num_synthetic
        )
        return Examiner(
            self._synthetic[rows],
            ShuffledImages(self._real, seed, _EXAMINED_REAL).deal(num_real),
            None if self._pupil_px is None else self._pupil_px[rows],
            seed,
        )

    def _result(self) -> TrainedRefiner:
        state, stopping = self._state, self._state.stopping
        refiner = state.averaged_refiner.eval()
        if stopping.best_step is not None:
            refiner = copy.deepcopy(refiner)
            refiner.load_state_dict(stopping.best_weights)
        return TrainedRefiner(
            refiner,
            self._arithmetic,
            state.step,
            self._ended,
            stopping.best_step,
            stopping.best_figures,
            stopping.verdict(),
        )

    def _pretrain_refiner(self) -> None:
        state, config = self._state, self._config
        figures = refiner_pretraining_step(
            state.refiner,
            state.refiner_optimizer,
            state.synthetic.deal(config.batch_size),
            regularization=self._regularization,
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
            regularization=self._regularization,
            augmentation=state.augmentation,
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
            augmentation=state.augmentation,
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
        given = {"synthetic": self._synthetic, "real": self._real}
        if self._pupil_px is not None:
            given["pupil_px"] = self._pupil_px
        return tensors_digest(given)

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


def _require_enough(synthetic: Tensor, real: Tensor) -> None:
    if min(len(synthetic), len(real)) < _FEWEST_EXAMINED:
        raise InputError(
            f"examining refiners needs at least {_FEWEST_EXAMINED} images of each domain, found "
            f"{len(synthetic)} synthetic and {len(real)} real ones; give more, or set "
            "stopping.evaluate_every to 0"
        )


def _require_a_place_each(synthetic: Tensor, pupil_px: Tensor | None) -> None:
    if pupil_px is not None and pupil_px.shape != (len(synthetic), 2):
        raise InputError(
            f"pupil centres: expected [{len(synthetic)}, 2], one for each synthetic image, found "
            f"{list(pupil_px.shape)}"
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
