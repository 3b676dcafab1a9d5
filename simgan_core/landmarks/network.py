"""Landmark network: grey image of an eye in, one heat map a landmark out.

A U-Net (Ronneberger et al., MICCAI 2015) of three sizes. Each heat map is a distribution over the
cells of a grid; a landmark is its mean and the landmark's spread its standard deviation, both in
pixels of the image (integral regression, Sun et al., ECCV 2018).

Shapes: N images, C channels, H × W pixels, L landmarks.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pad

LANDMARKS = ("left_corner", "right_corner", "pupil", "iris_left", "iris_right")
"""Left and right as the image shows them. In a left eye, as all sources have them, the left corner
is the inner one: its tip, beyond the caruncle. The iris' points are its contour's farthest ones."""
CANVAS = (48, 72)
"""Height and width of what the network looks at."""
FITTED = (40, 60)
"""Height and width of the part of the canvas into which an image is fitted; landmarks are found a
little beyond the image's edges too."""
CELL_PX = 2
"""Side of a heat map's cell, in pixels of the canvas."""
_TARGET_SD_CELLS = 1.0
"""Standard deviation of the peak that a heat map should show, in cells."""
_WIDTHS = (24, 40, 64)
"""Feature maps at each size."""


class Fit(NamedTuple):
    """Placement of an image of H × W pixels in the canvas."""

    height: int
    """Of the fitted image, in pixels of the canvas."""
    width: int
    scale: tuple[float, float]
    """Pixels of the canvas in one of the image, along x and y."""
    origin: tuple[int, int]
    """Place of the image's top-left corner in the canvas, x and y."""


def fit(height: int, width: int) -> Fit:
    """Return the place in the canvas of images of H × W pixels: as large as `FITTED` allows."""
    ratio = min(FITTED[0] / height, FITTED[1] / width)
    rows, columns = max(1, round(height * ratio)), max(1, round(width * ratio))
    origin = ((CANVAS[1] - columns) // 2, (CANVAS[0] - rows) // 2)
    return Fit(rows, columns, (columns / width, rows / height), origin)


def to_canvas(images: Tensor) -> Tensor:
    """Fit images [N, C, H, W], of any range, into canvases [N, 1, 48, 72].

    Grey, without mean and of unit spread, so that light and contrast do not matter; the outermost
    pixels go on beyond the image.
    """
    grey = images.float().mean(dim=1, keepdim=True)
    place = fit(*grey.shape[2:])
    size = (place.height, place.width)
    if grey.shape[2:] != size:
        grey = interpolate(grey, size, mode="bilinear", antialias=True)
    (left, top), (height, width) = place.origin, CANVAS
    around = (left, width - place.width - left, top, height - place.height - top)
    return normalized(pad(grey, around, mode="replicate"))


def normalized(images: Tensor) -> Tensor:
    """Return images [N, 1, H, W] less their own mean, divided by their own spread."""
    spread, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
    return (images - mean) / spread.clamp(min=1e-3)


class LandmarkNetwork(nn.Module):
    """Canvases [N, 1, 48, 72], normalised, to heat maps [N, L, 24, 36], as logarithms."""

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = _WIDTHS
        self.stem = _block(1, fine, stride=2)
        self.fine = _block(fine, fine)
        self.middle = nn.Sequential(_block(fine, middle), _block(middle, middle))
        self.coarse = nn.Sequential(
            _block(middle, coarse), _block(coarse, coarse), _block(coarse, middle)
        )
        self.join_middle = _block(middle, fine)
        self.join_fine = _block(fine, fine)
        self.maps = nn.Conv2d(fine, len(LANDMARKS), kernel_size=1)

    def forward(self, canvases: Tensor) -> Tensor:
        """Return the heat maps of canvases."""
        fine = self.fine(self.stem(canvases))
        middle = self.middle(max_pool2d(fine, 2))
        coarse = self.coarse(max_pool2d(middle, 2))
        middle = self.join_middle(middle + interpolate(coarse, scale_factor=2.0))
        joined = self.join_fine(fine + interpolate(middle, scale_factor=2.0))
        maps: Tensor = self.maps(joined)
        return maps


def heat_map_targets(points: Tensor) -> Tensor:
    """Draw a Gaussian that sums to 1 around each point [N, L, 2], in pixels of the canvas."""
    height, width = (side // CELL_PX for side in CANVAS)
    x, y = (points / CELL_PX).unbind(dim=2)
    across, down = (_bell(at, cells) for at, cells in ((x, width), (y, height)))
    return down[..., :, None] * across[..., None, :]


def heat_map_loss(logs: Tensor, points: Tensor) -> Tensor:
    """Return the mean cross-entropy of maps [N, L, 24, 36] and points [N, L, 2], less its least.

    Points outside the canvas do not count.
    """
    targets = heat_map_targets(points).flatten(2)
    entropy = -(targets * torch.log_softmax(logs.float().flatten(2), dim=2)).sum(dim=2)
    least = -(targets * targets.clamp(min=1e-20).log()).sum(dim=2)
    size = torch.tensor([CANVAS[1], CANVAS[0]], device=points.device)
    inside = ((points > 0) & (points < size)).all(dim=2)
    return ((entropy - least) * inside).sum() / inside.sum().clamp(min=1)


def means_and_spreads(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean [N, L, 2] (x, y) and standard deviation [N, L] of maps, in canvas pixels.

    The spread is beyond the peaks' own, the root of the mean variance of x and y.
    """
    maps = torch.softmax(logs.float().flatten(2), dim=2).view_as(logs)
    means, variances = [], torch.zeros(logs.shape[:2], device=logs.device)
    for along in (2, 3):
        shares = maps.sum(dim=5 - along)
        place = CELL_PX * (torch.arange(shares.shape[2], device=logs.device) + 0.5)
        mean = (shares * place).sum(dim=2)
        variances += (shares * (place - mean[..., None]) ** 2).sum(dim=2) / 2
        means.append(mean)
    own = (_TARGET_SD_CELLS * CELL_PX) ** 2
    return torch.stack(means[::-1], dim=2), (variances - own).clamp(min=0).sqrt()


def _bell(at: Tensor, cells: int) -> Tensor:
    """Return Gaussians [N, L, cells] around places [N, L], in cells, that sum to 1."""
    place = torch.arange(cells, dtype=torch.float32, device=at.device) + 0.5
    return torch.softmax(-0.5 * ((place - at[..., None]) / _TARGET_SD_CELLS) ** 2, dim=2)


def _block(num_in: int, num_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(num_out),
        nn.ReLU(inplace=True),
    )
