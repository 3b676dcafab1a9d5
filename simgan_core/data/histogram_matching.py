"""Histogram matching: the tone-matched baseline, without any network."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError

_BINS_AT_ONCE = 1024 * 256
"""Bins of the histograms that are held at a time: of 1,024 images of 8 bits, or 4 of 16."""

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def match_histograms(images: Pixels, reference: Pixels, seed: int) -> Pixels:
    """Match every image's histogram to that of a random real image, channel by channel.

    Images and reference are [N, H, W, C] and [M, H', W', C]; the result is like `images`. A level
    becomes the median of those reference levels that have its place in the order of brightness,
    which keeps the order of levels and therefore every contour.

    One partner an image rather than one tone curve for all: it carries over the *spread* of
    exposure and contrast among real images, and it still acts where both sides are equalised, when
    a pooled curve is the identity. So it is the stronger opponent for a refiner.

    Raises InputError where images are neither uint8 nor uint16 or both of one type, none is a
    reference, or the channels differ.
    """
    _require_comparable(images, reference)
    partners = np.random.default_rng(seed).integers(0, len(reference), len(images))
    matched = np.empty_like(images)
    at_once = _BINS_AT_ONCE // _num_levels(images)
    for first in range(0, len(images), at_once):
        block = slice(first, first + at_once)
        matched[block] = _match(images[block], reference[partners[block]])
    return matched


def _num_levels(images: Pixels) -> int:
    return int(np.iinfo(images.dtype).max) + 1


def _match(images: Pixels, partners: Pixels) -> Pixels:
    """Match images [N, H, W, C] to as many partners [N, H', W', C], each to its own."""
    num_levels = _num_levels(images)
    planes, reference = _planes(images), np.sort(_planes(partners), axis=1)
    offsets = num_levels * np.arange(len(planes))[:, None]
    bins = planes + offsets
    counts = np.bincount(bins.ravel(), minlength=num_levels * len(planes))
    counts = counts.reshape(-1, num_levels)
    # The middle of the ranks that a level's pixels have in their image, as a share of all.
    middle = (np.cumsum(counts, axis=1) - 0.5 * counts) / planes.shape[1]
    rank = np.minimum(middle * reference.shape[1], reference.shape[1] - 1).astype(np.intp)
    levels = np.take_along_axis(reference, rank, axis=1)
    num_images, height, width, channels = images.shape
    matched = levels.ravel()[bins].reshape(num_images, channels, height, width)
    whole: Pixels = np.moveaxis(matched, 1, -1)
    return whole


def _planes(images: Pixels) -> Pixels:
    """Return the pixels of every channel of every image, [N·C, H·W]."""
    num_images, height, width, channels = images.shape
    return np.moveaxis(images, -1, 1).reshape(num_images * channels, height * width)


def _require_comparable(images: NDArray[Any], reference: NDArray[Any]) -> None:
    for name, array in (("images", images), ("reference", reference)):
        if array.dtype not in (np.uint8, np.uint16) or array.ndim != 4:
            raise InputError(
                f"{name} to match histograms should be uint8 or uint16 [N, H, W, C], "
                f"found {array.dtype} {array.shape}"
            )
    if images.dtype != reference.dtype:
        raise InputError(
            f"images are {images.dtype} and the reference {reference.dtype}: match histograms of "
            "images of one type"
        )
    if len(reference) == 0:
        raise InputError("there is no real image to take histograms from")
    if images.shape[-1] != reference.shape[-1]:
        raise InputError(
            f"images have {images.shape[-1]} channels and the reference {reference.shape[-1]}: "
            "match histograms of images with the same channels"
        )
