"""Augmentation of all discriminator inputs, refined and real alike (DiffAugment).

With few real images a discriminator overfits; random shifts and tones of its input prevent that.
The refiner's gradient passes through the augmentation, so that it does not show in the refined
images (Zhao et al., NeurIPS 2020).
"""

import torch
from torch import Tensor

from simgan_core.config import DiscriminatorConfig
from simgan_core.data.augmentation import shift_and_scale


class DiscriminatorAugmentation:
    """Random shift, brightness and contrast of every image of a batch."""

    def __init__(self, config: DiscriminatorConfig, generator: torch.Generator) -> None:
        """Draw shifts and tones in the ranges of `config` from `generator`, which is on the CPU."""
        self._max_shift_px = config.max_shift_px
        self._max_tone = config.max_tone
        self._generator = generator

    def draw(self, count: int, device: torch.device) -> Tensor | None:
        """Draw numbers for `count` images: [count, 4], uniform in ±1; None without augmentation."""
        if self._max_shift_px == self._max_tone == 0:
            return None
        draws = 2 * torch.rand(count, 4, generator=self._generator) - 1
        return draws.to(device, non_blocking=True)

    def __call__(self, images: Tensor, draws: Tensor | None) -> Tensor:
        """Change images [N, C, H, W] in [−1, 1] as drawn; a bright one may leave the range."""
        if draws is None:
            return images
        if self._max_shift_px > 0:
            shift_px = self._max_shift_px * draws[:, :2]
            images = shift_and_scale(images, shift_px, torch.ones_like(shift_px[:, 0]))
        if self._max_tone > 0:
            brightness, contrast = self._max_tone * draws[:, 2:].T[..., None, None, None]
            images = (1 + contrast) * images + brightness
        return images
