"""Learning-rate schedule: linear warm-up, full rate, linear cool-down to zero.

Without warm-up, untrained networks permanently lose feature maps. Without cool-down, the two
networks oscillate instead of converging.
"""

from torch import Tensor
from torch.optim import Optimizer

from simgan_core.config import TrainingConfig


def learning_rate_factor(adversarial_step: int, config: TrainingConfig) -> float:
    """Return the factor of the learning rate, in (0, 1], in a step of the adversarial phase.

    Steps count from 0 to `config.steps` − 1; below 0 is pretraining, at the full rate.
    """
    # A function of the step rather than torch's LambdaLR: the training's step is then all that a
    # checkpoint needs, where a scheduler for each optimizer would keep a copy of it, and would warn
    # that the discriminator's optimizer stands still while the refiner is pretrained.
    if adversarial_step < 0:
        return 1.0
    warmup = (adversarial_step + 1) / (config.warmup_steps + 1)
    cooldown = (config.steps - adversarial_step) / max(1.0, config.cooling * config.steps)
    return min(1.0, warmup, cooldown)


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Set every group's learning rate to this factor of its `initial_lr`.

    A rate that is a tensor is changed in place: a captured CUDA graph reads it where it was.
    """
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate
