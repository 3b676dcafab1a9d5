"""ψ: in what a refined image must stay near the synthetic one (SimGAN, eq. 4).

A ψ takes images [N, C, H, W] in [−1, 1] and gives one or more maps [N, ·, h, w] of any size. All of
them are held alike: λ times the mean absolute difference of the maps, which may count some places
more than others. Another ψ is a function like these and a line in `SelfRegularization`.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from simgan_core.config import RegularizationConfig

Psi = Callable[[Tensor], tuple[Tensor, ...]]

_LOW_PASS_PX = 5
"""Side of the square that the low pass averages over."""


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


class SelfRegularization:
    """The weighted sum λ‖ψ(refined) − ψ(synthetic)‖₁ over the ψ whose λ is not 0."""

    def __init__(self, config: RegularizationConfig) -> None:
        terms: dict[Psi, float] = {
            identity: config.identity,
            gradient: config.gradient,
            low_pass: config.low_pass,
            channel_mean: config.channel_mean,
        }
        self._terms = {psi: weight for psi, weight in terms.items() if weight > 0}

    def __call__(self, refined: Tensor, synthetic: Tensor) -> Tensor:
        """Compare two [N, C, H, W]; each norm is a mean per pixel."""
        total = refined.new_zeros(())
        for psi, weight in self._terms.items():
            for ours, theirs in zip(psi(refined), psi(synthetic), strict=True):
                total = total + weight * (ours - theirs).abs().mean()
        return total
