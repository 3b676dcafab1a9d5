"""What to try before a refiner: making synthetic images look real without any network."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError

_LEVELS = 256
_IMAGES_AT_ONCE = 1024
"""Images whose histograms and index arrays are held at a time, some 50 MB of 35×55."""


def match_histograms(
    images: NDArray[np.uint8], reference: NDArray[np.uint8], seed: int
) -> NDArray[np.uint8]:
    """Give every image the grey levels of a real image drawn for it by `seed`, channel by channel.

    Images and reference are [N, H, W, C] and [M, H', W', C]; the result is like `images`. A level
    becomes the median of those reference levels that have its place in the order of brightness,
    which keeps the order of levels and therefore every contour.

    One partner an image rather than one tone curve for all: it carries over the *spread* of
    exposure and contrast among real images, and it still acts where both sides are equalised, when
    a pooled curve is the identity. So it is the stronger opponent for a refiner.

    Raises InputError where images are not uint8, none is a reference, or the channels differ.
    """
    _require_comparable(images, reference)
    partners = np.random.default_rng(seed).integers(0, len(reference), len(images))
    matched = np.empty_like(images)
    for first in range(0, len(images), _IMAGES_AT_ONCE):
        block = slice(first, first + _IMAGES_AT_ONCE)
        matched[block] = _match(images[block], reference[partners[block]])
    return matched


def _match(images: NDArray[np.uint8], partners: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Match images [N, H, W, C] to as many partners [N, H', W', C], each to its own."""
    planes, reference = _planes(images), np.sort(_planes(partners), axis=1)
    offsets = _LEVELS * np.arange(len(planes))[:, None]
    bins = planes + offsets
    counts = np.bincount(bins.ravel(), minlength=_LEVELS * len(planes)).reshape(-1, _LEVELS)
    # The middle of the ranks that a level's pixels have in their image, as a share of all.
    middle = (np.cumsum(counts, axis=1) - 0.5 * counts) / planes.shape[1]
    rank = np.minimum(middle * reference.shape[1], reference.shape[1] - 1).astype(np.intp)
    levels = np.take_along_axis(reference, rank, axis=1)
    num_images, height, width, channels = images.shape
    matched = levels.ravel()[bins].reshape(num_images, channels, height, width)
    return np.moveaxis(matched, 1, -1)


def _planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the pixels of every channel of every image, [N·C, H·W]."""
    num_images, height, width, channels = images.shape
    return np.moveaxis(images, -1, 1).reshape(num_images * channels, height * width)


def _require_comparable(images: NDArray[Any], reference: NDArray[Any]) -> None:
    for name, array in (("images", images), ("reference", reference)):
        if array.dtype != np.uint8 or array.ndim != 4:
            raise InputError(
                f"{name} to match histograms should be uint8 [N, H, W, C], "
                f"found {array.dtype} {array.shape}"
            )
    if len(reference) == 0:
        raise InputError("there is no real image to take histograms from")
    if images.shape[-1] != reference.shape[-1]:
        raise InputError(
            f"images have {images.shape[-1]} channels and the reference {reference.shape[-1]}: "
            "match histograms of images with the same channels"
        )
