"""Views of the UnityEyes simulator: where in a picture the eye lies, and how large.

A picture is x_px = centre + focal · x / z. A "frame" is UnityEyes' own: the eyeball's centre in the
middle, so that the mean of the iris' contour is (W/2, H/2) + 0.1343 · H · (gaze x, gaze y), if for
perspective. A "crop" is what ingestion cuts out of a frame: centred on the opening's bounding box,
its width in ways from the caruncle to the outer corner. "corners" goes by face landmarks, as real
data sets do: centred between the tip of the inner corner and the outer one, its width in ways
between them.
"""

from typing import Literal, NamedTuple

import numpy as np

from simgan_core.compute.array_api import Array, constant, library_of
from simgan_core.simulator.unityeyes.eyeball import IRIS_DEPTH_MM

Framing = Literal["frame", "crop", "corners"]

FRAME_HEIGHT_MM = IRIS_DEPTH_MM / 0.1343
"""Height of the plane through the eyeball's centre that a frame shows."""
CROP_EYE_WIDTHS = 1.5
"""Width of ingestion's crop."""


class View(NamedTuple):
    """Cameras of N scenes."""

    height: int
    width: int
    focal_px: Array
    """[N]."""
    centre_px: Array
    """Principal point: intersection of the camera's axis and the picture [N, 2]."""

    def to_pixels(self, points: Array) -> Array:
        """Project points [N, ..., 3] of the camera's frame to pixels [N, ..., 2]."""
        extra = (1,) * (points.ndim - 2)
        focal = self.focal_px.reshape(-1, *extra, 1)
        return self.centre_px.reshape(-1, *extra, 2) + focal * points[..., :2] / points[..., 2:]


def frame_view(distance_mm: Array, height: int, width: int) -> View:
    """Return UnityEyes' frames of eyes on the camera's axis at distances [N]."""
    middle = constant(np.array([width / 2, height / 2]), distance_mm)
    centre = library_of(middle).broadcast_to(middle, (len(distance_mm), 2))
    return View(height, width, distance_mm * (height / FRAME_HEIGHT_MM), centre)


def corners_view(corners: Array, height: int, width: int, eye_widths: float) -> View:
    """Return the cameras that show crops by the corners' places [N, 2, 3]."""
    places = corners[..., :2] / corners[..., 2:]
    eye_width = library_of(places).linalg.norm(places[:, 1] - places[:, 0], axis=1)
    return _centred(places.mean(axis=1), eye_width * eye_widths, height, width)


def crop_view(margin: Array, caruncle: Array, height: int, width: int, eye_widths: float) -> View:
    """Return the cameras that show crops, for lid margins [N, M, 3] and caruncles [N, C, 3]."""
    xp = library_of(margin)
    lids, inner = margin[..., :2] / margin[..., 2:], (caruncle[..., :2] / caruncle[..., 2:])
    away = xp.linalg.norm(lids - inner.mean(axis=1)[:, None], axis=2)
    eye_width, middle = xp.amax(away, 1), (xp.amin(lids, 1) + xp.amax(lids, 1)) / 2
    return _centred(middle, eye_width * eye_widths, height, width)


def _centred(middle: Array, wide: Array, height: int, width: int) -> View:
    """Return cameras whose pictures have `middle` [N, 2] in theirs, and are `wide` [N] at z = 1."""
    focal = width / wide
    centre = constant(np.array([width / 2, height / 2]), middle)
    return View(height, width, focal, centre - focal[:, None] * middle)
