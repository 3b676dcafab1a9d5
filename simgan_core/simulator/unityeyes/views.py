"""Views of the UnityEyes simulator: where in a picture the eye lies, and how large.

A picture is x_px = centre + focal · x / z. A "frame" is UnityEyes' own: the eyeball's centre in the
middle, so that the mean of the iris' contour is (W/2, H/2) + 0.1343 · H · (gaze x, gaze y), if for
perspective. A "crop" is what ingestion cuts out of a frame: centred on the opening's bounding box,
its width in ways from the caruncle to the outer corner. "corners" goes by face landmarks, as real
data sets do: centred between the tip of the inner corner and the outer one, its width in ways
between them.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simgan_core.simulator.unityeyes.eyeball import IRIS_DEPTH_MM

Floats = NDArray[np.floating[Any]]
Framing = Literal["frame", "crop", "corners"]

FRAME_HEIGHT_MM = IRIS_DEPTH_MM / 0.1343
"""Height of the plane through the eyeball's centre that a frame shows."""
CROP_EYE_WIDTHS = 1.5
"""Width of ingestion's crop."""


class View(NamedTuple):
    """Cameras of N scenes."""

    height: int
    width: int
    focal_px: Floats
    """[N]."""
    centre_px: Floats
    """Principal point: intersection of the camera's axis and the picture [N, 2]."""

    def to_pixels(self, points: Floats) -> Floats:
        """Project points [N, ..., 3] of the camera's frame to pixels [N, ..., 2]."""
        extra = (1,) * (points.ndim - 2)
        focal = self.focal_px.reshape(-1, *extra, 1)
        return np.asarray(
            self.centre_px.reshape(-1, *extra, 2) + focal * points[..., :2] / points[..., 2:]
        )


def frame_view(distance_mm: Floats, height: int, width: int) -> View:
    """Return UnityEyes' frames of eyes on the camera's axis at distances [N]."""
    centre = np.broadcast_to([width / 2, height / 2], (len(distance_mm), 2))
    return View(height, width, distance_mm * (height / FRAME_HEIGHT_MM), centre)


def corners_view(corners: Floats, height: int, width: int, eye_widths: float) -> View:
    """Return the cameras that show crops by the corners' places [N, 2, 3]."""
    places = _unit_view(len(corners)).to_pixels(corners)
    eye_width = np.linalg.norm(places[:, 1] - places[:, 0], axis=1)
    return _centred(places.mean(axis=1), eye_width * eye_widths, height, width)


def crop_view(margin: Floats, caruncle: Floats, height: int, width: int, eye_widths: float) -> View:
    """Return the cameras that show crops, for lid margins [N, M, 3] and caruncles [N, C, 3]."""
    unit = _unit_view(len(margin))
    lids, inner = unit.to_pixels(margin), unit.to_pixels(caruncle).mean(axis=1)
    eye_width = np.linalg.norm(lids - inner[:, None], axis=2).max(axis=1)
    middle = (lids.min(axis=1) + lids.max(axis=1)) / 2
    return _centred(middle, eye_width * eye_widths, height, width)


def _unit_view(num_scenes: int) -> View:
    return View(1, 1, np.ones(num_scenes), np.zeros((num_scenes, 2)))


def _centred(middle: Floats, wide: Floats, height: int, width: int) -> View:
    """Return cameras whose pictures have `middle` [N, 2] in theirs, and are `wide` [N] at z = 1."""
    focal = width / wide
    return View(height, width, focal, [width / 2, height / 2] - focal[:, None] * middle)
