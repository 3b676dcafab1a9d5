"""Refiner training: Algorithm 1 of SimGAN (Shrivastava et al., CVPR 2017), with an EMA.

A training is a function of its configuration and the two sets of images: on one CPU the same ones
give the same bits, also when the training was killed in between and resumed from its checkpoint.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from simgan_core.compute.distributed import ALONE, DistributedContext
from simgan_core.compute.malloc import keep_freed_memory
from simgan_core.compute.non_finite import NonFiniteGuard, require_finite_weights
from simgan_core.compute.settings import ComputeSettings, choose_compute_settings, to_channels_last
from simgan_core.config import TrainingConfig
from simgan_core.data.sampler import ImageShards, seeded_generator
from simgan_core.errors import InputError
from simgan_core.inference import refine_pixels
from simgan_core.models.checkpoint import tensors_digest
from simgan_core.models.estimator import Estimator
from simgan_core.models.refiner import Refiner
from simgan_core.training.batches import MiniBatches, batch_size_of_rank
from simgan_core.training.checkpointing import TrainingCheckpoint
from simgan_core.training.domain import Domain, require_same_kind
from simgan_core.training.learning_rate_schedule import learning_rate_factor, set_learning_rate
from simgan_core.training.sink import NullSink, Sink
from simgan_core.training.state import TrainingState
from simgan_core.training.updates import NetworkUpdates
from simgan_core.training.validation import Metrics, Validator

logger = logging.getLogger(__name__)

NUM_SAMPLES = 16
"""Synthetic images whose refinement is shown as training goes, or all where there are fewer."""
_SYNTHETIC, _REAL, _VALIDATION_SYNTHETIC, _VALIDATION_REAL, _CONTENT_CHECK = 0, 1, 3, 5, 7
"""Stream numbers that keep draws independent: samplers, validation images, content check."""
_VALIDATION_STYLE = 8
"""Random stream of the styles that validation images are refined with."""
_MIN_VALIDATION_IMAGES = 4
"""Images of a domain below which metrics of realism mean nothing."""


@dataclass(frozen=True)
class TrainedRefiner:
    """Result of a training, finished or stopped on the way."""

    refiner: Refiner
    """The refiner to use: the best averaged one, or the last where there was no validation."""
    compute: ComputeSettings
    """Compute settings of the training."""
    step: int
    """Number of updates taken."""
    finished: bool
    """True where the training ended, by early stopping or after all its steps."""
    best_step: int | None
    """Step at which this refiner was saved; None if none was a candidate and it is the last one."""
    metrics: Metrics
    """Validation metrics of this refiner. Without a candidate, those of the last validation. Empty
    without validation."""
    verdict: str
    """Reason of the choice of this refiner, a sentence."""


def never() -> bool:
    """Return false: the default `should_stop`, which never stops a training."""
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

        Tensors are kept on the device, shards are read as training goes. `pupil_px` [N, 2] are the
        pupil centres x, y of the synthetic images, in pixels; with it, candidates pass the label
        gate. `features` is the frozen network of ψ. `estimator` is one whose predictions validation
        compares before and after refinement. In distributed training each process computes its part
        of every batch, and the first alone reports to the sink. Raises `InputError` where something
        does not fit.
        """
        self._config = config
        self._compute = replace(
            choose_compute_settings(device, config.precision, config.micro_batch_size),
            distributed=distributed,
        )
        self._distributed = distributed
        batch_size_of_rank(config.batch_size, distributed)
        self._sink = sink if sink is not None and distributed.is_first else NullSink()
        on = self._compute.device
        self._synthetic = Domain("synthetic", synthetic, on, config.seed)
        self._real = Domain("real", real, on, config.seed)
        require_same_kind(self._synthetic, self._real)
        for domain in (self._synthetic, self._real):
            domain.require_content(_CONTENT_CHECK)
        _require_inputs(config, self._synthetic, self._real, pupil_px, features)
        self._state = TrainingState(
            config,
            self._synthetic.sampler(_SYNTHETIC),
            self._real.sampler(_REAL),
            self._synthetic.image_shape,
            on,
            distributed,
        )
        self._guard = NonFiniteGuard(on)
        self._pupil_px = pupil_px
        self._features = features
        self._estimator = estimator
        self._samples, _ = self._synthetic.choose(NUM_SAMPLES, _VALIDATION_SYNTHETIC)
        self._prepare_steps()

    def _prepare_steps(self) -> None:
        """Make batches and updates of the present state and compute settings."""
        config, state, compute = self._config, self._state, self._compute
        self._batches = MiniBatches(config, state, compute, self._pupil_px)
        self._updates = NetworkUpdates(config, state, compute, self._guard, self._features)

    @property
    def total_steps(self) -> int:
        """Pretraining of both networks and the refiner's updates after it."""
        config = self._config
        pretraining = config.refiner_pretraining_steps + config.discriminator_pretraining_steps
        return pretraining + config.steps

    @property
    def precision(self) -> str:
        """Number format that the networks are trained in; once resumed, the checkpoint's."""
        return self._compute.precision

    def run(
        self, checkpoint_path: Path | None = None, should_stop: Callable[[], bool] = never
    ) -> TrainedRefiner:
        """Train to the end, or until `should_stop`, which is called before every step, is true.

        With `checkpoint_path` the training resumes from the checkpoint there, if there is one, and
        saves one every `checkpoint_every` steps and at the end. Raises `InputError` where the
        checkpoint is another training's, and `NonFiniteLossError` where the training diverged.
        """
        state, config = self._state, self._config
        if self._compute.device.type == "cpu":
            keep_freed_memory()
        checkpoint = self._resume(checkpoint_path) if checkpoint_path is not None else None
        self._report_samples()
        self._validate_unrefined()

        # Algorithm 1 of the paper. A step is one refiner update; while the discriminator is
        # pretrained, one discriminator update. Training can therefore stop inside a round.
        while not self._ended and not self._agree_to_stop(should_stop):
            factor = learning_rate_factor(self._adversarial_step, config)
            set_learning_rate(state.refiner_optimizer, factor)
            set_learning_rate(state.discriminator_optimizer, factor)

            if state.step < config.refiner_pretraining_steps:
                self._pretrain_refiner()
            elif self._adversarial_step < 0:
                self._train_discriminator(use_history=False)
            else:
                # K_g refiner updates make a round,
                self._train_refiner()
                if state.update_ratio.count_refiner_step():
                    # which ends with K_d discriminator updates.
                    for _ in range(config.discriminator_steps_per_round):
                        loss = self._train_discriminator(use_history=True)
                    if state.update_ratio.wants_loss:
                        state.update_ratio.adapt(loss.item())
            state.step += 1

            if self._validation_is_due:
                self._validate_candidate()
            self._report_if_due()
            if checkpoint is not None and state.step % config.checkpoint_every == 0:
                self._save(checkpoint)

        self._require_finite()
        if checkpoint is not None:
            self._save(checkpoint)
        return self._result()

    def _require_finite(self) -> None:
        """Raise `NonFiniteLossError` where a loss or a weight is not finite."""
        state = self._state
        self._guard.require_finite(state.step)
        networks = state.refiner, state.averaged_refiner, state.discriminator
        require_finite_weights(state.step, *networks)

    @property
    def _adversarial_step(self) -> int:
        """Number of steps taken of the adversarial phase; below 0 in pretraining."""
        return self._state.step - (self.total_steps - self._config.steps)

    @property
    def _ended(self) -> bool:
        return self._state.step == self.total_steps or self._state.stopping.ended

    def _agree_to_stop(self, should_stop: Callable[[], bool]) -> bool:
        """Call `should_stop`; of several processes one is enough to stop all of them.

        They agree every `log_every` steps only, since each has to wait for the others.
        """
        if self._distributed.size == 1:
            return should_stop()
        agreed = self._state.step % self._config.log_every == 0
        return agreed and any(self._distributed.gather(should_stop()))

    def _pretrain_refiner(self) -> None:
        images, emphasis = self._batches.synthetic()
        style = self._state.draw_style(len(images))
        metrics = self._updates.pretrain_refiner(images, emphasis, style)
        self._state.running_means.add("refiner_pretraining", metrics)

    def _train_refiner(self) -> None:
        images, emphasis = self._batches.synthetic()
        draws = self._state.augmentation.draw(len(images), images.device)
        style = self._state.draw_style(len(images))
        other_style = None
        if self._config.bilateral.min_style_change_levels > 0:
            other_style = self._state.draw_style(len(images))
        metrics = self._updates.train_refiner(images, emphasis, draws, style, other_style)
        self._state.running_means.add("refiner", metrics)

    def _train_discriminator(self, use_history: bool) -> Tensor:
        """Update the discriminator; returns its loss, a scalar on the device."""
        refined, real = self._batches.refined(use_history), self._batches.real()
        draws = self._state.augmentation.draw(2 * len(refined), refined.device)
        metrics = self._updates.train_discriminator(refined, real, draws)
        self._state.running_means.add("discriminator", metrics)
        return metrics["loss"]

    @property
    def _validation_is_due(self) -> bool:
        every, adversarial_step = self._config.stopping.evaluate_every, self._adversarial_step
        if every == 0 or adversarial_step <= 0:
            return False
        return adversarial_step % every == 0 or self._state.step == self.total_steps

    def _validate_unrefined(self) -> None:
        """Report the metrics that refinement starts from, to compare with."""
        is_wanted = self._config.stopping.evaluate_every > 0 and self._state.step == 0
        if is_wanted and self._distributed.is_first:
            self._sink.metrics(0, self._validator.validate(self._validator.synthetic))

    def _validate_candidate(self) -> None:
        """Validate the averaged refiner: has it collapsed, and is it the best so far."""
        state = self._state
        self._require_finite()
        metrics = self.validate(state.averaged_refiner) if self._distributed.is_first else {}
        metrics = self._distributed.share(metrics)
        state.collapse_watch.require_alive(state.step, metrics)
        state.stopping.update(state.step, metrics, state.averaged_refiner)
        self._sink.metrics(state.step, metrics)

    def validate(self, refiner: Refiner) -> Metrics:
        """Return the validation metrics of any refiner, on this training's validation images."""
        on_device = to_channels_last(copy.deepcopy(refiner), self._compute.device)
        synthetic = self._validator.synthetic
        style = self._validation_style(on_device, len(synthetic))
        refined = refine_pixels(on_device, synthetic, self._compute, style)
        return self._validator.validate(refined)

    def _validation_style(self, refiner: Refiner, count: int) -> Tensor | None:
        """Return styles for `count` images, the same ones in every validation."""
        generator = seeded_generator(self._config.seed, _VALIDATION_STYLE, 0)
        style = refiner.random_style(count, generator)
        return None if style is None else style.to(self._compute.device)

    def refusal(self, metrics: Metrics) -> str:
        """Return why a refiner with such metrics is no candidate; empty where it is one."""
        return self._state.stopping.refusal(metrics)

    @cached_property
    def _validator(self) -> Validator:
        """Choose the validation images, the same ones in every validation."""
        count = self._config.stopping.num_images
        synthetic, rows = self._synthetic.choose(count, _VALIDATION_SYNTHETIC)
        real, _ = self._real.choose(count, _VALIDATION_REAL)
        pupil_px = None if self._pupil_px is None else self._pupil_px[rows]
        return Validator(synthetic, real, pupil_px, self._config.seed, self._estimator)

    def _report_if_due(self) -> None:
        step, config = self._state.step, self._config
        if self._ended or step % config.log_every == 0:
            self._guard.require_finite(step)
            self._sink.metrics(step, self._state.running_means.read())
            self._sink.progress(step, self.total_steps)
        if self._ended or step % config.sample_every == 0:
            self._report_samples()

    def _report_samples(self) -> None:
        images = self._samples
        if self._state.step > 0:
            refiner = self._state.averaged_refiner
            style = self._validation_style(refiner, len(images))
            images = refine_pixels(refiner, images, self._compute, style)
        self._sink.samples(self._state.step, images)

    def _resume(self, path: Path) -> TrainingCheckpoint:
        """Open the checkpoint at `path`, and go on from it where there is one."""
        checkpoint = TrainingCheckpoint(path, self._config, self._inputs_digest, self._distributed)
        if path.exists():
            self._compute = checkpoint.resume(self._state, self._compute)
            self._prepare_steps()
            logger.info("resumed from step %d of %d: %s", self._state.step, self.total_steps, path)
        return checkpoint

    def _save(self, checkpoint: TrainingCheckpoint) -> None:
        # A diverged state must never replace the last good one.
        self._require_finite()
        checkpoint.save(self._state, self._compute)

    @cached_property
    def _inputs_digest(self) -> str:
        """Digest of this training's images, labels and frozen network."""
        tensors = {} if self._pupil_px is None else {"pupil_px": self._pupil_px}
        if self._features is not None:
            tensors |= self._features.state_dict()
        digests = (self._synthetic.digest(), self._real.digest(), tensors_digest(tensors))
        return " ".join(digests)

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
            stopping.best_metrics or stopping.last_metrics,
            stopping.verdict(),
        )


def _require_inputs(
    config: TrainingConfig,
    synthetic: Domain,
    real: Domain,
    pupil_px: Tensor | None,
    features: nn.Module | None,
) -> None:
    """Raise `InputError` for settings for which an input is missing."""
    num_images = min(len(synthetic), len(real))
    if config.stopping.evaluate_every > 0 and num_images < _MIN_VALIDATION_IMAGES:
        raise InputError(
            f"validation of refiners needs at least {_MIN_VALIDATION_IMAGES} images of each "
            f"domain, found {len(synthetic)} synthetic and {len(real)} real ones; give more, or "
            "set stopping.evaluate_every to 0"
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
