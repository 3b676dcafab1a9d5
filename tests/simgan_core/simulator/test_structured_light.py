import numpy as np
import pytest

from simgan_core.simulator.scene_random import derive_keys
from simgan_core.simulator.structured_light import KINECT, sees_projector, sense

FOCAL_TIMES_BASELINE = KINECT.focal_px * KINECT.baseline_mm


def key(number: int) -> np.ndarray:
    return derive_keys(0, "test", np.array([number]))


def box_before_wall(near_mm: float, far_mm: float) -> np.ndarray:
    depth_mm = np.full((60, 120), far_mm)
    depth_mm[20:40, 60:90] = near_mm
    return depth_mm


def test_a_box_throws_a_shadow_to_the_left_as_wide_as_the_disparities_differ():
    disparity = FOCAL_TIMES_BASELINE / box_before_wall(700, 1000)
    lit = sees_projector(disparity)
    assert lit[20:40, 60:90].all()
    assert lit[:, 90:].all()
    assert lit[:20].all()
    width_px = FOCAL_TIMES_BASELINE * (1 / 700 - 1 / 1000)
    assert (~lit[30, :60]).sum() == pytest.approx(width_px, abs=1.5)
    assert not lit[30, 60 - int(width_px) + 1 : 60].any()


def test_a_flat_wall_is_measured_everywhere_without_bias():
    measured = sense(np.full((60, 120), 731.0), key(0), KINECT)
    assert np.isfinite(measured).all()
    assert measured.mean() == pytest.approx(731, abs=0.2)
    assert 0.5 < measured.std() < 2


@pytest.mark.parametrize("distance_mm", [600.0, 1200.0])
def test_depth_comes_in_steps_that_grow_with_the_distance_squared(distance_mm: float):
    measured = np.unique(sense(np.full((60, 120), distance_mm), key(1), KINECT))
    step_mm = distance_mm**2 * KINECT.step_px / FOCAL_TIMES_BASELINE
    np.testing.assert_allclose(np.diff(measured), step_mm, rtol=0.02)


def test_holes_and_ragged_contours_are_at_edges_alone():
    depth_mm = box_before_wall(700, 720)
    measured = sense(depth_mm, key(2), KINECT)
    away = np.ones_like(depth_mm, bool)
    away[10:50, 50:100] = False
    away[28:32, 70:80] = True
    assert np.isfinite(measured[away]).all()
    np.testing.assert_allclose(measured[away], depth_mm[away], atol=6)
    columns = [np.flatnonzero(row < 710)[-1] for row in measured[22:38]]
    assert len(set(columns)) >= 3
    assert np.isnan(measured).any()


def test_a_key_decides_the_noise():
    depth_mm = box_before_wall(700, 1000)
    first, again, other = (sense(depth_mm, key(k), KINECT) for k in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)
