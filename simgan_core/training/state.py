"""Training state: networks, optimisers, EMA, history, samplers; all that a checkpoint holds."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from simgan_core.compute.distributed import DistributedContext
from simgan_core.compute.settings import to_channels_last
from simgan_core.config import TrainingConfig
from simgan_core.data.discriminator_augmentation import DiscriminatorAugmentation
from simgan_core.data.sampler import Sampler, seeded_generator
from simgan_core.models.discriminator import Discriminator
from simgan_core.models.families import new_refiner
from simgan_core.training.collapse import CollapseWatch
from simgan_core.training.early_stopping import EarlyStopping
from simgan_core.training.history import History
from simgan_core.training.update_ratio import UpdateRatio

_HISTORY, _AUGMENTATION, _STYLE = 2, 4, 6
"""Streams of random numbers of a training's seed; the trainer has the others."""


class TrainingState:
    """Networks, optimisers, EMA and best refiner, history buffer, samplers and counters."""

    def __init__(
        self,
        config: TrainingConfig,
        synthetic: Sampler,
        real: Sampler,
        image_shape: tuple[int, int, int],
        device: torch.device,
        distributed: DistributedContext,
    ) -> None:
        """Initialise a training on samplers of images of one shape (H, W, C)."""
        _, width, channels = image_shape
        self.step = 0
        # Drawn on the CPU: the same weights on every device, and the caller's generator as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.refiner = to_channels_last(new_refiner(config, channels), device)
            self.discriminator = to_channels_last(
                Discriminator(config.discriminator, channels), device
            )
        self.averaged_refiner = copy.deepcopy(self.refiner).requires_grad_(False)
        rate = config.learning_rate
        self.refiner_optimizer = _optimizer(config, self.refiner, rate)
        self.discriminator_optimizer = _optimizer(
            config, self.discriminator, config.discriminator_learning_rate or rate
        )
        self.synthetic = synthetic
        self.real = real
        self.update_ratio = UpdateRatio(config)
        self.history_generator = seeded_generator(config.seed, _HISTORY, distributed.rank)
        self.history = History(config.history_size // distributed.size, self.history_generator)
        self.augmentation_generator = seeded_generator(config.seed, _AUGMENTATION, distributed.rank)
        self.augmentation = DiscriminatorAugmentation(
            config.discriminator, self.augmentation_generator
        )
        self.style_generator = seeded_generator(config.seed, _STYLE, distributed.rank)
        self.stopping = EarlyStopping(config.stopping, image_width=width)
        self.collapse_watch = CollapseWatch()
        self.running_means = RunningMeans()

    def state_dict(self) -> dict[str, Any]:
        """Return the state that all ranks share, as tensors, numbers and plain containers."""
        return {
            "step": self.step,
            "refiner": self.refiner.state_dict(),
            "averaged_refiner": self.averaged_refiner.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "refiner_optimizer": self.refiner_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "synthetic_position": self.synthetic.position,
            "real_position": self.real.position,
            "schedule": self.update_ratio.state_dict(),
            "stopping": self.stopping.state_dict(),
            "num_unchanged": self.collapse_watch.num_unchanged,
            "figures": self.running_means.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, on the device of this state."""
        self.step = state["step"]
        self.refiner.load_state_dict(state["refiner"])
        self.averaged_refiner.load_state_dict(state["averaged_refiner"])
        self.discriminator.load_state_dict(state["discriminator"])
        for name in ("refiner_optimizer", "discriminator_optimizer"):
            optimizer: Optimizer = getattr(self, name)
            optimizer.load_state_dict(state[name])
            _suit_device(optimizer, self._device)
        self.synthetic.position = state["synthetic_position"]
        self.real.position = state["real_position"]
        self.update_ratio.load_state_dict(state["schedule"])
        self.stopping.load_state_dict(state["stopping"])
        self.collapse_watch.num_unchanged = state["num_unchanged"]
        self.running_means.load_state_dict(state["figures"], self._device)

    def rank_state_dict(self) -> dict[str, Any]:
        """Return the state of this rank alone: history buffer and random generators."""
        return {
            "history": self.history.images(),
            "history_generator": self.history_generator.get_state(),
            "augmentation_generator": self.augmentation_generator.get_state(),
            "style_generator": self.style_generator.get_state(),
        }

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `rank_state_dict` returned, on the device of this state."""
        self.history.restore(_moved(state["history"], self._device))
        self.history_generator.set_state(state["history_generator"])
        self.augmentation_generator.set_state(state["augmentation_generator"])
        # Checkpoints from before there were styles lack it, and are of refiners that take none.
        if "style_generator" in state:
            self.style_generator.set_state(state["style_generator"])

    def draw_style(self, count: int) -> Tensor | None:
        """Return styles for `count` images, on the device; None where the refiner takes none."""
        style = self.refiner.random_style(count, self.style_generator)
        return None if style is None else style.to(self._device, non_blocking=True)

    @property
    def _device(self) -> torch.device:
        return next(self.refiner.parameters()).device


class RunningMeans:
    """Means of metrics over the steps since they were last read, kept on the device until then."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, prefix: str, metrics: dict[str, Tensor]) -> None:
        """Add a step's scalars, to be read as `prefix/name`."""
        for name, value in metrics.items():
            key = f"{prefix}/{name}"
            self._sums[key] = self._sums[key] + value if key in self._sums else value
            self._counts[key] = self._counts.get(key, 0) + 1

    def read(self) -> dict[str, float]:
        """Return the means by name and reset them; waits once for the device."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values())).tolist()
        means = {
            key: total / self._counts[key] for key, total in zip(self._sums, sums, strict=True)
        }
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return sums and counts, so that a resumed run reports the same curve."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state_dict` returned."""
        self._sums = {key: value.to(device) for key, value in state["sums"].items()}
        self._counts = dict(state["counts"])


def _optimizer(config: TrainingConfig, network: nn.Module, learning_rate: float) -> Optimizer:
    # The learning-rate schedule sets the rate of each step, as a factor of the initial one.
    weights = [{"params": list(network.parameters()), "initial_lr": learning_rate}]
    optimizer: Optimizer
    # Fused: fewer passes over the weights, and the switch that NonFiniteGuard needs.
    if config.optimizer == "adam":
        optimizer = Adam(weights, lr=learning_rate, betas=config.adam_betas, fused=True)
    else:
        optimizer = SGD(weights, lr=learning_rate, fused=True)
    _suit_device(optimizer, next(network.parameters()).device)
    return optimizer


def _suit_device(optimizer: Optimizer, device: torch.device) -> None:
    """Make an optimiser's steps capturable as a CUDA graph on a GPU; the reverse on a CPU.

    A captured step reads its learning rate on the device; elsewhere it is a number.
    """
    on_gpu = device.type == "cuda"
    for group in optimizer.param_groups:
        rate = float(group["lr"])
        group["lr"] = torch.tensor(rate, device=device) if on_gpu else rate
        if "capturable" in group:
            group["capturable"] = on_gpu


def _moved(images: Tensor | None, device: torch.device) -> Tensor | None:
    return None if images is None else images.to(device)
