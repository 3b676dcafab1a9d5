"""Training examples of the landmark network: images whose landmarks are known exactly."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from simgan_core.simulator.eyes import Domain, render, sample_scenes

_FRAME = (96, 128)
_SHARE_SEEN = (0.25, 0.75)
"""Part of a frame's height that is kept: the rest is skin, far from the eye."""


@dataclass(frozen=True)
class Examples:
    """N images and their landmarks."""

    images: NDArray[np.uint8]
    """[N, H, W]."""
    points: NDArray[np.float32]
    """`LANDMARKS` [N, L, 2], in pixels."""

    def __post_init__(self) -> None:
        fits = self.images.ndim == 3 and self.points.shape == (len(self.images), 5, 2)
        if not fits or not len(self.images) or not np.isfinite(self.points).all():
            raise InputError(
                "examples of landmarks are images [N, H, W] and finite points [N, 5, 2], N at "
                f"least 1, found {list(self.images.shape)} and {list(self.points.shape)}"
            )


def points_of(
    corners: NDArray[Any], pupil: NDArray[Any], iris: NDArray[Any]
) -> NDArray[np.float32]:
    """Return landmarks [N, L, 2] of left eyes.

    `corners` [N, 2, 2] are the inner one's tip and the outer one, `pupil` [N, 2] its centre and
    `iris` [N, K, 2] points of its contour.
    """
    rows = np.arange(len(iris))
    ends = [iris[rows, find(iris[..., 0], axis=1)] for find in (np.argmin, np.argmax)]
    points = [corners[:, 0], corners[:, 1], pupil, *ends]
    return np.stack(points, axis=1).astype(np.float32)


def simulated_examples(domain: Domain, count: int, seed: int) -> Examples:
    """Render left eyes of the built-in simulator; the same seed gives the same."""
    scenes = sample_scenes(domain, 2 * count if domain == "real" else count, seed)
    eyes = render(scenes[~scenes.is_right], "frame", *_FRAME)
    tips = eyes.caruncle_px[np.arange(count), eyes.caruncle_px[..., 0].argmin(axis=1)]
    at = eyes.lid_px[..., 0].argmax(axis=1)
    corners = np.stack([tips, eyes.lid_px[np.arange(count), at]], axis=1)
    points = points_of(corners, eyes.pupil_px, eyes.iris_px)
    top, bottom = (round(share * _FRAME[0]) for share in _SHARE_SEEN)
    left = (_FRAME[1] - _FRAME[0]) // 2
    points -= np.array([left, top], np.float32)
    return Examples(eyes.images[:, top:bottom, left : _FRAME[1] - left, 0], points)
