"""Updates of a training's networks, on a GPU captured as CUDA graphs."""

from collections.abc import Callable

from torch import Tensor, nn

from simgan_core.compute.cuda_graph import CapturedFunction
from simgan_core.compute.non_finite import NonFiniteGuard
from simgan_core.compute.settings import ComputeSettings
from simgan_core.config import TrainingConfig
from simgan_core.training.ema import update_ema
from simgan_core.training.self_regularization import SelfRegularization
from simgan_core.training.state import TrainingState
from simgan_core.training.steps import (
    Metrics,
    discriminator_step,
    refiner_pretraining_step,
    refiner_step,
)

Update = Callable[..., Metrics]


class NetworkUpdates:
    """One update of each network of a training state, each of a whole mini-batch.

    A refiner's update includes that of its moving average (EMA). CUDA graphs compute with the
    tensors that they were captured with: make new updates after a checkpoint was loaded.
    """

    pretrain_refiner: Update
    """Of synthetic images, their emphasis and styles."""
    train_refiner: Update
    """Of synthetic images, their emphasis, the augmentation's draws, and two sets of styles."""
    train_discriminator: Update
    """Of refined images, real images and the augmentation's random draws."""

    def __init__(
        self,
        config: TrainingConfig,
        state: TrainingState,
        compute: ComputeSettings,
        guard: NonFiniteGuard,
        features: nn.Module | None,
    ) -> None:
        """Bind the steps to the state; `features` is the frozen network of ψ."""
        self._ema_decay = config.ema_decay
        self._min_style_change_levels = config.bilateral.min_style_change_levels
        self._state = state
        self._compute = compute
        self._guard = guard
        self._regularization = SelfRegularization(config.regularization, features)
        # Not captured: processes that wait for each other, and networks that are not ours.
        captured = (
            compute.device.type == "cuda" and compute.distributed.size == 1 and features is None
        )

        def prepared(update: Update) -> Update:
            return CapturedFunction(update, compute.device) if captured else update

        self.pretrain_refiner = prepared(self._pretrain_refiner)
        self.train_refiner = prepared(self._train_refiner)
        self.train_discriminator = prepared(self._train_discriminator)

    def _pretrain_refiner(
        self, synthetic: Tensor, emphasis: Tensor | None, style: Tensor | None
    ) -> Metrics:
        state = self._state
        metrics = refiner_pretraining_step(
            state.refiner,
            state.refiner_optimizer,
            synthetic,
            emphasis,
            style,
            regularization=self._regularization,
            compute=self._compute,
            guard=self._guard,
        )
        update_ema(state.averaged_refiner, state.refiner, self._ema_decay)
        return metrics

    def _train_refiner(
        self,
        synthetic: Tensor,
        emphasis: Tensor | None,
        draws: Tensor | None,
        style: Tensor | None,
        other_style: Tensor | None,
    ) -> Metrics:
        state = self._state
        metrics = refiner_step(
            state.refiner,
            state.discriminator,
            state.refiner_optimizer,
            synthetic,
            emphasis,
            draws,
            style,
            other_style,
            regularization=self._regularization,
            min_style_change_levels=self._min_style_change_levels,
            augmentation=state.augmentation,
            compute=self._compute,
            guard=self._guard,
        )
        update_ema(state.averaged_refiner, state.refiner, self._ema_decay)
        return metrics

    def _train_discriminator(self, refined: Tensor, real: Tensor, draws: Tensor | None) -> Metrics:
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
