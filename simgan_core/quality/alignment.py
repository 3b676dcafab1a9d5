"""Alignment of two domains by registration of their mean images.

A refiner cannot move anything, and an estimator learns where things are: a pixel of misalignment
at 55 pixels is about 3° of gaze. So the crops have to match before anything is trained.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.data.augmentation import shift_and_scale
from simgan_core.data.images import to_network

_REFERENCE_WIDTH_PX = 55
_MAX_SHIFT_PX, _MAX_SCALE = 6.0, 0.4
"""Range of the search, in pixels of an image of that width, and as a share of the scale:
eyes of MPIIGaze are a quarter larger than those of SynthesEyes."""
_LEAST_CORRELATION = 0.5
"""Of mean images that show the same thing: with less, the best place found means little."""
_STEPS_EACH_WAY = 4
_ROUNDS = 6
"""Each round looks at a grid about the best place so far, at half the last one's spacing."""
_TOLERATED_SHIFT_PX, _TOLERATED_SCALE = 0.75, 0.05
"""Beyond these the crops of images that are alike do not match: more than 2° of gaze, or one eye
in twenty wider. Unlike ones are registered less well: crops that match were found 0.9 px apart at a
correlation of 0.6."""


@dataclass(frozen=True)
class Alignment:
    """Shift and scale that align the synthetic mean image with the real one."""

    shift_x_px: float
    """To the right."""
    shift_y_px: float
    """Down."""
    scale: float
    """Enlargement about the centre."""
    correlation: float
    """Of the two mean images then, 1 for the same picture."""
    image_width: int

    def warning(self) -> str:
        """Return a warning with its remedy; empty where the crops match."""
        if self.correlation < _LEAST_CORRELATION:
            return (
                "the mean images of the two domains are too unlike to tell whether their crops "
                f"match (correlation {self.correlation:.2f} at best): look at domains_mean_images"
            )
        unit_px = self.image_width / _REFERENCE_WIDTH_PX
        most_px = _TOLERATED_SHIFT_PX * unit_px / self.correlation
        found = {
            f"{self.shift_x_px:+.1f} px to the right": abs(self.shift_x_px) > most_px,
            f"{self.shift_y_px:+.1f} px down": abs(self.shift_y_px) > most_px,
            f"{self.scale:.2f} times as large": abs(self.scale - 1)
            > _TOLERATED_SCALE / self.correlation,
        }
        wrong = [what for what, beyond in found.items() if beyond]
        if not wrong:
            return ""
        return (
            f"the crops of the two domains do not match: real eyes are {', '.join(wrong)} compared "
            "with synthetic ones, and a pixel is about 3° of gaze; ingest both by one crop rule"
        )


def mean_image(images: Tensor) -> Tensor:
    """Return the mean [H, W] of pixels [N, H, W, C] over images and channels, in [−1, 1]."""
    parts = [to_network(part).sum(dim=(0, 1)) for part in torch.split(images, 1024)]
    return torch.div(torch.stack(parts).sum(dim=0), len(images) * images.shape[3])


def align(synthetic_mean: Tensor, real_mean: Tensor) -> Alignment:
    """Register two mean images [H, W]: the shift and scale of the greatest correlation.

    Correlation ignores brightness and contrast, and both images lose their broad shades first, so
    that other light does not look like another place.
    """
    synthetic, real = _without_shades(synthetic_mean), _without_shades(real_mean)
    width = real.shape[1]
    reach = torch.tensor([_MAX_SHIFT_PX, _MAX_SHIFT_PX, _MAX_SCALE])
    reach[:2] *= width / _REFERENCE_WIDTH_PX
    grid = torch.linspace(-1, 1, 2 * _STEPS_EACH_WAY + 1)
    offsets = torch.cartesian_prod(grid, grid, grid)
    best, correlation = torch.tensor([0.0, 0.0, 1.0]), torch.tensor(0.0)
    centre, farthest = best, reach
    for _ in range(_ROUNDS):
        places = torch.clamp(best + offsets * reach, centre - farthest, centre + farthest)
        images = synthetic.expand(len(places), 1, *synthetic.shape).contiguous()
        moved = shift_and_scale(images, places[:, :2], places[:, 2])
        found = _correlation(moved[:, 0], real)
        best, correlation = places[found.argmax()], found.max()
        reach = reach / 2
    shift_x_px, shift_y_px, scale = best.tolist()
    return Alignment(shift_x_px, shift_y_px, scale, correlation.item(), width)


def _without_shades(image: Tensor) -> Tensor:
    """Remove structures broader than a third of the height."""
    side = image.shape[0] // 3 | 1
    broad = functional.avg_pool2d(
        image[None, None], side, stride=1, padding=side // 2, count_include_pad=False
    )
    return image - broad[0, 0]


def _correlation(images: Tensor, other: Tensor) -> Tensor:
    """Return the correlation of each [N, H, W] with one [H, W], over all but the margin."""
    margin = other.shape[0] // 8
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    ours, theirs = images[inside].flatten(1), other[inside].flatten()
    ours, theirs = ours - ours.mean(dim=1, keepdim=True), theirs - theirs.mean()
    return torch.div(ours @ theirs, (ours.norm(dim=1) * theirs.norm()).clamp(min=1e-9))
