"""Head poses: pitch, yaw and roll in radians, from the two conventions of the sources.

Ours is the rotation M = Ry(yaw) · Rx(−pitch) · Rz(roll) of a head that faces the camera, in the
camera's frame (x right, y down, z into the scene). With Z its third column, pitch = asin(Z_y) and
yaw = atan2(Z_x, Z_z), which is how MPIIGaze states its poses; −Z is where the face points, and has
the same pitch and yaw as a gaze of that direction.

UnityEyes states the turn of the *camera* in the head's frame instead, as Unity's Euler angles
(degrees; x right, y up, z forward; about z first, then x, then y), which is why a frontal face has
(0, 180, 0). The depths of the eyelids in its files bear this out: where the second angle exceeds
180°, the image's right side is farther away, so the face points to the image's right, and our yaw
is negative.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

# Turns y up into y down, and the camera's turn in the head's frame into the head's turn in the
# camera's; its own inverse.
_FLIP = np.diag([-1.0, 1.0, -1.0])


def from_rotation_vectors(vectors: Floats) -> NDArray[np.float32]:
    """Return pitch, yaw and roll [N, 3] of rotation vectors [N, 3] (axis times radians)."""
    return _pitch_yaw_roll(_matrices_of_vectors(vectors))


def from_matrices(matrices: Floats) -> NDArray[np.float32]:
    """Return pitch, yaw and roll [N, 3] of rotation matrices [N, 3, 3]."""
    return _pitch_yaw_roll(matrices)


def from_unityeyes(angles_deg: Floats) -> NDArray[np.float32]:
    """Return pitch, yaw and roll [..., 3] of UnityEyes' `head_pose` [..., 3] in degrees."""
    radians = np.radians(angles_deg)
    sines, cosines = np.sin(radians), np.cos(radians)
    sin_x, sin_y, sin_z = sines[..., 0], sines[..., 1], sines[..., 2]
    cos_x, cos_y, cos_z = cosines[..., 0], cosines[..., 1], cosines[..., 2]
    # The entries that count of _FLIP · (Ry(y) · Rx(x) · Rz(z))ᵀ, the head's turn: to multiply
    # matrices of one sample takes longer than to decode its image.
    pitch = np.arcsin(np.clip(sin_y * sin_z + cos_y * sin_x * cos_z, -1, 1))
    yaw = np.arctan2(sin_y * cos_z - cos_y * sin_x * sin_z, -cos_y * cos_x)
    roll = np.arctan2(sin_y * sin_x * cos_z - cos_y * sin_z, cos_x * cos_z)
    return np.stack([pitch, yaw, roll], axis=-1).astype(np.float32)


def to_unityeyes(vectors: Floats) -> NDArray[np.float64]:
    """Return UnityEyes' `head_pose` [N, 3] in degrees, 0 to 360, of rotation vectors [N, 3]."""
    return matrices_to_unityeyes(_matrices_of_vectors(vectors))


def matrices_to_unityeyes(matrices: Floats) -> NDArray[np.float64]:
    """Return UnityEyes' `head_pose` [N, 3] in degrees, 0 to 360, of rotation matrices [N, 3, 3]."""
    camera = np.asarray(matrices, np.float64).swapaxes(-1, -2) @ _FLIP
    x = np.arcsin(np.clip(-camera[..., 1, 2], -1, 1))
    y = np.arctan2(camera[..., 0, 2], camera[..., 2, 2])
    z = np.arctan2(camera[..., 1, 0], camera[..., 1, 1])
    return np.asarray(np.degrees(np.stack([x, y, z], axis=-1)) % 360)


def mirrored(poses: Floats) -> Floats:
    """Return the poses [..., 3] of the mirrored images: yaw and roll change sign."""
    return poses * np.array([1, -1, -1], dtype=poses.dtype)


def _pitch_yaw_roll(matrices: Floats) -> NDArray[np.float32]:
    pitch = np.arcsin(np.clip(matrices[..., 1, 2], -1, 1))
    yaw = np.arctan2(matrices[..., 0, 2], matrices[..., 2, 2])
    roll = np.arctan2(matrices[..., 1, 0], matrices[..., 1, 1])
    return np.stack([pitch, yaw, roll], axis=-1).astype(np.float32)


def _matrices_of_vectors(vectors: Floats) -> NDArray[np.float64]:
    """Return the matrices [N, 3, 3] of rotation vectors, by the formula of Rodrigues."""
    wide = np.asarray(vectors, dtype=np.float64)
    angle = np.linalg.norm(wide, axis=-1, keepdims=True)
    x, y, z = np.moveaxis(wide / np.where(angle == 0, 1, angle), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    sine, cosine = np.sin(angle)[..., None], np.cos(angle)[..., None]
    return np.asarray(np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross))
