"""Refiner: image in, refined image of the same size out; the paper's convolutional network.

Shapes: N images, C channels, H × W pixels of any size, F feature maps.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from simgan_core.compute.fused_convolution import convolve, packed
from simgan_core.config import RefinerConfig


class Refiner(nn.Module):
    """Base of the families: [N, C, H, W] in [−1, 1] to the same shape, float32, in [−1, 1].

    An image's result depends neither on its neighbours in the batch nor on train or eval.
    """

    channels: int
    style_size: int = 0
    """Numbers of a style, the second input, standard normal [N, style_size]; 0: none is taken."""

    def random_style(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw styles for `count` images, on the CPU; None where the refiner takes none."""
        if self.style_size == 0:
            return None
        return torch.randn(count, self.style_size, generator=generator)

    def unmirrored(self) -> "Refiner":
        """Return a refiner without tied weights that computes the same."""
        return self

    def pack(self, num_images: int, height: int, width: int) -> None:
        """Pack the weights for the fastest inference on such batches; training then fails."""


class ConvolutionalRefiner(Refiner):
    """Convolution, residual blocks, 1×1 convolution (SimGAN, Shrivastava et al., CVPR 2017, §3.1).

    [N, C, H, W] in [−1, 1] gives the same shape, float32, in [−1, 1]. There is no stride, pooling
    or normalisation.
    """

    def __init__(self, config: RefinerConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.channels = channels
        features, kernel_size = config.num_features, config.kernel_size
        conv = MirroredConv2d if config.mirrored else nn.Conv2d
        self.first = conv(channels, features, kernel_size, padding=kernel_size // 2)
        self.blocks = nn.Sequential(
            *(ResidualBlock(features, conv) for _ in range(config.num_blocks))
        )
        self.last = conv(features, channels, kernel_size=1)
        if config.residual:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]  # Conv2d has one by default

    def forward(self, images: Tensor, style: Tensor | None = None) -> Tensor:
        """Refine [N, C, H, W], no style; x + Δ is made in float32 whatever layers compute in."""
        assert style is None
        features = _convolve(self.first, images.to(self.first.weight.dtype))
        output = self.last(self.blocks(features)).to(torch.float32)
        if self.config.residual:
            return clamp_to_range(images + output)
        return torch.tanh(output)

    @override
    def unmirrored(self) -> "ConvolutionalRefiner":
        """Return a plain refiner that computes the same, with the mirrored weights written out."""
        with torch.device("meta"):
            plain = ConvolutionalRefiner(
                self.config.model_copy(update={"mirrored": False}), self.channels
            )
        weights = dict(self.state_dict())
        for name, layer in self.named_modules():
            if isinstance(layer, MirroredConv2d):
                weights[f"{name}.weight"], weights[f"{name}.bias"] = layer.mirrored()
        plain.load_state_dict({name: x.detach() for name, x in weights.items()}, assign=True)
        return plain

    @override
    def pack(self, num_images: int, height: int, width: int) -> None:
        """Pack the weights for the fastest inference on such batches; training then fails."""
        for layer in self.modules():
            # The last layer is no `convolve`, which alone knows the layout.
            if isinstance(layer, nn.Conv2d) and layer is not self.last:
                weight = packed(layer.weight.detach(), num_images, height, width)
                layer.weight = nn.Parameter(weight, requires_grad=False)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and the input added: [N, F, H, W] to the same."""

    def __init__(self, num_features: int, conv: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__()
        self.first = conv(num_features, num_features, kernel_size=3, padding=1)
        self.second = conv(num_features, num_features, kernel_size=3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Compute relu(x + conv(relu(conv(x))))."""
        return _convolve(self.second, _convolve(self.first, features), added=features)


class MirroredConv2d(nn.Conv2d):
    """Mirror-equivariant convolution, at the cost of a plain one.

    The group convolution of Cohen & Welling (ICML 2016) for one mirror. Maps of features, an even
    number, come in twins: map f + F/2 is what map f would be in the mirrored image, mirrored back.
    Twins share a weight. An image's channels, an odd number, are each its own twin.
    """

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Convolve [N, C, H, W] with the mirrored part of the weight; the rest has no effect."""
        return functional.conv2d(images, *self.mirrored(), padding=self.padding)

    def mirrored(self) -> tuple[Tensor, Tensor]:
        """Return the weight and the bias that are their own mirror images."""
        assert self.bias is not None
        weight = (self.weight + self._mirrored(self.weight)) / 2
        return weight, (self.bias + _twins(self.bias, dim=0)) / 2

    def _mirrored(self, weight: Tensor) -> Tensor:
        """Return weights [F, C, k, k] as the mirrored image's maps have them."""
        return _twins(_twins(weight.flip(3), dim=0), dim=1)


def _convolve(conv: nn.Conv2d, features: Tensor, added: Tensor | None = None) -> Tensor:
    """Compute relu(conv(features) + added) with a convolution's weights."""
    if isinstance(conv, MirroredConv2d):
        return convolve(features, *conv.mirrored(), added)
    return convolve(features, conv.weight, conv.bias, added)


def _twins(channels: Tensor, dim: int) -> Tensor:
    """Swap mirrored pairs of channels along an axis; an odd number, an image's, stays as it is."""
    size = channels.shape[dim]
    return channels.roll(size // 2, dim) if size % 2 == 0 else channels


def clamp_to_range(images: Tensor) -> Tensor:
    """Clamp to [−1, 1] with a gradient that still leads back into the range.

    A plain clamp has no gradient outside, so a pixel that left the range would stay there for ever;
    a straight-through one lets it be pushed further out without end. This one passes the gradient
    inside, and outside only where following it brings the pixel back.
    """
    clamped: Tensor = _InwardClamp.apply(images)  # type: ignore[no-untyped-call]
    return clamped


class _InwardClamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        ctx.save_for_backward(images)
        return images.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (images,) = ctx.saved_tensors
        # Descent moves against the gradient: a negative one leads further up.
        outward = ((images > 1.0) & (gradient < 0)) | ((images < -1.0) & (gradient > 0))
        return gradient.masked_fill(outward, 0.0)
