"""Structured-light depth sensor: shadows, holes, ragged contours, depth in steps that grow with z².

A projector beside the camera throws a pattern of dots; the camera finds a window of it again and
triangulates. That window has to be of one surface for the most part, and the projector has to see
it: so there are holes along depth edges, and shadows on the side away from the projector (as
simulated by Gschwandtner et al., ISVC 2011, and Bohg et al., ICRA 2014). Contours wander by a pixel
or two, since dots are sparse (modelled as random shifts: Barron and Malik, CVPR 2013).
Disparity has noise of half a step and comes in steps of an eighth of a pixel, so that depth steps
grow with the distance squared (Khoshelham and Oude Elberink, Sensors 2012).

Shapes: H × W pixels, S window samples.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simgan_core.simulator import scene_random

FloatArray = NDArray[np.floating[Any]]


class StructuredLight(NamedTuple):
    """Geometry and noise of a sensor; the defaults are those of a Kinect v1."""

    focal_px: float = 588.0
    """Focal length of the camera, in pixels of the depth image."""
    baseline_mm: float = 75.0
    """Distance of the projector, to the camera's right, so that shadows fall to the left."""
    step_px: float = 1 / 8
    """Step of disparity."""
    noise_px: float = 1 / 16
    """Standard deviation of disparity."""
    window_px: int = 9
    """Side of the window whose pattern is matched."""
    min_share: float = 0.4
    """Mean of the least share of the window that has to lie on the matched surface."""
    share_sd: float = 0.1
    """Standard deviation of that share, from window to window: patterns differ in contrast."""
    shift_px: float = 1.2
    """Standard deviation of a contour's place, on each axis."""


KINECT = StructuredLight()

_SAME_SURFACE_PX = 1.0
"""Disparities within a window that still match together."""


def sense(depth_mm: FloatArray, key: scene_random.Keys, sensor: StructuredLight) -> FloatArray:
    """Return what the sensor measures of the depths z [H, W], in mm; NaN where it has no depth.

    Every depth must be finite and above 0: where there is no object, that of the wall behind.
    `key` [1] decides all noise.
    """
    disparity = sensor.focal_px * sensor.baseline_mm / depth_mm
    lit = sees_projector(disparity)
    measured = _wander(disparity, key, sensor.shift_px)
    least = sensor.min_share + sensor.share_sd * _smooth_field(key, "share", *disparity.shape)
    matched = _share_of_window(disparity, lit, measured, sensor.window_px) >= least
    noise = sensor.noise_px * scene_random.noise_field(key, "disparity", *disparity.shape)[0]
    steps = np.maximum(np.rint((measured + noise) / sensor.step_px), 1)
    return np.where(
        matched, sensor.focal_px * sensor.baseline_mm / (steps * sensor.step_px), np.nan
    )


def sees_projector(disparity: FloatArray) -> NDArray[np.bool_]:
    """Return which pixels of a row the projector lights, bool [H, W], by disparities in pixels.

    A pixel lies `disparity` to the left in the projector's view; what is nearer there hides it.
    """
    height, width = disparity.shape
    column = np.arange(width) - disparity
    column -= column.min()
    row_length = int(column.max()) + 2
    nearest = np.zeros(height * row_length, disparity.dtype)
    row_start = np.arange(height)[:, None] * row_length
    left = row_start + np.floor(column).astype(np.intp)
    # On both columns beside its place: no gaps where a surface is spread out.
    for place in (left, left + 1):
        np.maximum.at(nearest, place.ravel(), disparity.ravel())
    seen = nearest[row_start + np.rint(column).astype(np.intp)]
    return np.asarray(seen - disparity <= _SAME_SURFACE_PX)


def _wander(disparity: FloatArray, key: scene_random.Keys, shift_px: float) -> FloatArray:
    """Return the disparity found at each pixel: that of a place nearby."""
    height, width = disparity.shape
    down, across = (
        np.rint(shift_px * _smooth_field(key, f"shift {axis}", height, width)).astype(np.intp)
        for axis in "yx"
    )
    row = (np.arange(height)[:, None] + down).clip(0, height - 1)
    column = (np.arange(width) + across).clip(0, width - 1)
    return np.asarray(disparity[row, column])


def _share_of_window(
    disparity: FloatArray, lit: NDArray[np.bool_], measured: FloatArray, window_px: int
) -> FloatArray:
    """Return the share [H, W] of each pixel's window that is lit and of the measured disparity.

    Every other row and column of the window is looked at.
    """
    height, width = disparity.shape
    reach = window_px // 2
    # No surface is at the disparity of an unlit pixel.
    patterned = np.pad(np.where(lit, disparity, np.inf), reach, mode="edge")
    steps = range(0, window_px, 2)
    count = np.zeros((height, width), np.float32)
    for down in steps:
        for across in steps:
            there = patterned[down : down + height, across : across + width]
            count += np.abs(there - measured) <= _SAME_SURFACE_PX
    return count / len(steps) ** 2


def _smooth_field(key: scene_random.Keys, name: str, height: int, width: int) -> FloatArray:
    """Return noise [H, W] of mean 0 and standard deviation 1, alike over about three pixels."""
    white = scene_random.noise_field(key, name, height + 2, width + 2)[0]
    rows = white[:-2] + white[1:-1] + white[2:]
    return np.asarray((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 3)
