"""Gaze directions: unit vectors, pitch and yaw, and the angle between two of them.

A gaze is a unit vector in the camera frame, x right, y down, z into the scene, so that an eye that
looks into the camera has z = −1. Pitch is positive upward and yaw is positive to the image's left;
both are radians.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating[Any]]


def gaze_from_pitchyaw(pitchyaw: ArrayLike) -> FloatArray:
    """Return the unit vectors [..., 3] of pitch and yaw [..., 2] in radians, keeping float32."""
    angles = _as_floats(pitchyaw)
    pitch, yaw = angles[..., 0], angles[..., 1]
    return np.stack(
        [-np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)], axis=-1
    )


def pitchyaw_from_gaze(gaze: ArrayLike) -> FloatArray:
    """Return pitch and yaw [..., 2] in radians of vectors [..., 3] of any length but zero.

    Pitch comes from atan2 rather than from asin(−y): the same for unit vectors, exact near ±90°,
    and never NaN when rounding makes a component exceed 1.
    """
    x, y, z = np.moveaxis(_as_floats(gaze), -1, 0)
    return np.stack([np.arctan2(-y, np.hypot(x, z)), np.arctan2(-x, -z)], axis=-1)


def angular_error_deg(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Return the angle in degrees, 0 to 180, between vectors a and b [..., 3], as float64 [...].

    The atan2 of cross and dot product resolves angles that an arccos rounds to 0 (below about
    0.03° in float32), and needs neither unit length nor clipping.
    """
    a64, b64 = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    sine = np.linalg.norm(np.cross(a64, b64), axis=-1)
    cosine = np.sum(a64 * b64, axis=-1)
    return np.asarray(np.degrees(np.arctan2(sine, cosine)), dtype=np.float64)


def _as_floats(values: ArrayLike) -> FloatArray:
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
