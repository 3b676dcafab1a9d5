"""Registration of refined images to their synthetic ones round the pupil, in steps of 2 pixels.

The pupil fit finds a centre within some 2 pixels of where it starts. An eye that refinement moved
farther lies beyond its reach, or the fit settles on another edge beside the label and calls the
move small. So the move is first looked for as a whole: as the shift of the gradients round the
label with the largest normalised cross-correlation. Gradients keep their sign where refinement
changes tones and lights, and an iris is all edges.

Shapes: N images; h, w cells of an image on the coarse grid. Images are the last axis of what is
cut out round the labels, as in the pupil fit. Arrays are numpy's or torch's.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from simgan_core.compute.array_api import Array, library_of, on_host
from simgan_core.errors import InputError

# Lengths are pixels of an image 55 pixels wide, and scale with the width.
_WIDTH_PX = 55
_CELL_PX = 2.0
"""Side of a cell; what is left over is within the pupil fit's reach."""
_BELL_PX = 6.0
"""Standard deviation of the weight round the label: an iris's radius, so that lids count less."""
_REACH_CELLS = 4
"""Half width of the square that is compared."""
_MAX_CELLS = 3
"""Largest shift that is looked for, on either axis."""
_MARGIN = 0.15
"""Correlation by which a shift has to be better than none. Light irises turned dark alone gain as
much in 1% of the built-in simulator's eyes."""
_CPU_BLOCK, _CPU_BLOCK_VALUES = 256, 2**20
"""Most images compared at once, and most values of their pixels: they stay in a core's cache."""
_GPU_BLOCK, _GPU_BLOCK_VALUES = 16384, 2**25
"""Likewise on a GPU, where each step is a kernel however many images it has, and needs some 5 bytes
for each value."""


def displacement_px(before: Array, after: Array, centre_px: ArrayLike) -> NDArray[np.float32]:
    """Return how far what is round a point moved between two images, coarsely, [N, 2] as x, y.

    Images are [N, H, W, C] of one shape, uint8 or uint16, arrays or tensors on one device;
    `centre_px` [N, 2] are the points (0, 0 is the image's top-left corner). Moves are multiples of
    2 px at a width of 55, up to 6 on each axis, and 0 where no move is clearly better than none,
    or where the point is not finite. Refined minus synthetic: positive to the right and down.

    Raises InputError where the shapes disagree.
    """
    centre = np.asarray(centre_px, np.float32)
    if before.ndim != 4 or before.shape != after.shape or centre.shape != (len(before), 2):
        raise InputError(
            "registration needs two sets of images [N, H, W, C] of one shape and a point [N, 2] "
            f"for each, found {tuple(before.shape)}, {tuple(after.shape)} and {centre.shape}"
        )
    moved = np.zeros_like(centre)
    known = np.asarray(np.isfinite(centre).all(axis=1))
    centre = np.where(known[:, None], centre, 0)
    size = _block_size(before)
    for first in range(0, len(before), size):
        rows = slice(first, first + size)
        moved[rows] = on_host(_shift_cells(before[rows], after[rows], centre[rows]))
    moved[~known] = 0
    return moved * np.float32(_CELL_PX * before.shape[2] / _WIDTH_PX)


def _block_size(images: Array) -> int:
    """Return how many images are compared at once, which depends on their shape alone."""
    on_cpu = library_of(images) is np
    most = _CPU_BLOCK if on_cpu else _GPU_BLOCK
    values = _CPU_BLOCK_VALUES if on_cpu else _GPU_BLOCK_VALUES
    values_each: int = math.prod(images.shape[1:])
    return min(most, max(1, values // values_each))


def _shift_cells(before: Array, after: Array, centre_px: NDArray[np.float32]) -> Array:
    """Return the shifts of some images in cells [N, 2], as x, y."""
    xp = library_of(before)
    grid = _grid(xp, before.device, before.shape[1], before.shape[2])
    cells = np.floor(centre_px / grid.cell_px).astype(np.int64)
    cells = np.clip(cells, 0, [grid.columns.shape[1] - 1, grid.rows.shape[0] - 1])
    reach = _REACH_CELLS + _MAX_CELLS
    template, target = (
        _cut_out(_gradients(grid, images), cells, reach) for images in (before, after)
    )
    template = template[:, _MAX_CELLS:-_MAX_CELLS, _MAX_CELLS:-_MAX_CELLS] * grid.bell
    energy = xp.square(target).sum(axis=0)
    correlations = []
    for rows, columns in _squares():
        # The template's own length is the same for all shifts.
        product = (template * target[:, rows, columns]).sum(axis=(0, 1, 2))
        length = (energy[rows, columns] * grid.bell[0]).sum(axis=(0, 1))
        correlations.append(product / xp.sqrt(length + 1e-6))
    found = xp.stack(correlations)
    own = xp.sqrt((template * template / grid.bell).sum(axis=(0, 1, 2)) + 1e-6)
    found /= own
    best = xp.argmax(found, axis=0)
    none = len(grid.shifts) // 2
    better = found.max(axis=0) if xp is np else found.amax(dim=0)
    return grid.shifts[xp.where(better > found[none] + _MARGIN, best, none)]


def _squares() -> Iterator[tuple[slice, slice]]:
    """Return the squares of the target that each shift compares with the template."""
    size = 2 * _REACH_CELLS + 1
    for y in range(2 * _MAX_CELLS + 1):
        for x in range(2 * _MAX_CELLS + 1):
            yield slice(y, y + size), slice(x, x + size)


class _Grid:
    """Constants of the coarse grid over images of one size, in a device's arrays."""

    def __init__(self, library: ModuleType, device: torch.device | str, height: int, width: int):
        self.cell_px = _CELL_PX * width / _WIDTH_PX
        self.rows = library.asarray(_mean_of_cells(height, self.cell_px), device=device)
        """Means over an image's rows [h, H]."""
        self.columns = library.asarray(_mean_of_cells(width, self.cell_px).T, device=device)
        """Means over an image's columns [W, w]."""
        offsets = np.arange(-_REACH_CELLS, _REACH_CELLS + 1) * (_CELL_PX / _BELL_PX)
        bell = np.exp(-0.5 * (offsets[:, None] ** 2 + offsets**2)).astype(np.float32)
        self.bell = library.asarray(bell[None, :, :, None], device=device)
        """Weight round the label [1, 2 · reach + 1, 2 · reach + 1, 1]."""
        steps = np.arange(-_MAX_CELLS, _MAX_CELLS + 1, dtype=np.float32)
        shifts = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        self.shifts = library.asarray(shifts, device=device)
        """Shifts in cells as x, y, in the order of `_squares` [S, 2]."""


@lru_cache(maxsize=8)
def _grid(library: ModuleType, device: torch.device | str, height: int, width: int) -> _Grid:
    return _Grid(library, device, height, width)


def _mean_of_cells(size: int, cell_px: float) -> NDArray[np.float32]:
    """Return the share of each pixel in each cell's mean [cells, size]; the last may be cut off."""
    first = np.arange(math.ceil(size / cell_px))[:, None] * cell_px
    pixel = np.arange(size)
    inside = np.clip(np.minimum(first + cell_px, pixel + 1) - np.maximum(first, pixel), 0, None)
    share: NDArray[np.float32] = (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
    return share


def _gradients(grid: _Grid, images: Array) -> Array:
    """Return the central differences of the cells' grey levels [2, N, h, w], across and down."""
    xp = library_of(images)
    grey = images[..., 0] if images.shape[3] == 1 else images.mean(axis=-1, dtype=xp.float32)
    coarse = grid.rows @ xp.asarray(grey, dtype=xp.float32) @ grid.columns
    gradients = xp.zeros((2, *coarse.shape), dtype=xp.float32, device=images.device)
    gradients[0, :, :, 1:-1] = coarse[:, :, 2:] - coarse[:, :, :-2]
    gradients[1, :, 1:-1] = coarse[:, 2:] - coarse[:, :-2]
    return gradients


def _cut_out(gradients: Array, cells: NDArray[np.int64], reach: int) -> Array:
    """Return squares round the cells [N, 2], [2, 2 · reach + 1, 2 · reach + 1, N], 0 outside."""
    xp, (_, num_images, height, width) = library_of(gradients), gradients.shape
    around = np.arange(-reach, reach + 1)[:, None]
    x, y = cells[:, 0] + around, cells[:, 1] + around
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    index = np.clip(y, 0, height - 1)[:, None] * width + np.clip(x, 0, width - 1)
    index += np.arange(num_images) * (height * width)
    placed = xp.asarray(index, device=gradients.device)
    shown = xp.asarray(inside.astype(np.float32), device=gradients.device)
    return xp.stack([plane.reshape(-1).take(placed) * shown for plane in gradients])
