"""Check of image-label pairs by the image: is the eye dark where its own label puts the pupil.

A disc at the labelled pupil is compared with the same disc at the labels of other samples. Where
images and labels belong together, hardly a row has it lighter than half of those; where they are
shuffled, half of the rows have. One row proves nothing, so the result is a share of many.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

_REFERENCE_WIDTH_PX = 55
_RADIUS_PX = 3.0
"""Of the disc, in pixels of an image of that width: inside the iris of most eyes."""
_LEAST_DISTANCE_PX = 6.0
"""Other labels nearer than this lie on the same iris and are not compared with."""
_NUM_OTHERS, _LEAST_OTHERS = 32, 4
_LEAST_JUDGED = 200
"""With fewer rows a share is too uncertain to warn of."""
_TOLERATED_MISSES = 0.05
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Pairing:
    """Number of labels that miss the dark pupil of their own image."""

    num_judged: int
    """Rows with enough labels of others far enough from their own."""
    share_missed: float
    """Of them; 0.001 to 0.01 where pairs are right, about 0.5 where all are shuffled."""

    def warning(self) -> str:
        """Return a warning of shuffled pairs; empty where too few rows look so."""
        if self.num_judged < _LEAST_JUDGED or self.share_missed < _TOLERATED_MISSES:
            return ""
        return (
            f"images and labels look shuffled: in {self.share_missed:.0%} of {self.num_judged:,} "
            "rows the eye is no darker at its own pupil label than at those of other rows (up to "
            "1% where pairs are right); look at the contact sheet of simgan inspect, and check "
            "that every image lies beside the label file of the same render"
        )


def check_pairing(
    images: NDArray[np.unsignedinteger[Any]], pupil_px: NDArray[np.floating[Any]], seed: int = 0
) -> Pairing:
    """Compare images [N, H, W, C] with their pupil labels [N, 2], x and y in pixels.

    Rows whose label is not finite are left out.
    """
    known = np.isfinite(pupil_px).all(axis=1)
    images, pupil_px = images[known], pupil_px[known]
    num_rows, height, width = images.shape[:3]
    if num_rows <= _LEAST_OTHERS:
        return Pairing(0, 0.0)
    scale = width / _REFERENCE_WIDTH_PX
    column, row = np.clip(pupil_px.astype(np.int64), 0, [width - 1, height - 1]).T
    others = np.random.default_rng(seed).integers(num_rows, size=(num_rows, _NUM_OTHERS))
    distance_px = np.linalg.norm(pupil_px[others] - pupil_px[:, None], axis=2)
    is_far = distance_px >= _LEAST_DISTANCE_PX * scale
    own, theirs = np.empty(num_rows), np.empty(others.shape)
    for start in range(0, num_rows, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        brightness = _disc_means(images[part], _RADIUS_PX * scale)
        index = np.arange(len(brightness))
        own[part] = brightness[index, row[part], column[part]]
        at = others[part]
        theirs[part] = brightness[index[:, None], row[at], column[at]]
    num_far = is_far.sum(axis=1)
    is_judged = num_far >= _LEAST_OTHERS
    if not is_judged.any():
        return Pairing(0, 0.0)
    darker = (is_far & (theirs <= own[:, None])).sum(axis=1)
    is_missed = 2 * darker[is_judged] >= num_far[is_judged]
    return Pairing(int(is_judged.sum()), float(is_missed.mean()))


def _disc_means(
    images: NDArray[np.unsignedinteger[Any]], radius_px: float
) -> NDArray[np.floating[Any]]:
    """Return the mean brightness of the disc round every pixel, [n, H, W]."""
    reach = int(np.ceil(radius_px))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = torch.from_numpy((np.hypot(x, y) <= radius_px).astype(np.float32))
    grey = torch.from_numpy(images.mean(axis=3, dtype=np.float32))[:, None]
    padded = functional.pad(grey, (reach,) * 4, mode="replicate")
    means: NDArray[np.floating[Any]] = functional.conv2d(padded, (disc / disc.sum())[None, None])[
        :, 0
    ].numpy()
    return means
