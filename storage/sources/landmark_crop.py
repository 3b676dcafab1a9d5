"""Crop about the eye's corners where no label has them: an estimator finds them in the images.

Storage computes no landmarks: whoever opens a source hands in a function that does.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from storage.sources.crop import Box, Size, box_around, centre_box, crop_and_resize, to_crops


class FindsLandmarks(Protocol):
    """Estimator of an eye's landmarks; it can be pickled, and called by threads at once."""

    @property
    def digest(self) -> str:
        """Content digest of what it estimates with, recorded with the dataset."""

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return landmarks [N, 5, 2] of images [N, H, W, C] of equal size, in their pixels.

        They are the left and the right corner, the pupil and the iris' left and right end. A row's
        result depends on its image alone, and is NaN where nothing was found with confidence.
        """


class Cropped(NamedTuple):
    """Crops and where things are in them."""

    images: NDArray[Any]
    """[N, height, width, C]."""
    boxes: NDArray[np.float64]
    """Boxes that were cut out of the images, as in `Box`, [N, 4]."""
    landmarks: NDArray[np.float32]
    """[N, 5, 2] in pixels of the crops; NaN where the crop is the image's middle instead."""


def crop_about_corners(frames: NDArray[Any], find: FindsLandmarks, size: Size) -> Cropped:
    """Cut images [N, H, W, C] midway between their eyes' corners, as wide as `centre_box`."""
    boxes, landmarks = landmark_boxes(frames, find, size)
    each = [
        crop_and_resize(frame[None], Box(*box), size)[0]
        for frame, box in zip(frames, boxes.tolist(), strict=True)
    ]
    images = np.stack(each) if each else np.empty((0, *size, frames.shape[3]), frames.dtype)
    return Cropped(images, boxes, to_crops(landmarks, boxes, size))


def landmark_boxes(
    frames: NDArray[Any], find: FindsLandmarks, size: Size
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return boxes [N, 4] for images [N, H, W, C], and the landmarks [N, 5, 2] in the images."""
    whole = centre_box(Size(*frames.shape[1:3]), size)
    landmarks = find(frames)
    boxes = np.tile(np.array(whole), (len(frames), 1))
    for row in np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2))).tolist():
        x, y = landmarks[row, :2].astype(np.float64).mean(axis=0).tolist()
        boxes[row] = box_around(x, y, whole.width, size)
    return boxes, landmarks
