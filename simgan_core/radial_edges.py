"""Edges along rays from a point of an image, such as the middle of an eye's pupil.

Shapes: N images, R rays, K places along a ray. Images are the last axis of arrays: where rays begin
anywhere between pixels, only the smoothing differs from image to image, and all places are read in
sweeps over many images at once.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def radial_edges(grey: NDArray[Any], centre_px: FloatArray, scale: float) -> FloatArray:
    """Return how strongly grey levels rise outward, 0 to 1, along every ray [R, K, N].

    Images are [N, H, W], the rays begin at x, y `centre_px` [2, N], and `scale` is a ray's unit in
    pixels.

    The measure is the image's own: a rise of three times the root mean square of all rays counts
    as 1, and so does a stronger one, so that no single edge rules the fit.
    """
    samples = _samples(scale)
    pixels = _smoothed_round(grey, centre_px, samples.rows, samples.columns, _BLUR_PX * scale)
    levels: FloatArray = np.zeros((len(samples.first), len(grey)), np.float32)
    taken = np.empty_like(levels)
    for after, share in samples.shares:
        # Any mode but "raise" writes to `out` at once.
        np.take(pixels, samples.first + after, axis=0, out=taken, mode="clip")
        taken *= share
        levels += taken
    levels = levels.reshape(len(ANGLES), -1, len(grey))
    rise = levels[:, 2:] - levels[:, :-2]
    np.maximum(rise, 0, out=rise)
    typical = np.sqrt(np.square(rise).sum(axis=(0, 1)) / (rise.shape[0] * rise.shape[1]))
    rise *= 1 / (3 * typical + 2e-3)
    return np.asarray(np.minimum(rise, 1, out=rise))


@dataclass(frozen=True)
class _Samples:
    """Where the rays' places lie on a grid of pixels whose (0, 0) is the centre of the rays."""

    rows: range
    columns: range
    """The pixels of the grid that are needed."""
    first: NDArray[np.intp]
    """The upper left one of the four round each place, counted row by row [R·(K + 2)]."""
    shares: tuple[tuple[int, FloatArray], ...]
    """How far after it each of the four is, and its share [R·(K + 2), 1]."""


@lru_cache(maxsize=4)
def _samples(scale: float) -> _Samples:
    """Place samples on the rays, one more at either end for derivatives."""
    reach = scale * np.concatenate([RAY_PX[:1] - STEP_PX, RAY_PX, RAY_PX[-1:] + STEP_PX])
    x, y = (np.outer(slope, reach).ravel() for slope in (np.cos(ANGLES), np.sin(ANGLES)))
    column, row = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    rows = range(int(row.min()), int(row.max()) + 2)
    columns = range(int(column.min()), int(column.max()) + 2)
    right, below = ((x - column).astype(np.float32)[:, None], (y - row).astype(np.float32)[:, None])
    shares = (
        (0, (1 - right) * (1 - below)),
        (1, right * (1 - below)),
        (len(columns), (1 - right) * below),
        (len(columns) + 1, right * below),
    )
    first = (row - rows.start) * len(columns) + column - columns.start
    return _Samples(rows, columns, first, shares)


def _smoothed_round(
    grey: NDArray[Any], centre_px: FloatArray, rows: range, columns: range, sd_px: float
) -> FloatArray:
    """Return images [N, H, W] smoothed by a bell, on a grid of pixels round each centre.

    The centre [2, N] is (0, 0) of the grid, wherever it lies between the image's pixels; the answer
    is [rows · columns, N]. The image's edges are repeated.
    """
    num_images, height, width = grey.shape
    # The centre's own pixel, and how far from that pixel's middle it is.
    corner = np.floor(centre_px)
    reach = math.ceil(3 * sd_px - 0.5)
    taps = np.arange(-reach, reach + 1, dtype=np.float32)[:, None, None]
    kernels = _bell((taps - (centre_px - 0.5 - corner)) / np.float32(2 * sd_px))
    kernels /= kernels.sum(axis=0)
    x, y = (
        (corner[axis] + np.arange(needed.start - reach, needed.stop + reach)[:, None])
        .clip(0, size - 1)
        .astype(np.intp)
        for axis, needed, size in ((0, columns, width), (1, rows, height))
    )
    rows_begin = np.arange(num_images) * (height * width) + y * width
    pixels: FloatArray = grey.reshape(-1).take(rows_begin[:, None] + x).astype(np.float32)
    for axis, size in ((1, len(columns)), (0, len(rows))):
        shifted = np.moveaxis(pixels, axis, 0)
        smooth = shifted[:size] * kernels[0, 1 - axis]
        for tap, kernel in enumerate(kernels[1:, 1 - axis], start=1):
            smooth += shifted[tap : tap + size] * kernel
        pixels = np.moveaxis(smooth, 0, axis)
    return np.asarray(pixels.reshape(-1, num_images))


def _bell(distance: FloatArray) -> FloatArray:
    """Return the quadratic B-spline: of standard deviation 1/2, and 0 beyond 3/2.

    Unlike a Gaussian's few taps, its three keep sum, mean and variance wherever the middle is.
    """
    distance = np.abs(distance)
    tail = 0.5 * np.maximum(1.5 - distance, 0) ** 2
    return np.asarray(np.where(distance < 0.5, 0.75 - distance * distance, tail))
