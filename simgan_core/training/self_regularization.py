"""Self-regularization loss ψ: distance of refined from synthetic images (SimGAN, eq. 4).

A feature transform ψ maps images [N, C, H, W] in [−1, 1] to one or more maps [N, ·, h, w] of any
size. Its loss is λ times the mean absolute difference of the maps, optionally weighted by place. To
add a ψ, write a function like these and a line in `SelfRegularization`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from simgan_core.config import RegularizationConfig

Psi = Callable[[Tensor], tuple[Tensor, ...]]

_LOW_PASS_PX = 5
"""Side of the square that the low pass averages over."""
_IRIS_PX, _REFERENCE_WIDTH_PX = 8.0, 55
"""Radius of the region that belongs to the label, in an image of that width."""


def identity(images: Tensor) -> tuple[Tensor, ...]:
    """Return the pixels."""
    return (images,)


def gradient(images: Tensor) -> tuple[Tensor, ...]:
    """Return the horizontal and the vertical derivative: differences of neighbouring pixels."""
    return images.diff(dim=3), images.diff(dim=2)


def low_pass(images: Tensor) -> tuple[Tensor, ...]:
    """Return the mean of the pixels about each pixel."""
    margin = _LOW_PASS_PX // 2
    return (
        functional.avg_pool2d(
            images, _LOW_PASS_PX, stride=1, padding=margin, count_include_pad=False
        ),
    )


def channel_mean(images: Tensor) -> tuple[Tensor, ...]:
    """Return the mean of the colour channels."""
    return (images.mean(dim=1, keepdim=True),)


def features_of(network: nn.Module) -> Psi:
    """Return the ψ of a network's feature maps, a tensor [N, F, h, w] or several of them."""

    def features(images: Tensor) -> tuple[Tensor, ...]:
        maps = network(images)
        return (maps,) if isinstance(maps, Tensor) else tuple(maps)

    return features


class SelfRegularization:
    """Weighted sum λ‖ψ(refined) − ψ(synthetic)‖₁ over all ψ whose λ is not 0."""

    def __init__(self, config: RegularizationConfig, network: nn.Module | None = None) -> None:
        """Choose the terms by `config`; `network` is the frozen one of the term `features`."""
        terms: dict[Psi, float] = {
            identity: config.identity,
            gradient: config.gradient,
            low_pass: config.low_pass,
            channel_mean: config.channel_mean,
        }
        if network is not None:
            terms[features_of(network)] = config.features
        self._terms = {psi: weight for psi, weight in terms.items() if weight > 0}

    def __call__(
        self, refined: Tensor, synthetic: Tensor, emphasis: Tensor | None = None
    ) -> Tensor:
        """Return the loss of refined against synthetic images [N, C, H, W], means per pixel.

        `emphasis` [N, 1, H, W] weights the pixels; its mean over each image is 1.
        """
        total = refined.new_zeros(())
        for psi, weight in self._terms.items():
            for ours, theirs in zip(psi(refined), psi(synthetic), strict=True):
                difference = (ours - theirs).abs()
                if emphasis is not None:
                    difference = difference * functional.interpolate(
                        emphasis, difference.shape[2:], mode="area"
                    )
                total = total + weight * difference.mean()
        return total


def emphasis_on_iris(pupil_px: Tensor, height: int, width: int, times: float) -> Tensor:
    """Return pixel weights [N, 1, H, W], `times` as large round the pupil's centre.

    Centres [N, 2] are x, y in pixels; where one is not known (NaN) the image is weighted evenly.
    The mean over each image is 1, so that λ means the same with and without.
    """
    row = torch.arange(height, device=pupil_px.device)[:, None] + 0.5
    column = torch.arange(width, device=pupil_px.device) + 0.5
    x, y = pupil_px.T[..., None, None]
    radius_px = _IRIS_PX * width / _REFERENCE_WIDTH_PX
    inside = (column - x).square() + (row - y).square() <= radius_px**2
    emphasis = (1 + (times - 1) * inside.float())[:, None]
    return torch.div(emphasis, emphasis.mean(dim=(1, 2, 3), keepdim=True))
