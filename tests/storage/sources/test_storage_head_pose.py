"""Head poses of different sources in one convention."""

import numpy as np
import pytest

from storage.sources.head_pose import (
    from_rotation_vectors,
    from_unityeyes,
    mirrored,
    to_unityeyes,
)

VECTORS = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 3))


def test_a_frontal_face_is_zero() -> None:
    assert from_unityeyes(np.array([[0.0, 180.0, 0.0]])) == pytest.approx(np.zeros((1, 3)))
    assert from_rotation_vectors(np.zeros((1, 3))) == pytest.approx(np.zeros((1, 3)))


def test_one_turn_alone_is_that_angle() -> None:
    # Axes x right, y down, z into the scene: a turn about +y moves the face to the image's left.
    turns = np.array([[-0.3, 0, 0], [0, 0.4, 0], [0, 0, 0.5]])
    assert from_rotation_vectors(turns) == pytest.approx(np.diag([0.3, 0.4, 0.5]), abs=1e-6)


def test_pitch_and_yaw_are_mpiigazes_formula() -> None:
    for vector in VECTORS:
        angle = np.linalg.norm(vector)
        x, y, z = vector / angle
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
        column = matrix[:, 2]
        expected = [np.arcsin(column[1]), np.arctan2(column[0], column[2])]
        assert from_rotation_vectors(vector[None])[0, :2] == pytest.approx(expected, abs=1e-6)


def test_a_pose_that_is_not_known_stays_so() -> None:
    assert np.isnan(from_rotation_vectors(np.full((2, 3), np.nan))).all()


def test_unityeyes_states_the_cameras_turn() -> None:
    # The first sample: the camera went 23.8° to one side, so the face points to the image's right
    # (the depths in the file grow to the right), and the camera is a little below the face.
    pitch, yaw, _ = np.degrees(from_unityeyes(np.array([[355.0770, 203.8451, 0.0]])))[0]
    assert pitch == pytest.approx(4.50, abs=0.01)
    assert yaw == pytest.approx(-23.92, abs=0.01)


def test_writing_unityeyes_angles_and_reading_them_gives_the_same_pose() -> None:
    angles = to_unityeyes(VECTORS)
    assert angles.min() >= 0
    assert angles.max() < 360
    assert from_unityeyes(angles) == pytest.approx(from_rotation_vectors(VECTORS), abs=1e-6)


def test_mirroring_is_the_mirrored_rotation() -> None:
    # The mirror image of a turn keeps its part about x and reverses the others.
    mirrored_vectors = VECTORS * [1, -1, -1]
    poses = from_rotation_vectors(VECTORS)
    assert mirrored(poses) == pytest.approx(from_rotation_vectors(mirrored_vectors), abs=1e-6)
