"""Discriminator: classifies each local patch as refined or real."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from simgan_core.config import DiscriminatorConfig

REFINED, REAL = 0, 1
"""The classes: indices on the second axis of the logits."""

_GLOBAL_GRID = 4
"""Rows and columns that the whole image is pooled to before one decision is made of them."""


class Discriminator(nn.Module):
    """Patch discriminator: the paper's layers, a map of decisions (SimGAN, §2.2, §3.1, §3.2).

    [N, C, H, W] in [−1, 1] gives logits [N, 2, h, w] in float32, the two classes on axis 1. A cell
    of the `eyes` map sees a patch of 23 × 23 pixels; with a global scope the map is 1 × 1 and sees
    all. There is no activation after the last layer.
    """

    def __init__(self, config: DiscriminatorConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        layers = {"eyes": _eyes_layers, "hand": _hand_layers}[config.architecture](channels)
        if config.scope == "global":
            layers[-1:] = [nn.AdaptiveAvgPool2d(_GLOBAL_GRID), nn.Conv2d(32, 2, _GLOBAL_GRID)]
        if config.normalization == "batch":
            layers = _with_batch_norm(layers)
        if config.normalization == "spectral":
            layers = [spectral_norm(x) if isinstance(x, nn.Conv2d) else x for x in layers]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [N, 2, h, w] of images [N, C, H, W]."""
        logits: Tensor = self.layers(images)
        return logits.float()


def _eyes_layers(channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, 96, kernel_size=3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(96, 64, kernel_size=3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
        nn.Conv2d(64, 32, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, kernel_size=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 2, kernel_size=1),
    ]


def _hand_layers(channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, 96, kernel_size=7, stride=4, padding=3),
        nn.ReLU(inplace=True),
        nn.Conv2d(96, 64, kernel_size=5, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        nn.Conv2d(64, 32, kernel_size=3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, kernel_size=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 2, kernel_size=1),
    ]


def _with_batch_norm(layers: list[nn.Module]) -> list[nn.Module]:
    """Normalise between the inner convolutions and their activations (not the first, as usual)."""
    normalised: list[nn.Module] = []
    for number, layer in enumerate(layers):
        normalised.append(layer)
        if number > 0 and isinstance(layer, nn.Conv2d) and layer is not layers[-1]:
            normalised.append(nn.BatchNorm2d(layer.out_channels))
    return normalised
