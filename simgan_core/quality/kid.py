"""Kernel inception distance (KID) between sets of images, in features of our own network.

KID (Bińkowski et al., ICLR 2018) is the unbiased squared MMD with the kernel (x·y/d + 1)³ between
the features of two sets of images: 0 in the mean for two samples of one kind, below it by chance.
The usual features, of a network trained on photographs of the world, are a download away and far
from eyes; here they are those of a network of ours with random orthogonal weights, always the same
(seed 0). So a figure compares with other figures of this file on the same real images alone.

Shapes: N images, d features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from simgan_core.data.images import to_network

_SEED = 0
_IMAGES_AT_ONCE = 64
_GRID = (2, 3)
"""Rows and columns that a map is divided into: a feature belongs to a part of the image."""


class KernelDistance:
    """KID of any images from the same real ones."""

    def __init__(self, real: Tensor) -> None:
        """Compute features of the real images, pixels [M, H, W, C], M ≥ 2, on their device."""
        self._network = _random_layers(real.shape[3]).to(real.device)
        raw = self._features(real)
        self._mean = raw.mean(dim=0)
        centred = raw - self._mean
        # With its own spread alone, a feature in which real images hardly vary would make small
        # differences very large.
        self._scale = (centred.square().mean(dim=0) + centred.square().mean()).sqrt()
        self._real = centred / self._scale

    def __call__(self, images: Tensor) -> float:
        """Return the KID of pixels [N, H, W, C], N at least 2, from the real images."""
        features = (self._features(images) - self._mean) / self._scale
        return kernel_distance(features, self._real)

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        """Return mean and spread of every map in every part of the images, float64 [N, d]."""
        batches = []
        for pixels in torch.split(images, _IMAGES_AT_ONCE):
            maps, features = to_network(pixels), []
            for layer in self._network:
                maps = layer(maps).relu_()
                mean = functional.adaptive_avg_pool2d(maps, _GRID)
                square = functional.adaptive_avg_pool2d(maps.square(), _GRID)
                spread = (square - mean.square()).clamp_(min=0).sqrt_()
                features += [mean.flatten(1), spread.flatten(1)]
            batches.append(torch.cat(features, dim=1))
        return torch.cat(batches).double()


def kernel_distance(features: Tensor, others: Tensor) -> float:
    """Return the unbiased squared MMD of [N, d] and [M, d] under the kernel (x·y/d + 1)³."""
    num, num_others = len(features), len(others)
    within, within_others = _kernel(features, features), _kernel(others, others)
    return float(
        (within.sum() - within.trace()) / (num * (num - 1))
        + (within_others.sum() - within_others.trace()) / (num_others * (num_others - 1))
        - 2 * _kernel(features, others).mean()
    )


def _kernel(features: Tensor, others: Tensor) -> Tensor:
    return (features @ others.T / features.shape[1] + 1) ** 3


def _random_layers(channels: int) -> nn.ModuleList:
    """Return three convolutions; half of the first one's maps ignore brightness."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        layers = [
            nn.Conv2d(channels, 32, kernel_size=5, padding=2),
            nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
            nn.Conv2d(64, 64, kernel_size=3, stride=2, padding=1),
        ]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, gain=2**0.5)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # Conv2d has one by default
    texture = layers[0].weight.data[16:]
    texture -= texture.mean(dim=(1, 2, 3), keepdim=True)
    return nn.ModuleList(layers)
