"""Nearest neighbours by tone and texture.

An image is described by the means and the standard deviations of its grey levels in square blocks,
a fifth of 55 pixels wide at 55×35: means say what is where, deviations how rough it is there, which
is what renderings lack. The distance of two images is the root mean square difference of these, in
grey levels. It is no measure of realism by itself: an eye that looks where no real one looked is
far from all of them, too.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError

_BLOCKS_ACROSS = 11
_PAIRS_AT_ONCE = 20_000_000


def describe(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the descriptions of images [N, H, W, C]: float32 [N, F], in grey levels."""
    count, height, width, channels = images.shape
    side = max(1, width // _BLOCKS_ACROSS)
    down, across = max(1, height // side), max(1, width // side)
    blocks = images[:, : down * side, : across * side].reshape(
        count, down, min(side, height), across, side, channels
    )
    mean = blocks.mean((2, 4), dtype=np.float32)
    deviation = blocks.std((2, 4), dtype=np.float32)
    return np.concatenate([mean.reshape(count, -1), deviation.reshape(count, -1)], axis=1)


def nearest(
    images: NDArray[np.uint8], among: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return for each of N images the index of the one most like it among M, and its distance.

    int64 [N] and float32 [N], in grey levels; images [N, H, W, C] and [M, H, W, C]. Raises
    InputError where they are of two sizes, or there is none to be found.
    """
    if images.shape[1:] != among.shape[1:] or len(among) == 0:
        raise InputError(
            "the nearest images need some to choose from, of the same size, "
            f"found {among.shape} for {images.shape}"
        )
    described, candidates = describe(images), describe(among)
    found = np.empty(len(images), dtype=np.int64)
    squared = np.empty(len(images), dtype=np.float32)
    step = max(1, _PAIRS_AT_ONCE // len(among))
    for begin in range(0, len(images), step):
        rows = slice(begin, begin + step)
        table = squared_distances(described[rows], candidates)
        found[rows] = table.argmin(axis=1)
        squared[rows] = table.min(axis=1)
    return found, np.sqrt(squared / described.shape[1])


def squared_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """Return |a_i − b_j|² as |a_i|² + |b_j|² − 2 a_i·b_j: one matrix product."""
    table = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * (a @ b.T)
    return np.asarray(np.maximum(table, 0))
