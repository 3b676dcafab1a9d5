"""Refiner training: Algorithm 1 of the paper, with an exponential moving average (EMA).

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
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from simgan_core.compute.cuda_graph import CapturedFunction
from simgan_core.compute.distributed import ALONE, DistributedContext
from simgan_core.compute.malloc import keep_freed_memory
from simgan_core.compute.non_finite import NonFiniteGuard
from simgan_core.compute.settings import ComputeSettings, choose_compute_settings, to_channels_last
from simgan_core.config import TrainingConfig
from simgan_core.data.sampler import ImageShards
from simgan_core.errors import InputError
from simgan_core.inference import refine_pixels
from simgan_core.models.checkpoint import load_checkpoint, save_checkpoint, tensors_digest
from simgan_core.models.estimator import Estimator
from simgan_core.models.refiner import Refiner, average_towards
from simgan_core.training.domain import Domain, require_same_kind
from simgan_core.training.self_regularization import SelfRegularization, emphasis_on_iris
from simgan_core.training.state import TrainingState
from simgan_core.training.steps import Metrics as Scalars
from simgan_core.training.steps import (
    discriminator_step,
    refiner_pretraining_step,
    refiner_step,
)
from simgan_core.training.validation import Metrics, Validator

logger = logging.getLogger(__name__)

NUM_SAMPLES = 16
"""Synthetic images whose refinement is shown as training goes, or all where there are fewer."""
_SYNTHETIC, _REAL, _CHOSEN_SYNTHETIC, _CHOSEN_REAL, _LOOKED_AT = 0, 1, 3, 5, 7
"""Streams of random numbers that deal images, and that choose those to show and to examine."""
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
    compute: ComputeSettings
    """How it was computed."""
    step: int
    """Updates that were taken."""
    finished: bool
    """Whether the training ended, by itself or after all its steps."""
    best_step: int | None
    """After how many updates the refiner was as it is; None: the last, no candidate."""
    figures: Metrics
    """What its examination found: the last one's where no refiner was a candidate; empty where none
    was examined."""
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
        synthetic: Tensor | ImageShards,
        real: Tensor | ImageShards,
        device: torch.device | str = "cpu",
        sink: Sink | None = None,
        *,
        pupil_px: Tensor | None = None,
        features: nn.Module | None = None,
        estimator: Estimator | None = None,
        distributed: DistributedContext = ALONE,
    ) -> None:
        """Prepare to train on pixels, uint8 or uint16, [N, H, W, C] and [M, H, W, C].

        Tensors are kept on the device, shards are read as training goes. `pupil_px` [N, 2] says
        where pupils are in the synthetic images; with it, candidates pass the label gate.
        `features` is the frozen network of ψ, `estimator` one whose answers are watched. Of `ranks`
        each computes its part of every batch, and the first alone speaks to the sink. Raises
        `InputError` where something does not fit.
        """
        self._config = config
        self._compute = replace(
            choose_compute_settings(device, config.precision, config.micro_batch_size),
            distributed=distributed,
        )
        self._distributed = distributed
        self._batch_size = _part_of_a_rank(config.batch_size, distributed)
        self._sink = sink if sink is not None and distributed.is_first else NullSink()
        on = self._compute.device
        self._synthetic = Domain("synthetic", synthetic, on, config.seed)
        self._real = Domain("real", real, on, config.seed)
        require_same_kind(self._synthetic, self._real)
        for domain in (self._synthetic, self._real):
            domain.require_content(_LOOKED_AT)
        _require_what_is_set(config, self._synthetic, self._real, pupil_px, features)
        self._state = TrainingState(
            config,
            self._synthetic.sampler(_SYNTHETIC),
            self._real.sampler(_REAL),
            self._synthetic.image_shape,
            on,
            distributed,
        )
        self._guard = NonFiniteGuard(on)
        self._regularization = SelfRegularization(config.regularization, features)
        self._features = features
        self._estimator = estimator
        self._samples, _ = self._synthetic.choose(NUM_SAMPLES, _CHOSEN_SYNTHETIC)
        self._pupil_px = pupil_px
        self._updates = self._make_updates()

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
        if self._compute.device.type == "cpu":
            keep_freed_memory()
        if checkpoint_path is not None and checkpoint_path.exists():
            self._resume(checkpoint_path)
        self._show_samples()
        if state.step == 0 and config.stopping.evaluate_every > 0 and self._distributed.is_first:
            # What refinement starts from, to compare with.
            self._sink.metrics(0, self._examiner.examine(self._examiner.synthetic))
        while not self._ended and not self._is_to_stop(should_stop):
            self._set_learning_rates()
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

    def _is_to_stop(self, should_stop: Callable[[], bool]) -> bool:
        """Ask; several ranks agree now and then, since asking them all makes each of them wait."""
        if self._distributed.size == 1:
            return should_stop()
        agreed = self._state.step % self._config.log_every == 0
        return agreed and any(self._distributed.gather(should_stop()))

    def _set_learning_rates(self) -> None:
        """Warm both optimisers up and cool them down, linearly, in the adversarial phase.

        At once at a full rate, young networks lose maps of features for good; at a full rate to the
        end, the two circle where they should meet.
        """
        config, step = self._config, self._adversarial_step
        warm = (step + 1) / (config.warmup_steps + 1) if step >= 0 else 1.0
        cool = (config.steps - step) / max(1.0, config.cooling * config.steps)
        share = min(1.0, warm, cool)
        for optimizer in (self._state.refiner_optimizer, self._state.discriminator_optimizer):
            for group in optimizer.param_groups:
                rate = group["initial_lr"] * share
                # A recorded step reads it where it was when it was recorded.
                group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate

    def _advance(self) -> None:
        """Take the next step: which one follows from what was done so far."""
        state, config = self._state, self._config
        if state.step < config.refiner_pretraining_steps:
            self._pretrain_refiner()
        elif self._adversarial_step < 0:
            self._train_discriminator(use_history=False)
        else:
            self._train_refiner()
            if state.schedule.count_refiner_step():
                self._take_discriminators_turn()

    def _take_discriminators_turn(self) -> None:
        for _ in range(self._config.discriminator_steps_per_round):
            loss = self._train_discriminator(use_history=True)
        if self._state.schedule.wants_loss:
            self._state.schedule.adapt(loss.item())

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
        figures = self.examine(state.averaged_refiner) if self._distributed.is_first else {}
        figures = self._distributed.share(figures)
        state.collapse_watch.require_alive(state.step, figures)
        state.stopping.update(state.step, figures, state.averaged_refiner)
        self._sink.metrics(state.step, figures)

    def examine(self, refiner: Refiner) -> Metrics:
        """Look at any refiner of such images as at this training's candidates."""
        on_device = to_channels_last(copy.deepcopy(refiner), self._compute.device)
        refined = refine_pixels(on_device, self._examiner.synthetic, self._compute)
        return self._examiner.examine(refined)

    def refusal(self, figures: Metrics) -> str:
        """Say why a refiner with such figures is no candidate; empty where it is one."""
        return self._state.stopping.refusal(figures)

    @cached_property
    def _examiner(self) -> Validator:
        """Choose the images that every examination is of."""
        count = self._config.stopping.num_images
        synthetic, rows = self._synthetic.choose(count, _CHOSEN_SYNTHETIC)
        real, _ = self._real.choose(count, _CHOSEN_REAL)
        pupil_px = None if self._pupil_px is None else self._pupil_px[rows]
        return Validator(synthetic, real, pupil_px, self._config.seed, self._estimator)

    def _result(self) -> TrainedRefiner:
        state, stopping = self._state, self._state.stopping
        refiner = state.averaged_refiner.eval()
        if stopping.best_step is not None:
            refiner = copy.deepcopy(refiner)
            refiner.load_state_dict(stopping.best_weights)
        return TrainedRefiner(
            refiner,
            self._compute,
            state.step,
            self._ended,
            stopping.best_step,
            stopping.best_figures or stopping.last_figures,
            stopping.verdict(),
        )

    def _pretrain_refiner(self) -> None:
        figures = self._updates.refiner_pretraining(*self._deal_synthetic())
        self._state.figures.add("refiner_pretraining", figures)

    def _train_refiner(self) -> None:
        images, emphasis = self._deal_synthetic()
        draws = self._state.augmentation.draw(len(images), images.device)
        self._state.figures.add("refiner", self._updates.refiner(images, emphasis, draws))

    def _train_discriminator(self, use_history: bool) -> Tensor:
        state = self._state
        refined = self._refined_batch(use_history)
        real = self._distributed.part_of(state.real.next_batch(self._config.batch_size))
        draws = state.augmentation.draw(2 * len(refined), refined.device)
        figures = self._updates.discriminator(refined, real, draws)
        state.figures.add("discriminator", figures)
        return figures["loss"]

    def _make_updates(self) -> "_Updates":
        """Return the updates of this state's networks, for a GPU to record where it can.

        Processes that wait for each other, and networks that are not ours, are not recorded.
        """
        updates = self._pretraining_update, self._refiner_update, self._discriminator_update
        device = self._compute.device
        if device.type != "cuda" or self._distributed.size > 1 or self._features is not None:
            return _Updates(*updates)
        return _Updates(*(CapturedFunction(update, device) for update in updates))

    def _pretraining_update(self, synthetic: Tensor, emphasis: Tensor | None) -> Scalars:
        state = self._state
        figures = refiner_pretraining_step(
            state.refiner,
            state.refiner_optimizer,
            synthetic,
            emphasis,
            regularization=self._regularization,
            compute=self._compute,
            guard=self._guard,
        )
        average_towards(state.averaged_refiner, state.refiner, self._config.ema_decay)
        return figures

    def _refiner_update(
        self, synthetic: Tensor, emphasis: Tensor | None, draws: Tensor | None
    ) -> Scalars:
        state = self._state
        figures = refiner_step(
            state.refiner,
            state.discriminator,
            state.refiner_optimizer,
            synthetic,
            emphasis,
            draws,
            regularization=self._regularization,
            augmentation=state.augmentation,
            compute=self._compute,
            guard=self._guard,
        )
        average_towards(state.averaged_refiner, state.refiner, self._config.ema_decay)
        return figures

    def _discriminator_update(self, refined: Tensor, real: Tensor, draws: Tensor | None) -> Scalars:
        state = self._state
        return discriminator_step(
            state.discriminator,
            state.discriminator_optimizer,
            refined,
            real,
            draws,
            augmentation=state.augmentation,
            compute=self._compute,
            guard=self._guard,
        )

    def _deal_synthetic(self) -> tuple[Tensor, Tensor | None]:
        """Deal this rank's part of a batch, and where its images are to be held most."""
        images, rows = self._state.synthetic.deal_numbered(self._config.batch_size)
        times = self._config.regularization.label_region
        images, rows = self._distributed.part_of(images), self._distributed.part_of(rows)
        if self._pupil_px is None or times == 1:
            return images, None
        height, width, _ = self._synthetic.image_shape
        pupil_px = self._pupil_px[rows].to(images.device, non_blocking=True)
        return images, emphasis_on_iris(pupil_px, height, width, times)

    def _refined_batch(self, use_history: bool) -> Tensor:
        """Refine a batch, or with history half of one, which then enters it, and draw the rest.

        Before the history holds half a batch, and in pretraining, where the refiner stands still,
        all of the batch is new.
        """
        state, half = self._state, self._batch_size // 2
        num_old = half if use_history and len(state.history) >= half else 0
        num_new = self._batch_size - num_old
        synthetic = self._distributed.part_of(
            state.synthetic.next_batch(num_new * self._distributed.size)
        )
        refined = refine_pixels(state.refiner, synthetic, self._compute)
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
            images = refine_pixels(self._state.averaged_refiner, images, self._compute)
        self._sink.samples(self._state.step, images)

    def _save(self, path: Path) -> None:
        # A diverged state must never replace the last good one.
        self._guard.require_finite(self._state.step)
        of_ranks = self._distributed.gather(self._state.rank_state_dict())
        if self._distributed.is_first:
            content = {"state": self._state.state_dict(), "ranks": of_ranks}
            save_checkpoint(path, {**self._identity(), **content})

    def _resume(self, path: Path) -> None:
        """Go on from a checkpoint of this training, in the arithmetic that it was begun with."""
        saved = load_checkpoint(path)
        _require_same_training(path, saved, self._identity())
        try:
            self._state.load_state_dict(saved["state"])
            self._state.load_rank_state_dict(saved["ranks"][self._distributed.rank])
            self._compute = replace(self._compute, **saved["arithmetic"])
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise InputError(f"checkpoint {path} is damaged; delete it to start anew") from error
        # What was recorded computes with the state that was there.
        self._updates = self._make_updates()
        logger.info("resumed from step %d of %d: %s", self._state.step, self.total_steps, path)

    @cached_property
    def _inputs_digest(self) -> str:
        """Tell this training's images, labels and frozen network from others."""
        tensors = {} if self._pupil_px is None else {"pupil_px": self._pupil_px}
        if self._features is not None:
            tensors |= self._features.state_dict()
        digests = (self._synthetic.digest(), self._real.digest(), tensors_digest(tensors))
        return " ".join(digests)

    @property
    def precision(self) -> str:
        """Number format that the networks are trained in: of the checkpoint, once gone on from."""
        return self._compute.precision

    def _identity(self) -> dict[str, Any]:
        """Return what makes this training the one that it is."""
        compute = self._compute
        return {
            "config": self._config.model_dump(mode="json"),
            "images": self._inputs_digest,
            "num_ranks": self._distributed.size,
            "arithmetic": {
                "precision": compute.precision,
                "micro_batch_size": compute.micro_batch_size,
            },
        }


class _Updates(NamedTuple):
    """One update of one network each, of whole batches on the device."""

    refiner_pretraining: Callable[..., Scalars]
    refiner: Callable[..., Scalars]
    discriminator: Callable[..., Scalars]


def _part_of_a_rank(batch_size: int, distributed: DistributedContext) -> int:
    part, rest = divmod(batch_size, distributed.size)
    if rest or part % 2:
        raise InputError(
            f"batch_size {batch_size} should be an even number of images for each of "
            f"{distributed.size} processes; give a multiple of {2 * distributed.size}"
        )
    return part


def _require_what_is_set(
    config: TrainingConfig,
    synthetic: Domain,
    real: Domain,
    pupil_px: Tensor | None,
    features: nn.Module | None,
) -> None:
    """Refuse settings for which something is missing."""
    if config.stopping.evaluate_every > 0 and min(len(synthetic), len(real)) < _FEWEST_EXAMINED:
        raise InputError(
            f"examining refiners needs at least {_FEWEST_EXAMINED} images of each domain, found "
            f"{len(synthetic)} synthetic and {len(real)} real ones; give more, or set "
            "stopping.evaluate_every to 0"
        )
    if pupil_px is not None and pupil_px.shape != (len(synthetic), 2):
        raise InputError(
            f"pupil centres: expected [{len(synthetic)}, 2], one for each synthetic image, found "
            f"{list(pupil_px.shape)}"
        )
    if pupil_px is None and config.regularization.label_region > 1:
        raise InputError(
            "regularization.label_region needs the pupils' centres in the synthetic images, the "
            "label pupil_px; ingest it, or set label_region to 1"
        )
    if (features is not None) != (config.regularization.features > 0):
        raise InputError(
            "a network for regularization.features should be given where its weight is above 0 "
            f"(found {config.regularization.features}), and there alone"
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
    if saved.get("num_ranks") != ours["num_ranks"]:
        raise InputError(
            f"checkpoint {path} is of a training in {saved.get('num_ranks')} processes, not "
            f"{ours['num_ranks']}; go on with as many, or delete it to start anew"
        )
