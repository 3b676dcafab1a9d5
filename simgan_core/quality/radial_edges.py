"""Edges along rays from a point of an image, such as the middle of an eye's pupil.

Shapes: N images, R rays, K places along a ray. Images are the last axis of arrays: where rays begin
anywhere between pixels, only the smoothing differs from image to image, and all places are read in
sweeps over many images at once. The arrays are numpy's or torch's, and so are the edges.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simgan_core.compute.array_api import Array, library_of

FloatArray = NDArray[np.floating[Any]]

# Lengths are pixels of an image 55 pixels wide, and scale with the width.
WIDTH_PX = 55
STEP_PX = 0.5
RAY_PX = np.arange(0.5, 12.25, STEP_PX, dtype=np.float32)
"""Places along a ray, as distances from where it begins [K]."""
_BLUR_PX = 0.5
"""Standard deviation of the smoothing before derivatives are taken."""
_NUM_RAYS = 32
"""Of a whole turn."""


def _ray_angles_and_weights() -> tuple[FloatArray, FloatArray]:
    """Return the rays' angles [R], clockwise from the image's right, and how much each counts."""
    angles = (2 * np.pi / _NUM_RAYS * np.arange(_NUM_RAYS)).astype(np.float32)
    downward = np.sin(angles)
    weights = np.select([downward < -0.5, downward > 0.75], [0.0, 0.6], 1.0).astype(np.float32)
    return angles[weights > 0], weights[weights > 0]


ANGLES, RAY_WEIGHTS = _ray_angles_and_weights()


def radial_edges(grey: Array, centre_px: Array, scale: float) -> Array:
    """Return how strongly grey levels rise outward, 0 to 1, along every ray, float32 [R, K, N].

    Images are [N, H, W], the rays begin at x, y `centre_px` [2, N], and `scale` is a ray's unit in
    pixels.

    The measure is the image's own: a rise of three times the root mean square of all rays counts
    as 1, and so does a stronger one, so that no single edge rules the fit.
    """
    xp = library_of(grey)
    samples = _samples(xp, grey.device, scale)
    pixels = _smoothed_round(grey, centre_px, samples.rows, samples.columns, _BLUR_PX * scale)
    shape = (samples.num_samples, len(grey))
    levels = xp.zeros(shape, dtype=xp.float32, device=grey.device)
    taken = xp.empty_like(levels)
    for corner, share in samples.corners_and_shares:
        _take_rows(pixels, corner, out=taken)
        taken *= share
        levels += taken
    levels = levels.reshape(len(ANGLES), -1, len(grey))
    rise = levels[:, 2:] - levels[:, :-2]
    xp.clip(rise, 0, None, out=rise)
    typical = xp.sqrt(xp.square(rise).sum(axis=(0, 1)) / (rise.shape[0] * rise.shape[1]))
    rise *= 1 / (3 * typical + 2e-3)
    return xp.clip(rise, None, 1, out=rise)


def _take_rows(rows: Array, chosen: Array, out: Array) -> None:
    """Copy the chosen rows [M] of an array [·, N] to `out` [M, N]: the two libraries' own ways."""
    if isinstance(rows, torch.Tensor):
        torch.index_select(rows, 0, chosen, out=out)
    else:
        # Any mode but "raise" writes to `out` at once.
        np.take(rows, chosen, axis=0, out=out, mode="clip")


@dataclass(frozen=True)
class _Samples:
    """Sample positions of the rays on a grid of pixels whose (0, 0) is their centre."""

    rows: range
    columns: range
    """The pixels of the grid that are needed."""
    num_samples: int
    """R·(K + 2)."""
    corners_and_shares: tuple[tuple[Array, Array], ...]
    """The four pixels round each place, counted row by row, int64 [R·(K + 2)], and the share that
    each has in it, float32 [R·(K + 2), 1]."""


@lru_cache(maxsize=8)
def _samples(library: ModuleType, device: torch.device | str, scale: float) -> _Samples:
    """Place samples on the rays, one more at either end for derivatives, in a device's arrays."""
    reach = scale * np.concatenate([RAY_PX[:1] - STEP_PX, RAY_PX, RAY_PX[-1:] + STEP_PX])
    x, y = (np.outer(slope, reach).ravel() for slope in (np.cos(ANGLES), np.sin(ANGLES)))
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    rows = range(int(row.min()), int(row.max()) + 2)
    columns = range(int(column.min()), int(column.max()) + 2)
    right, below = ((x - column).astype(np.float32)[:, None], (y - row).astype(np.float32)[:, None])
    upper_left = (row - rows.start) * len(columns) + column - columns.start
    corners_and_shares = (
        (upper_left, (1 - right) * (1 - below)),
        (upper_left + 1, right * (1 - below)),
        (upper_left + len(columns), (1 - right) * below),
        (upper_left + len(columns) + 1, right * below),
    )
    placed = tuple(
        (library.asarray(corner, device=device), library.asarray(share, device=device))
        for corner, share in corners_and_shares
    )
    return _Samples(rows, columns, len(upper_left), placed)


def _smoothed_round(
    grey: Array, centre_px: Array, rows: range, columns: range, sd_px: float
) -> Array:
    """Return images [N, H, W] smoothed by a bell, on a grid of pixels round each centre.

    The centre [2, N] is (0, 0) of the grid, wherever it lies between the image's pixels; the answer
    is float32 [rows · columns, N]. The image's edges are repeated.
    """
    xp, device = library_of(grey), grey.device
    num_images, height, width = grey.shape
    # The centre's own pixel, and how far from that pixel's middle it is.
    corner = xp.floor(centre_px)
    reach = math.ceil(3 * sd_px - 0.5)
    taps = xp.arange(-reach, reach + 1, dtype=xp.float32, device=device)[:, None, None]
    kernels = _bell((taps - (centre_px - 0.5 - corner)) / (2 * sd_px))
    kernels /= kernels.sum(axis=0)
    positions = []
    for axis, needed, size in ((0, columns, width), (1, rows, height)):
        span = (needed.start - reach, needed.stop + reach)
        offsets = xp.arange(*span, dtype=xp.float32, device=device)[:, None]
        inside = (corner[axis] + offsets).clip(0, size - 1)
        positions.append(xp.asarray(inside, dtype=xp.int64))
    x, y = positions
    rows_begin = xp.arange(num_images, device=device) * (height * width) + y * width
    pixels = xp.asarray(grey.reshape(-1).take(rows_begin[:, None] + x), dtype=xp.float32)
    for axis, size in ((1, len(columns)), (0, len(rows))):
        shifted = xp.moveaxis(pixels, axis, 0)
        smooth = shifted[:size] * kernels[0, 1 - axis]
        for tap, kernel in enumerate(kernels[1:, 1 - axis], start=1):
            smooth += shifted[tap : tap + size] * kernel
        pixels = xp.moveaxis(smooth, 0, axis)
    return pixels.reshape(-1, num_images)


def _bell(distance: Array) -> Array:
    """Return the quadratic B-spline: of standard deviation 1/2, and 0 beyond 3/2.

    Unlike a Gaussian's few taps, its three keep sum, mean and variance wherever the middle is.
    """
    xp = library_of(distance)
    distance = xp.abs(distance)
    tail = 0.5 * (1.5 - distance).clip(0) ** 2
    return xp.where(distance < 0.5, 0.75 - distance * distance, tail)
