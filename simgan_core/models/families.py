"""Families of refiners: the network that a training's configuration asks for."""

from simgan_core.config import TrainingConfig
from simgan_core.models.bilateral import BilateralRefiner
from simgan_core.models.refiner import ConvolutionalRefiner, Refiner


def new_refiner(config: TrainingConfig, channels: int) -> Refiner:
    """Return a refiner of the family that is set, with random weights."""
    if config.family == "bilateral":
        return BilateralRefiner(config.bilateral, channels)
    return ConvolutionalRefiner(config.refiner, channels)
