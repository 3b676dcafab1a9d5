"""Bilateral refiner: local monotone tone curves, blur and noise, by image and random style.

Every output pixel is a monotone function of the input pixel at its place, and the function changes
slowly from place to place: edges keep their places and their direction, so labels hold by
construction. The curves come from a coarse grid that a low-resolution network predicts (HDRnet,
Gharbi et al., SIGGRAPH 2017); slicing it costs a fraction of a convolution at full resolution.
Predicted from the style alone, they are independent of all that the image shows, its label too.

Shapes: N images, C channels, H × W pixels of any size, F feature maps, S segments of a tone curve,
a grid of Gy × Gx cells, a style of Z numbers.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from simgan_core.config import BilateralConfig
from simgan_core.models.refiner import Refiner, clamp_to_range

STYLE_SIZE = 8
NOISE_SIDE_PX = 128
"""Side of the stored square of white noise; an image gets the part at a place of its style's."""

_NOISE_SEED = 0
PLACE_SCALE = 1024.0
"""A style times this has fractional parts that are uniform, and independent of its looks. Both the
product by a power of two and its fractional part are exact in float32, on every device."""
SHARPEST_PX = 0.15
"""A Gaussian of this standard deviation leaves pixels as they are, to one part in a billion."""
_WEAK = -3.0
"""Initial value of blur and noise before the sigmoid: a twentieth of their largest."""


class BilateralRefiner(Refiner):
    """[N, C, H, W] in [−1, 1] and a style [N, Z] to refined images of that shape, float32.

    At the start tone curves are nearly the identity. The layers compute in the weights' number
    format or autocast's, all that is done to pixels in float32.
    """

    style_size = STYLE_SIZE
    noise: Tensor

    def __init__(self, config: BilateralConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.channels = channels
        features = config.num_features
        if config.sees_image:
            self.encoder = nn.Sequential(
                nn.Conv2d(channels, features, kernel_size=5, stride=2, padding=2),
                nn.ReLU(),
                nn.Conv2d(features, 2 * features, kernel_size=3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(2 * features, 2 * features, kernel_size=3, stride=2, padding=1),
                nn.ReLU(),
            )
            self.local = nn.Conv2d(2 * features, 4 * features, kernel_size=3, padding=1)
            self.summary = nn.Linear(2 * features, 4 * features)
        self.style = nn.Sequential(
            nn.Linear(STYLE_SIZE, 4 * features), nn.ReLU(), nn.Linear(4 * features, 4 * features)
        )
        maps = channels * (1 + config.grey_segments)
        cells = config.grid_height * config.grid_width
        self.curves: nn.Conv2d | nn.Linear
        if config.sees_image:
            self.curves = nn.Conv2d(4 * features, maps, kernel_size=1)
            self.degradation = nn.Linear(2 * features + STYLE_SIZE, 2)
        else:
            self.curves = nn.Linear(4 * features, maps * cells)
            self.degradation = nn.Linear(4 * features, 2)
        nn.init.normal_(self.curves.weight, std=0.01)
        nn.init.zeros_(self.curves.bias)  # type: ignore[arg-type]  # both have one by default
        nn.init.normal_(self.degradation.weight, std=0.05)
        nn.init.constant_(self.degradation.bias, _WEAK)
        self.register_buffer("noise", _white_noise(channels))

    @override
    def forward(self, images: Tensor, style: Tensor | None = None) -> Tensor:
        """Refine [N, C, H, W] in the styles [N, Z], float32."""
        assert style is not None
        curves, degradation = self.predict(images, style)
        # Autocast would round pixels in the matrix products.
        with _without_autocast(images.device):
            refined = self.through_curves(images, curves.float())
            blur_px, noise = degradation.float().sigmoid().unbind(dim=1)
            if self.config.max_blur_px > 0:
                refined = blurred(refined, SHARPEST_PX + self.config.max_blur_px * blur_px)
            if self.config.max_noise_levels > 0:
                scale = noise * (self.config.max_noise_levels * 2 / 255)
                refined = refined + scale[:, None, None, None] * self._noise_of(style, images)
            return clamp_to_range(refined)

    def predict(self, images: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """Return the grid [N, C·(1+S), Gy, Gx] and strengths of blur and noise [N, 2].

        Of each channel the first map is the value of mid-grey, the others are logarithms of gains;
        strengths are before the sigmoid.
        """
        images, style = (each.to(self.curves.weight.dtype) for each in (images, style))
        if not self.config.sees_image:
            return self._predict_from_style(style)
        features = self.encoder(images)
        mean = features.mean(dim=(2, 3))
        down = pooling(features.shape[2], self.config.grid_height, features)
        across = pooling(features.shape[3], self.config.grid_width, features)
        local = self.local(down @ features @ across.T)
        everywhere = self.style(style) + self.summary(mean)
        curves = self.curves(functional.relu(local + everywhere[:, :, None, None]))
        return curves, self.degradation(torch.cat([mean, style], dim=1))

    def _predict_from_style(self, style: Tensor) -> tuple[Tensor, Tensor]:
        features = functional.relu(self.style(style))
        grid = (-1, self.config.grid_height, self.config.grid_width)
        return self.curves(features).unflatten(1, grid), self.degradation(features)

    def through_curves(self, images: Tensor, grid: Tensor) -> Tensor:
        """Slice the grid at every pixel's place, and take the pixel through its tone curve."""
        height, width = images.shape[2:]
        bound, segments = self.config.max_log_gain, self.config.grey_segments
        grid = grid.view(-1, self.channels, 1 + segments, *grid.shape[2:])
        grid = torch.cat([grid[:, :, :1], bound * torch.tanh(grid[:, :, 1:] / bound)], dim=2)
        down = interpolation(height, self.config.grid_height, grid)
        across = interpolation(width, self.config.grid_width, grid)
        sliced = down @ grid @ across.T
        refined = sliced[:, :, 0]
        for segment, (darkest, lightest) in enumerate(tone_segments(segments)):
            # The segment's share of the way from mid-grey to the pixel.
            way = images.clamp(darkest, lightest) - min(max(0.0, darkest), lightest)
            refined = refined + sliced[:, :, 1 + segment].exp() * way
        return refined

    def _noise_of(self, style: Tensor, images: Tensor) -> Tensor:
        """Return white noise [N, C, H, W]: the part of the stored one that the style points at."""
        height, width = images.shape[2:]
        scaled = style[:, :2].float() * PLACE_SCALE
        place = ((scaled - scaled.floor()) * NOISE_SIDE_PX).long()
        rows = (place[:, :1] + torch.arange(height, device=images.device)) % NOISE_SIDE_PX
        columns = (place[:, 1:] + torch.arange(width, device=images.device)) % NOISE_SIDE_PX
        pixels = rows[:, :, None] * NOISE_SIDE_PX + columns[:, None, :]
        return self.noise.float().flatten(1)[:, pixels].transpose(0, 1)


def blurred(images: Tensor, sd_px: Tensor) -> Tensor:
    """Convolve [N, C, H, W] with a Gaussian of each image's standard deviation [N], in pixels."""
    down, across = (_gaussian(size, sd_px)[:, None] for size in images.shape[2:])
    return down @ images @ across.transpose(2, 3)


def pooling(size: int, cells: int, like: Tensor) -> Tensor:
    """Return the matrix [cells, size] that averages `size` places into cells.

    It is the adaptive average pooling of PyTorch, whose gradient is not deterministic on GPUs.
    """
    cell = torch.arange(cells, device=like.device)[:, None]
    place = torch.arange(size, device=like.device)
    first, stop = cell * size // cells, -(-(cell + 1) * size // cells)
    inside = ((place >= first) & (place < stop)).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


def interpolation(size: int, cells: int, like: Tensor) -> Tensor:
    """Return the matrix [size, cells] that interpolates cells linearly, from edge to edge."""
    place = torch.linspace(0, cells - 1, size, device=like.device)[:, None]
    cell = torch.arange(cells, device=like.device)
    return (1 - (place - cell).abs()).clamp(min=0).to(like.dtype)


def tone_segments(count: int) -> list[tuple[float, float]]:
    """Return the darkest and the lightest value of each segment of a tone curve, in [−1, 1]."""
    return [(2 * segment / count - 1, 2 * (segment + 1) / count - 1) for segment in range(count)]


def _gaussian(size: int, sd_px: Tensor) -> Tensor:
    """Return matrices [N, size, size] of rows that sum to 1."""
    place = torch.arange(size, device=sd_px.device)
    distance_px = (place[:, None] - place).float()
    weights = torch.exp(-0.5 * (distance_px / sd_px[:, None, None]).square())
    return weights / weights.sum(dim=2, keepdim=True)


def _white_noise(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(_NOISE_SEED)
    # On the CPU whatever the default device is: meta tensors have no values to draw.
    return torch.randn(channels, NOISE_SIDE_PX, NOISE_SIDE_PX, generator=generator, device="cpu")


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    # A context that changes nothing would still be written into exported programs.
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
