"""Geometry of the eyeball, the lids that follow it, camera views, and the labels.

Lengths are millimetres in a frame fixed to the eyeball's centre: x right, y down, z into the scene;
the camera looks along +z from so far that all rays are parallel. Every eye is built as a left eye,
whose inner corner is on the image's left; right eyes are mirrored at the very end.

Shapes: N scenes; quantities of a scene are [N, 1, 1] against pixels [N, H, W], columns [N, 1, W]
and rows [N, H, 1], or [N, 1] against points [N, P].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
Traits = Mapping[str, FloatArray]

EYEBALL_RADIUS_MM = 12.0
IRIS_DEPTH_MM = 10.6
"""Distance of the iris disc from the eyeball's centre."""
CORNEA_RADIUS_MM = 7.8
CORNEA_DEPTH_MM = 5.4
"""Distance of the corneal sphere's centre from the eyeball's centre."""
LID_DEPTH_MM = 8.0
"""Distance before the eyeball's centre at which the lids turn with the head."""
UPPER_LID_FOLLOWS, LOWER_LID_FOLLOWS = 0.75, 0.5
"""Share of the iris's vertical way that each lid goes along with."""
MIN_OPENING_MM = 3.0

UNITYEYES_OFFSET = 0.1343
"""Way of the iris centre in a UnityEyes frame, per unit of look_vec, as a share of its height."""
CROP_EYE_WIDTHS = 1.5
"""Width of a 55:35 crop in eye widths (mean caruncle to outer corner)."""
CROP_ASPECT = 55 / 35


@dataclass(frozen=True)
class View:
    """An orthographic camera: pixel = origin + scale · mm, each of them [N]."""

    scale: FloatArray
    origin_x: FloatArray
    origin_y: FloatArray

    def to_pixels(self, points: FloatArray) -> FloatArray:
        """Return points [N, P, 2] in px for points [N, P, ≥2] in mm."""
        origin = np.stack([self.origin_x, self.origin_y], axis=-1)
        return origin[:, None, :] + self.scale[:, None, None] * points[..., :2]

    def pixel_grid(self, rows: FloatArray, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return x [N, 1, W] and y [N, H, 1] in mm of pixel positions (rows [H], columns [W])."""
        x = (columns - self.origin_x[:, None]) / self.scale[:, None]
        y = (rows - self.origin_y[:, None]) / self.scale[:, None]
        return x[:, None, :], y[:, :, None]


def lid_margins(shape: Traits, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return y of the upper and the lower lid's margin at x; both meet at and beyond the corners.

    `shape` holds the lids' traits, the gaze's vertical component `gaze_y` and the head's rotation
    `head_x`, `head_y`, `head_z` (radians), shaped to broadcast against x.
    """
    along = np.clip(_along_lids(shape, x), 0, 1)
    upper = _arch(along, shape["upper_lid_peak"], 0.68)
    lower = _arch(along, shape["lower_lid_peak"], 0.62)
    return _lids_at(shape, x, upper, lower)


def lid_folds(shape: Traits, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return y of two lines that skin folds along: near the margins, smooth past the corners."""
    along = _along_lids(shape, x)
    upper = np.exp(-(((along - shape["upper_lid_peak"]) / 0.5) ** 2))
    lower = np.exp(-(((along - shape["lower_lid_peak"]) / 0.5) ** 2))
    return _lids_at(shape, x, upper, lower)


def lid_points(shape: Traits) -> FloatArray:
    """Return 16 points [N, 16, 2] round the margin: inner to outer above, and back below.

    `shape` is shaped [N, 1]. Point 7 is the outer corner; the inner ones begin beside the caruncle,
    as in UnityEyes.
    """
    above = np.linspace(0.1, 1, 8, dtype=np.float32)
    below = np.linspace(0.94, 0.12, 8, dtype=np.float32)
    x = _across_lids(shape, np.concatenate([above, below])[None, :])
    upper, lower = lid_margins(shape, x)
    y = np.concatenate([upper[:, :8], lower[:, 8:]], axis=1)
    return np.stack([x, y], axis=-1)


def caruncle_points(shape: Traits) -> FloatArray:
    """Return six points [N, 6, 2] round the caruncle, the flesh in the inner corner."""
    along = np.array([0.075, 0.06, 0.03, 0.0, 0.03, 0.06], np.float32)
    x = _across_lids(shape, along[None, :])
    upper, lower = lid_margins(shape, x)
    toward_lower = np.array([0.5, 0.2, 0.2, 0.5, 0.8, 0.8], np.float32)
    return np.stack([x, upper + toward_lower * (lower - upper)], axis=-1)


def iris_points(gaze: FloatArray, radius_mm: FloatArray, count: int = 32) -> FloatArray:
    """Return `count` points [N, count, 3] round a disc of radius [N] in the iris's plane."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False, dtype=np.float32)[None, :, None]
    right, down = disc_axes(gaze)
    ring = np.cos(angles) * right[:, None, :] + np.sin(angles) * down[:, None, :]
    return np.asarray(
        IRIS_DEPTH_MM * gaze[:, None, :] + radius_mm[:, None, None] * ring, np.float32
    )


def disc_axes(gaze: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return two unit vectors [N, 3] across the gaze: one level to the right, one downward."""
    x, _, z = np.moveaxis(gaze, -1, 0)
    length = np.hypot(x, z)
    right = np.stack([-z / length, np.zeros_like(x), x / length], axis=-1)
    return right, np.cross(right, gaze).astype(np.float32)


def visible_share(shape: Traits, gaze: FloatArray, radius_mm: FloatArray) -> FloatArray:
    """Return the share [N] of a disc in the iris's plane that lies between the lids."""
    # Rings of about equal area, each of 16 points; the last is the rim, so that 1 means all of it.
    rings = [np.float32(np.sqrt(k / 6)) for k in range(1, 7)]
    points = np.concatenate([iris_points(gaze, radius_mm * ring, 16) for ring in rings], axis=1)
    upper, lower = lid_margins(shape, points[..., 0])
    inside = (points[..., 1] > upper) & (points[..., 1] < lower)
    return np.asarray(inside.mean(axis=1, dtype=np.float32))


def frame_view(num_scenes: int, height: int, width: int) -> View:
    """Return the view of a UnityEyes frame: the eyeball's centre in the frame's centre."""
    scale = UNITYEYES_OFFSET * height / IRIS_DEPTH_MM
    return View(
        *(np.full(num_scenes, value, np.float32) for value in (scale, width / 2, height / 2))
    )


def crop_view(lids: FloatArray, caruncle: FloatArray, height: int, width: int) -> View:
    """Return the view of a crop round the eye, by the rule that readers of frames follow.

    The centre is that of the lid margin's bounding box; the largest 55:35 window in the image is
    1.5 eye widths wide, an eye width being the distance from mean caruncle to outer corner. So the
    55:35 centre crop of a 60×36 image and the same crop of a frame show the same.
    """
    centre = (lids.max(axis=1) + lids.min(axis=1)) / 2
    eye_width = np.linalg.norm(lids[:, 7] - caruncle.mean(axis=1), axis=-1)
    window_width = min(width, height * CROP_ASPECT)
    scale = np.asarray(window_width / (CROP_EYE_WIDTHS * eye_width), np.float32)
    return View(scale, width / 2 - scale * centre[:, 0], height / 2 - scale * centre[:, 1])


def _lids_at(
    shape: Traits, x: FloatArray, upper_arch: FloatArray, lower_arch: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return y of curves that leave the line between the corners by arches of height 0 to 1."""
    iris_way = IRIS_DEPTH_MM * shape["gaze_y"]
    rise = shape["upper_lid_mm"] * shape["openness"] + shape["corner_height_mm"]
    rise = np.maximum(rise - UPPER_LID_FOLLOWS * iris_way, 0.5)
    drop = shape["lower_lid_mm"] - shape["corner_height_mm"] + LOWER_LID_FOLLOWS * iris_way
    drop = np.maximum(drop, MIN_OPENING_MM - rise)
    chord = shape["corner_height_mm"] - np.clip(_along_lids(shape, x), 0, 1) * (
        shape["eye_width_mm"] * shape["lid_tilt"]
    )
    return (
        _with_head(shape, x, chord - rise * upper_arch),
        _with_head(shape, x, chord + drop * lower_arch),
    )


def _along_lids(shape: Traits, x: FloatArray) -> FloatArray:
    """Return the place between inner (0) and outer corner (1) of image columns x."""
    lid_x = (x + LID_DEPTH_MM * np.sin(shape["head_y"])) / np.cos(shape["head_y"])
    return np.asarray(lid_x / shape["eye_width_mm"] + shape["inner_share"], np.float32)


def _across_lids(shape: Traits, along: FloatArray) -> FloatArray:
    """Return the image columns x of places between inner (0) and outer corner (1)."""
    lid_x = (along - shape["inner_share"]) * shape["eye_width_mm"]
    return np.asarray(
        lid_x * np.cos(shape["head_y"]) - LID_DEPTH_MM * np.sin(shape["head_y"]), np.float32
    )


def _with_head(shape: Traits, x: FloatArray, lid_y: FloatArray) -> FloatArray:
    """Return y in the image of a height on the lids: nodding moves it, tilting shears it."""
    nodded = lid_y * np.cos(shape["head_x"]) + LID_DEPTH_MM * np.sin(shape["head_x"])
    return np.asarray(nodded + np.tan(shape["head_z"]) * x, np.float32)


def _arch(along: FloatArray, peak: FloatArray, roundness: float) -> FloatArray:
    """Return an arch from 0 over 1 (at `peak`) to 0; less roundness means steeper corners."""
    skewed = along ** (np.log(np.float32(0.5)) / np.log(peak))
    return np.asarray((4 * skewed * (1 - skewed)) ** roundness, np.float32)
