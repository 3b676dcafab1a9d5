"""Random views of eyes for the landmark network: other crops, cameras, lights, and glasses.

Landmarks move with the picture. Shapes: N images, L landmarks.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from simgan_core.landmarks.network import CANVAS, FITTED

_EYE_WIDTH_PX = (25.0, 62.0)
"""Distances of the corners, in pixels of the canvas."""
_SHIFT_PX = (11.0, 8.0)
"""Farthest that the corners' midpoint is from the canvas's middle, along x and y."""
_TURN_DEG = 10.0
_STRETCH = 0.2
"""Largest difference of the scales along x and y, as a share."""
_WIDENING = (0.95, 1.5)
"""Stretch of the eye beyond the iris, on either side: people's corners are 2.8 to 2.9 diameters of
the iris apart, simulators' 2.1 to 2.2, and a network that has seen no wider eyes finds the outer
corner too near to the iris."""
_ASPECT_RATIOS = (1.2, 1.8)
"""Widths over heights of the images that canvases show."""


def random_views(images: Tensor, points: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return random canvases [N, 1, 48, 72], not normalised, and the landmarks in them [N, L, 2].

    `images` [N, 1, H, W] are in 0…1 and `points` [N, L, 2] in their pixels, the corners first.
    `generator` is on the CPU, so that the numbers are the same on every device.
    """
    canvases, moved = random_crops(images, points, generator)
    return random_photographs(canvases, generator), moved


def random_crops(images: Tensor, points: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return canvases and landmarks as `random_views`, seen by the same camera as before."""
    draw = _Draws(len(images), generator, images.device)
    mirrored = draw.chance(0.3)
    images = torch.where(mirrored, images.flip(3), images)
    points = torch.where(mirrored[:, 0], _mirrored_points(points, images.shape[3]), points)
    iris, factors = _iris(points), draw.between(*_WIDENING, 1, 2)
    points = torch.stack([_widened(points[..., 0], iris, factors), points[..., 1]], dim=2)
    turn, middle, target = _placements(points, draw)
    moved = ((points - middle) @ turn.transpose(1, 2)) + target
    source = _source(turn, middle, target, draw)
    # The other way round: what is shown at a place was nearer to the iris.
    x = _widened(source[..., 0], iris, 1 / factors)
    return _sampled(images, torch.stack([x, source[..., 1]], dim=2)), moved


class _Draws:
    """Random numbers for each image of a batch."""

    def __init__(self, count: int, generator: torch.Generator, device: torch.device) -> None:
        self._count, self._generator, self._device = count, generator, device

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        """Draw uniform numbers [N, …]; [N, 1, 1, 1] where no shape is given."""
        drawn = torch.rand(self._count, *(shape or (1, 1, 1)), generator=self._generator)
        return (low + (high - low) * drawn).to(self._device)

    def chance(self, share: float) -> Tensor:
        """Draw bool [N, 1, 1, 1], true for this share."""
        return self.between(0, 1) < share

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers [N, …]."""
        drawn = torch.randn(self._count, *shape, generator=self._generator)
        return drawn.to(self._device)


def _mirrored_points(points: Tensor, width: int) -> Tensor:
    """Return the landmarks of mirrored images: left and right ones change places."""
    swapped = points[:, [1, 0, 2, 4, 3]]
    return torch.stack([width - swapped[..., 0], swapped[..., 1]], dim=2)


def _iris(points: Tensor) -> Tensor:
    """Return the middle and half the width of irises [N, 1, 2], in pixels along x."""
    left, right = points[:, 3:4, 0], points[:, 4:5, 0]
    return torch.stack([(left + right) / 2, (right - left) / 2], dim=2)


def _widened(x: Tensor, iris: Tensor, factors: Tensor) -> Tensor:
    """Stretch places [N, P] along x that lie to the left or right of irises by factors [N, 1, 2].

    The inverse has the inverse factors: iris and its middle stay where they are.
    """
    middle, half = iris.unbind(dim=2)
    off = x - middle
    beyond = (off.abs() - half).clamp(min=0)
    factor = torch.where(off < 0, factors[..., 0], factors[..., 1])
    return x + off.sign() * beyond * (factor - 1)


def _placements(points: Tensor, draw: _Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Return matrices [N, 2, 2], midpoints of the corners [N, 1, 2], and where these come to lie.

    A point p of an image is at matrix · (p − midpoint) + place in the canvas.
    """
    apart = (points[:, 1] - points[:, 0]).norm(dim=1).clamp(min=1)
    low, high = (math.log(px) for px in _EYE_WIDTH_PX)
    scale = draw.between(low, high, 1)[:, 0].exp() / apart
    stretch = (_STRETCH / 2 * draw.between(-1, 1, 1)[:, 0]).exp()
    angle = math.radians(_TURN_DEG) * draw.between(-1, 1, 1)[:, 0]
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    matrix = turn * torch.stack([scale * stretch, scale / stretch], dim=1)[:, None, :]
    middle = points[:, :2].mean(dim=1, keepdim=True)
    centre = torch.tensor([CANVAS[1] / 2, CANVAS[0] / 2], device=points.device)
    farthest = torch.tensor(_SHIFT_PX, device=points.device)
    return matrix, middle, centre + farthest * draw.between(-1, 1, 1, 2)


def _source(turn: Tensor, middle: Tensor, target: Tensor, draw: _Draws) -> Tensor:
    """Return where the pixels of canvases [N, 48 · 72, 2] lie in images cut to random shapes."""
    height, width = CANVAS
    y, x = torch.meshgrid(
        torch.arange(height, device=turn.device) + 0.5,
        torch.arange(width, device=turn.device) + 0.5,
        indexing="ij",
    )
    # Beyond the image that the canvas shows, its outermost pixels go on, as in `to_canvas`.
    ratio = draw.between(*_ASPECT_RATIOS, 1, 1)
    half_height = torch.clamp(FITTED[1] / ratio, max=FITTED[0]) / 2
    half_width = (half_height * ratio).clamp(max=FITTED[1] / 2)
    x = ((x - width / 2).clamp(min=-(half_width - 0.5), max=half_width - 0.5)) + width / 2
    y = ((y - height / 2).clamp(min=-(half_height - 0.5), max=half_height - 0.5)) + height / 2
    shown = torch.stack([x, y], dim=3).flatten(1, 2)
    back: Tensor = torch.linalg.inv(turn).transpose(1, 2)
    return (shown - target) @ back + middle


def _sampled(images: Tensor, places: Tensor) -> Tensor:
    """Return canvases [N, 1, 48, 72] of what images show at places [N, 48 · 72, 2], in pixels."""
    size = torch.tensor([images.shape[3], images.shape[2]], device=images.device)
    grid = (places / size * 2 - 1).view(len(images), *CANVAS, 2)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def random_photographs(canvases: Tensor, generator: torch.Generator) -> Tensor:
    """Return canvases [N, 1, H, W] under other lights, behind glasses, and by other cameras."""
    draw = _Draws(len(canvases), generator, canvases.device)
    height, width = canvases.shape[2:]
    y = torch.linspace(-1, 1, height, device=canvases.device)[:, None]
    x = torch.linspace(-1, 1, width, device=canvases.device)
    seen = canvases.clamp(0.004, 1) ** draw.between(-0.8, 0.8).exp()
    shade = 0.6 * (draw.between(-1, 1) * x + draw.between(-1, 1) * y)
    seen = seen * shade.exp()
    for _ in range(2):
        # Rims and temples of glasses, brows and shadows: bars, dark or bright, of any direction.
        angle, away = draw.between(0, math.pi), draw.between(0.25, 1.1)
        sign = torch.where(draw.chance(0.5), 1.0, -1.0)
        distance = (x * angle.cos() + y * angle.sin() - sign * away).abs()
        bar = torch.sigmoid((draw.between(0.02, 0.12) - distance) * 40)
        strength = bar * draw.between(0.3, 1) * draw.chance(0.25)
        seen = seen + strength * (draw.between(-0.1, 1.1) - seen)
    # Reflections: bright spots.
    far = ((x - draw.between(-1, 1)) * 1.5) ** 2 + (y - draw.between(-1, 1)) ** 2
    spot = torch.sigmoid((draw.between(0.01, 0.08) - far) * 60) * draw.chance(0.2)
    seen = seen + spot * draw.between(0.3, 0.9) * (1.2 - seen)
    soft = draw.chance(0.6).flatten()
    seen[soft] += draw.between(0, 1)[soft] * (_blurred(seen[soft]) - seen[soft])
    blurred = draw.chance(0.25).flatten()
    seen[blurred] = _blurred(_blurred(seen[blurred]))
    spread = seen.std(dim=(1, 2, 3), keepdim=True)
    seen = seen + spread * draw.between(0, 0.12) * draw.chance(0.7) * draw.normal(1, height, width)
    equalized = draw.chance(0.35).flatten()
    seen[equalized] = _equalized(seen[equalized])
    return seen


def _blurred(images: Tensor) -> Tensor:
    """Blur by a box of 3 × 3, twice."""
    for _ in range(2):
        images = avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return images


def _equalized(images: Tensor) -> Tensor:
    """Equalise the histograms of images, as MPIIGaze's are; values become shares, 0…1."""
    flat = images.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    levels = ((flat - low) * (255 / (high - low).clamp(min=1e-6))).round().long()
    counts = torch.zeros(len(flat), 256, device=flat.device)
    counts.scatter_add_(1, levels, torch.ones_like(flat))
    shares = counts.cumsum(dim=1) / flat.shape[1]
    return shares.gather(1, levels).view_as(images)
