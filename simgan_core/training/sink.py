"""Metric sink: a training's reports of metrics, sample images and progress."""

from typing import Protocol

from torch import Tensor


class Sink(Protocol):
    """Receiver of a training's reports; a step is an update of one network, from 1 on."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Take metrics by name, each a mean over the steps since the last call."""

    def samples(self, step: int, images: Tensor) -> None:
        """Take the same synthetic images as refined now, uint8 [n, H, W, C]; step 0: unrefined."""

    def progress(self, step: int, total: int) -> None:
        """Take the number of steps done, and of all steps."""


class NullSink:
    """Sink that ignores everything."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Do nothing."""

    def samples(self, step: int, images: Tensor) -> None:
        """Do nothing."""

    def progress(self, step: int, total: int) -> None:
        """Do nothing."""
