"""Camera model: blur, sensor noise, tone curve, JPEG block quantisation.

All work on float32 images [N, H, W] with one parameter an image [N]. Linear steps are matrix
products of one image's size, so that an image's bits do not depend on the batch that it came in.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.simulator import scene_random

FloatArray = NDArray[np.floating[Any]]

_BLOCK = 8
_JPEG_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
"""Luminance quantisation at quality 50: ITU-T T.81, table K.1."""


def expose(radiance: FloatArray, mean_radiance: FloatArray) -> FloatArray:
    """Scale each image to a mean radiance, as automatic exposure does."""
    mean = radiance.reshape(len(radiance), -1).mean(axis=1)
    return np.asarray(radiance * (mean_radiance / mean)[:, None, None])


def blur(images: FloatArray, sigma_px: FloatArray) -> FloatArray:
    """Blur by a Gaussian of standard deviation sigma_px [N], edges continued; 0 keeps an image."""
    _, height, width = images.shape
    chosen = sigma_px > 0
    down, across = (_gaussian(size, sigma_px[chosen]) for size in (height, width))
    blurred = images.copy()
    blurred[chosen] = down @ images[chosen] @ across.transpose(0, 2, 1)
    return blurred


def add_noise(
    radiance: FloatArray, keys: scene_random.Keys, shot: FloatArray, read: FloatArray
) -> FloatArray:
    """Add photon noise (√radiance · shot) and read noise, given as standard deviations [N]."""
    _, height, width = radiance.shape
    variance = np.maximum(radiance, 0) * shot[:, None, None] ** 2 + read[:, None, None] ** 2
    return radiance + np.sqrt(variance) * scene_random.noise_field(keys, "sensor", height, width)


def to_levels(radiance: FloatArray, gamma: FloatArray) -> FloatArray:
    """Return grey levels 0 to 255, not yet rounded, by a power law that clips at radiance 1."""
    return 255 * np.clip(radiance, 0, 1) ** (1 / gamma[:, None, None])


def jpeg(levels: FloatArray, quality: FloatArray, offsets: NDArray[np.intp]) -> FloatArray:
    """Return the levels after JPEG's 8×8 DCT quantisation at a quality [N] of 1 to 99; 100: kept.

    `offsets` [N, 2] are the rows and columns, 0 to 7, by which an image lies inside its blocks, for
    an eye is cut out of a larger picture.
    """
    chosen = quality < 100
    decoded = levels.copy()
    decoded[chosen] = _coded(levels[chosen], quality[chosen], offsets[chosen])
    return decoded


def _coded(levels: FloatArray, quality: FloatArray, offsets: NDArray[np.intp]) -> FloatArray:
    """Lay the images into whole blocks, continuing their edges, quantise, and take them out."""
    num_images, height, width = levels.shape
    image = np.arange(num_images)[:, None, None]
    block_rows, block_columns = _whole_blocks(height), _whole_blocks(width)
    rows = (np.arange(block_rows) - offsets[:, :1]).clip(0, height - 1)[:, :, None]
    columns = (np.arange(block_columns) - offsets[:, 1:]).clip(0, width - 1)[:, None, :]
    blocks = _quantize_blocks(levels[image, rows, columns] - 128, _quantization(quality)) + 128
    rows = (np.arange(height) + offsets[:, :1])[:, :, None]
    columns = (np.arange(width) + offsets[:, 1:])[:, None, :]
    return np.asarray(blocks[image, rows, columns])


def _quantize_blocks(levels: FloatArray, steps: FloatArray) -> FloatArray:
    """Round the DCT coefficients of all 8×8 blocks to multiples of steps [N, 8, 8]."""
    _, height, width = levels.shape
    down, across = _block_dct(height), _block_dct(width)
    coefficients = down @ levels @ across.T
    tiled = np.tile(steps, (1, height // _BLOCK, width // _BLOCK))
    return down.T @ (np.rint(coefficients / tiled) * tiled) @ across


def _quantization(quality: FloatArray) -> FloatArray:
    """Return the quantisation steps [N, 8, 8] of a quality [N], scaled as libjpeg does."""
    percent = np.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    return np.maximum(np.floor((_JPEG_LUMINANCE * percent[:, None, None] + 50) / 100), 1)


def _block_dct(size: int) -> FloatArray:
    """Return the orthonormal DCT-II of all blocks of a line of pixels as one matrix."""
    frequency, place = np.arange(_BLOCK)[:, None], np.arange(_BLOCK)[None, :]
    basis = np.sqrt(2 / _BLOCK) * np.cos(np.pi * (2 * place + 1) * frequency / (2 * _BLOCK))
    basis[0] /= np.sqrt(2)
    return np.kron(np.eye(size // _BLOCK), basis).astype(np.float32)


def _whole_blocks(size: int) -> int:
    """Return the smallest multiple of 8 that holds `size` pixels at any offset."""
    return -(-(size + _BLOCK - 1) // _BLOCK) * _BLOCK


def _gaussian(size: int, sigma_px: FloatArray) -> FloatArray:
    """Return blurring matrices [N, size, size] whose rows sum to 1."""
    place = np.arange(size, dtype=np.float32)
    distance = place[:, None] - place[None, :]
    weights = np.exp(-0.5 * (distance / sigma_px[:, None, None]) ** 2)
    return np.asarray(weights / weights.sum(axis=2, keepdims=True), np.float32)
