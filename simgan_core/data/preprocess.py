"""Preprocessing of grey levels at ingestion: none, or histogram equalisation.

It is chosen at ingestion, recorded in the dataset, and must be the same for every dataset that one
model meets; everywhere else pixel values are kept as they are.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError

Preprocess = Literal["none", "equalize"]
"""As in `storage.schema`, which this package does not import."""


def preprocess(images: NDArray[Any], kind: Preprocess) -> NDArray[Any]:
    """Return images [N, H, W, C] as they are ("none") or histogram-equalised ("equalize").

    Raises InputError where images to equalise are not uint8.
    """
    return equalize(images) if kind == "equalize" else images


def equalize(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Equalise the histogram of every channel of every uint8 image [N, H, W, C].

    The formula is OpenCV's `equalizeHist`, which MPIIGaze's images went through: with cdf the
    cumulative histogram, level v becomes round(255 · (cdf(v) − cdf(v_min)) / (H·W − cdf(v_min))),
    v_min being the darkest level present. An image of one level stays as it is.

    Raises InputError where the images are not uint8.
    """
    if images.dtype != np.uint8:
        raise InputError(
            f"preprocess 'equalize' needs uint8 images, got {images.dtype}: "
            "use preprocess 'none', or convert the images to 8 bits before ingestion"
        )
    num_images, height, width, channels = images.shape
    # One histogram a plane (image and channel), all counted at once: each plane has 256 bins of
    # its own, addressed by an offset.
    planes = np.moveaxis(images, -1, 1).reshape(num_images * channels, height * width)
    offsets = 256 * np.arange(len(planes))[:, None]
    bins = planes + offsets
    counts = np.bincount(bins.ravel(), minlength=256 * len(planes)).reshape(-1, 256)
    levels = _equalized_levels(counts)
    equalized = levels.ravel()[bins].reshape(num_images, channels, height, width)
    return np.ascontiguousarray(np.moveaxis(equalized, 1, -1))


def _equalized_levels(counts: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return the new level of every old one, uint8 [P, 256], from histograms [P, 256]."""
    darkest = np.argmax(counts > 0, axis=1)[:, None]
    num_darkest = np.take_along_axis(counts, darkest, axis=1)
    num_others = counts.sum(axis=1, keepdims=True) - num_darkest
    # float32 and round-half-even, as OpenCV computes it, so that ties fall the same way.
    scale = np.float32(255) / np.maximum(num_others, 1).astype(np.float32)
    above_darkest = (np.cumsum(counts, axis=1) - num_darkest).clip(min=0).astype(np.float32)
    levels = np.rint(above_darkest * scale).astype(np.uint8)
    return np.where(num_others > 0, levels, np.arange(256, dtype=np.uint8))
