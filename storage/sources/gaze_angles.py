"""Gaze directions from angles, or from vectors of any length."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def directions(vectors: Floats) -> NDArray[np.float32]:
    """Return vectors [..., 3] at length 1; NaN for those of no length, or of an infinite one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        # Squares of very large or small numbers are infinite or nothing.
        moderate = vectors / np.abs(vectors).max(axis=-1, keepdims=True)
        unit = moderate / np.linalg.norm(moderate, axis=-1, keepdims=True)
    return np.asarray(unit, dtype=np.float32)


def directions_of_angles(angles: Floats) -> NDArray[np.float32]:
    """Return the unit vectors [..., 3] of pitch and yaw [..., 2] in radians.

    pitch = asin(−y), yaw = atan2(−x, −z).
    """
    pitch, yaw = np.moveaxis(angles, -1, 0)
    vectors = [-np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)]
    return np.stack(vectors, axis=-1).astype(np.float32)
