"""Gaze from landmarks: the geometry of a turning eyeball, recovered."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from simgan_core.landmarks.gaze import (
    IRIS_DIAMETER_MM,
    IRIS_PATH_RADIUS_MM,
    LEVEL_IRIS_HEIGHT,
    gaze_from_landmarks,
)
from simgan_core.landmarks.model import LandmarkModel, Landmarks


def eyes_that_look(pitch_deg: np.ndarray, yaw_deg: np.ndarray, iris_px: float = 18.0) -> Landmarks:
    """Landmarks of an orthographic eye that turns about its centre, inner corner on the left."""
    per_mm = iris_px / IRIS_DIAMETER_MM
    right = -np.sin(np.radians(yaw_deg)) * IRIS_PATH_RADIUS_MM * per_mm
    down = -np.sin(np.radians(pitch_deg)) * IRIS_PATH_RADIUS_MM * per_mm
    iris = np.array([32.0, 20.0]) + np.stack([right, down - LEVEL_IRIS_HEIGHT * iris_px], axis=1)
    corners = np.broadcast_to(np.array([[8.0, 22.0], [56.0, 18.0]]), (len(iris), 2, 2))
    ends = iris[:, None] + np.array([[-iris_px / 2, 0], [iris_px / 2, 0]])
    points = np.concatenate([corners, iris[:, None], ends], axis=1).astype(np.float32)
    return Landmarks(points, np.full((len(iris), 5), 0.01, np.float32))


def test_the_gaze_of_a_turning_eyeball_is_recovered_at_any_scale() -> None:
    pitch, yaw = (each.ravel() for each in np.meshgrid([-20.0, 0.0, 15.0], [-30.0, 0.0, 30.0]))
    for iris_px in (12.0, 18.0, 40.0):
        found = gaze_from_landmarks(eyes_that_look(pitch, yaw, iris_px))
        np.testing.assert_allclose(found, np.stack([pitch, yaw], axis=1), atol=1e-3)


def test_images_without_landmarks_have_no_gaze_and_no_part_in_the_scale() -> None:
    eyes = eyes_that_look(np.zeros(4), np.array([0.0, 10.0, 20.0, -20.0]))
    eyes.spread[1, 0] = np.inf
    eyes.points[2, 3] = np.nan
    eyes.points[1, 4] += 500
    found = gaze_from_landmarks(eyes)
    assert np.isnan(found[1:3]).all()
    np.testing.assert_allclose(found[[0, 3], 1], [0.0, -20.0], atol=1e-3)
    eyes.spread[:] = np.inf
    assert np.isnan(gaze_from_landmarks(eyes)).all()


def test_misplaced_landmarks_have_limited_angles() -> None:
    eyes = eyes_that_look(np.zeros(5), np.zeros(5))
    eyes.points[0, 2:] += 1000
    found = gaze_from_landmarks(eyes)
    assert found[0] == pytest.approx([-40.0, -40.0])


@pytest.mark.parametrize("file", ["columbia/columbia_people_01_28.h5", "mpiigaze/p00_left_eval.h5"])
def test_mean_pitch_of_people_is_found_within_a_degree(shared_data: Path, file: str) -> None:
    with h5py.File(shared_data / file) as people:
        # Every 7th image of either: all people, head turns and days.
        images, pitchyaw = people["image"][::7], np.degrees(people["gaze_pitchyaw"][::7])
    found = gaze_from_landmarks(LandmarkModel.load().predict(images[..., None]))
    is_found = np.isfinite(found).all(axis=1)
    assert is_found.mean() > 0.95
    assert found[is_found, 0].mean() == pytest.approx(pitchyaw[is_found, 0].mean(), abs=1)
    assert np.corrcoef(found[is_found, 0], pitchyaw[is_found, 0])[0, 1] > 0.6
