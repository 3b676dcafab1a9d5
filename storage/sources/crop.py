"""Crop rule: a box of the target's aspect ratio, resized by area.

Every source cuts its images so, since networks see a pixel of difference between two domains. The
box keeps the target's aspect ratio, so that nothing is squeezed; a pixel of the result is the mean
of exactly the area that it covers, parts of pixels by their share; beyond the frame, the frame's
outermost pixels go on.
"""

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

IMAGES_AT_ONCE = 32
"""Images resized together, so that intermediate values stay in the processor's caches."""

Pixel = TypeVar("Pixel", bound=np.generic)


class Size(NamedTuple):
    """Height and width of an image, in pixels."""

    height: int
    width: int


class Box(NamedTuple):
    """A rectangle of an image in pixels, origin top left; fractions and places outside are fine."""

    left: float
    top: float
    width: float
    height: float


class Part(NamedTuple):
    """Whole pixels of an image: columns left to right − 1, rows top to bottom − 1."""

    left: int
    top: int
    right: int
    bottom: int


def centre_box(image: Size, size: Size) -> Box:
    """Return the largest box of the proportions of `size` in the middle of an image."""
    width = min(image.width, image.height * size.width / size.height)
    height = width * size.height / size.width
    return Box((image.width - width) / 2, (image.height - height) / 2, width, height)


def box_around(x: float, y: float, width: float, size: Size) -> Box:
    """Return the box of the proportions of `size` and of this width, with its centre at x, y."""
    height = width * size.height / size.width
    return Box(x - width / 2, y - height / 2, width, height)


def crop_and_resize(images: NDArray[Pixel], box: Box, size: Size) -> NDArray[Pixel]:
    """Cut one box out of images [N, H, W, C] of an integer type: [N, height, width, C] of it."""
    height, width = images.shape[1:3]
    if box == Box(0, 0, width, height) and size == (height, width):
        return images
    images, box = cut(images, box)
    resized = np.empty((len(images), *size, images.shape[3]), images.dtype)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        batch = images[start : start + IMAGES_AT_ONCE]
        low = _mean_over_steps(batch, 1, box.top, box.height, size.height)
        small = _mean_over_steps(low, 2, box.left, box.width, size.width)
        # Halves go up, also where rounding errors left a little less than a half.
        resized[start : start + len(batch)] = np.floor(small + (0.5 + 1e-6))
    return resized


def cut(images: NDArray[Pixel], box: Box) -> tuple[NDArray[Pixel], Box]:
    """Return the pixels of images [N, H, W, C] that a box touches, at least one, with the box."""
    part = touched(Size(*images.shape[1:3]), box)
    pixels = images[:, part.top : part.bottom, part.left : part.right]
    return pixels, box._replace(top=box.top - part.top, left=box.left - part.left)


def touched(image: Size, box: Box) -> Part:
    """Return the pixels of an image that a box touches, at least one."""
    top, left = (
        int(np.clip(math.floor(start), 0, end - 1))
        for start, end in ((box.top, image.height), (box.left, image.width))
    )
    bottom, right = math.ceil(box.top + box.height), math.ceil(box.left + box.width)
    return Part(
        left,
        top,
        min(max(right, left + 1), image.width),
        min(max(bottom, top + 1), image.height),
    )


def sufficient(frame: Size, box: Box, size: Size) -> Size:
    """Return the size at which a frame may be decoded when a box of it is to be made smaller.

    Two pixels each way remain for one of the result.
    """
    shrinking = max(1.0, min(box.width / size.width, box.height / size.height) / 2)
    return Size(math.ceil(frame.height / shrinking), math.ceil(frame.width / shrinking))


def scaled(box: Box, frame: Size, decoded: Size) -> Box:
    """Scale a box of a frame to the frame decoded at another size."""
    y, x = decoded.height / frame.height, decoded.width / frame.width
    return Box(box.left * x, box.top * y, box.width * x, box.height * y)


def to_crop(points: NDArray[np.floating[Any]], box: Box, size: Size) -> NDArray[np.float32]:
    """Map points [..., 2] (x, y in pixels of an image) to the resized box, float32.

    Those that are too far away for these numbers are infinite.
    """
    return np.asarray(to_crops(points[None], np.array([box]), size)[0])


def to_crops(
    points: NDArray[np.floating[Any]], boxes: NDArray[np.float64], size: Size
) -> NDArray[np.float32]:
    """Map points [N, ..., 2] of N images, each to its resized box, boxes [N, 4] as in `Box`."""
    corners, extents = (
        part.reshape(-1, *[1] * (points.ndim - 2), 2) for part in (boxes[:, :2], boxes[:, 2:])
    )
    with np.errstate(over="ignore"):
        scales = np.array([size.width, size.height]) / extents
        return np.asarray((points - corners) * scales, dtype=np.float32)


def _mean_over_steps(
    values: NDArray[Any], axis: int, start: float, extent: float, num_steps: int
) -> NDArray[np.float64]:
    """Return the means of `values` [N, H, W, C] along an axis over equal steps of an interval.

    Value k holds from k to k + 1, the first and the last one also before and beyond them. Every
    step is summed in the order of its values: the same pixels give the same bits in any batch.
    """
    edges = start + np.arange(num_steps + 1) * (extent / num_steps)
    first = np.floor(edges[:-1])
    places = first + np.arange(int((np.ceil(edges[1:]) - first).max()))[:, None]
    shares = np.minimum(edges[1:], places + 1) - np.maximum(edges[:-1], places)
    weights = np.maximum(shares, 0) * (num_steps / extent)
    at = np.minimum(np.maximum(places, 0), values.shape[axis] - 1).astype(np.intp)
    along = [-1 if n == axis else 1 for n in range(4)]
    sums = weights[0].reshape(along) * values.take(at[0], axis)
    for weight, place in zip(weights[1:], at[1:], strict=True):
        sums += weight.reshape(along) * values.take(place, axis)
    return np.asarray(sums)
