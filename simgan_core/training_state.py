"""Everything that training changes, and nothing else: what a checkpoint has to hold."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from simgan_core.arithmetic import place
from simgan_core.collapse import CollapseWatch
from simgan_core.config import TrainingConfig
from simgan_core.discriminator import Discriminator
from simgan_core.discriminator_augmentation import DiscriminatorAugmentation
from simgan_core.history import History
from simgan_core.refiner import Refiner
from simgan_core.shuffling import ShuffledImages, seeded_generator
from simgan_core.stopping import Stopping

_SYNTHETIC, _REAL, _HISTORY, _AUGMENTATION = 0, 1, 2, 4
"""Streams of random numbers under the one seed of a training (3 is the trainer's own)."""


class TrainingState:
    """Networks, optimisers, the averaged and the best refiner, the history, and where all is."""

    def __init__(self, config: TrainingConfig, synthetic: Tensor, real: Tensor) -> None:
        """Begin a training on pixels [N, H, W, C] and [M, H, W, C], on the device they are on."""
        device, channels = synthetic.device, synthetic.shape[3]
        self.step = 0
        # Drawn on the CPU: the same weights on every device, and the caller's generator as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.refiner = place(Refiner(config.refiner, channels), device)
            self.discriminator = place(Discriminator(config.discriminator, channels), device)
        self.averaged_refiner = copy.deepcopy(self.refiner).requires_grad_(False)
        rate = config.learning_rate
        self.refiner_optimizer = _optimizer(config, self.refiner, rate)
        self.discriminator_optimizer = _optimizer(
            config, self.discriminator, config.discriminator_learning_rate or rate
        )
        self.synthetic = ShuffledImages(synthetic, config.seed, _SYNTHETIC)
        self.real = ShuffledImages(real, config.seed, _REAL)
        self.history_generator = seeded_generator(config.seed, _HISTORY)
        self.history = History(config.history_size, self.history_generator)
        self.augmentation_generator = seeded_generator(config.seed, _AUGMENTATION)
        self.augmentation = DiscriminatorAugmentation(
            config.discriminator, self.augmentation_generator
        )
        self.stopping = Stopping(config.stopping, image_width=synthetic.shape[2])
        self.collapse_watch = CollapseWatch()
        self.figures = RunningMeans()

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as tensors, numbers and plain containers."""
        return {
            "step": self.step,
            "refiner": self.refiner.state_dict(),
            "averaged_refiner": self.averaged_refiner.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "refiner_optimizer": self.refiner_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "synthetic_position": self.synthetic.position,
            "real_position": self.real.position,
            "history": self.history.images(),
            "history_generator": self.history_generator.get_state(),
            "augmentation_generator": self.augmentation_generator.get_state(),
            "stopping": self.stopping.state_dict(),
            "num_unchanged": self.collapse_watch.num_unchanged,
            "figures": self.figures.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what `state_dict` returned, on the device of this state."""
        self.step = state["step"]
        self.refiner.load_state_dict(state["refiner"])
        self.averaged_refiner.load_state_dict(state["averaged_refiner"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.refiner_optimizer.load_state_dict(state["refiner_optimizer"])
        self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        self.synthetic.position = state["synthetic_position"]
        self.real.position = state["real_position"]
        self.history.restore(_moved(state["history"], self._device))
        self.history_generator.set_state(state["history_generator"])
        self.augmentation_generator.set_state(state["augmentation_generator"])
        self.stopping.load_state_dict(state["stopping"])
        self.collapse_watch.num_unchanged = state["num_unchanged"]
        self.figures.load_state_dict(state["figures"], self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.refiner.parameters()).device


class RunningMeans:
    """Means of figures over the steps since they were last read, kept on the device until then."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, prefix: str, figures: dict[str, Tensor]) -> None:
        """Take a step's scalars, to be read as `prefix/name`."""
        for name, value in figures.items():
            key = f"{prefix}/{name}"
            self._sums[key] = self._sums[key] + value if key in self._sums else value
            self._counts[key] = self._counts.get(key, 0) + 1

    def read(self) -> dict[str, float]:
        """Return the means by name and begin anew; waits once for the device."""
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
        """Become what `state_dict` returned."""
        self._sums = {key: value.to(device) for key, value in state["sums"].items()}
        self._counts = dict(state["counts"])


def _optimizer(config: TrainingConfig, network: nn.Module, learning_rate: float) -> Optimizer:
    # Fused: fewer passes over the weights, and the switch that NonFiniteGuard needs.
    if config.optimizer == "adam":
        return Adam(network.parameters(), lr=learning_rate, fused=True)
    return SGD(network.parameters(), lr=learning_rate, fused=True)


def _moved(images: Tensor | None, device: torch.device) -> Tensor | None:
    return None if images is None else images.to(device)
