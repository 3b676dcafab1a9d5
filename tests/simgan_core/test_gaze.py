import numpy as np
import pytest

from simgan_core.gaze import angular_error_deg, gaze_from_pitchyaw, pitchyaw_from_gaze

HALF_SQRT2, HALF_SQRT3 = np.sqrt(2) / 2, np.sqrt(3) / 2


@pytest.mark.parametrize(
    ("pitch_deg", "yaw_deg", "gaze"),
    [
        (0, 0, (0, 0, -1)),
        (30, 0, (0, -0.5, -HALF_SQRT3)),
        (-90, 0, (0, 1, 0)),
        (0, 45, (-HALF_SQRT2, 0, -HALF_SQRT2)),
        (0, 180, (0, 0, 1)),
        (30, -30, (0.5 * HALF_SQRT3, -0.5, -0.75)),
    ],
)
def test_pitch_is_up_and_yaw_is_to_the_left_of_the_image(pitch_deg, yaw_deg, gaze):
    np.testing.assert_allclose(
        gaze_from_pitchyaw(np.radians([pitch_deg, yaw_deg])), gaze, atol=1e-15
    )


def test_pitch_and_yaw_come_back_from_the_vector():
    pitchyaw = np.random.default_rng(0).uniform(-1.5, 1.5, size=(4, 50, 2))
    np.testing.assert_allclose(pitchyaw_from_gaze(gaze_from_pitchyaw(pitchyaw)), pitchyaw)


def test_float32_stays_float32_and_integers_are_taken():
    assert gaze_from_pitchyaw(np.zeros((3, 2), np.float32)).dtype == np.float32
    np.testing.assert_allclose(pitchyaw_from_gaze([0, 0, -2]), [0, 0])


def test_a_component_rounded_beyond_one_gives_no_nan():
    pitch, yaw = pitchyaw_from_gaze(np.array([0, np.nextafter(1, 2), 0]))
    assert pitch == pytest.approx(-np.pi / 2)
    assert np.isfinite(yaw)


@pytest.mark.parametrize(
    ("a", "b", "angle_deg"),
    [
        ((0, 0, -1), (0, 0, -1), 0),
        ((0, 0, -1), (0, 0, 1), 180),
        ((1, 0, 0), (0, 1, 0), 90),
        ((0, 0, -1), (0, 0.5, -HALF_SQRT3), 30),
        ((0, 0, -3), (0, 2, -2), 45),
    ],
)
def test_the_angle_is_right_from_0_to_180_degrees(a, b, angle_deg):
    assert angular_error_deg(a, b) == pytest.approx(angle_deg, abs=1e-12)


@pytest.mark.parametrize("angle_deg", [1e-9, 1e-5, 180 - 1e-5])
def test_angles_near_0_and_180_keep_their_digits(angle_deg):
    rotated = gaze_from_pitchyaw(np.radians([angle_deg, 0.0]))
    assert angular_error_deg([0, 0, -1], rotated) == pytest.approx(angle_deg, rel=1e-9)


def test_equal_float32_unit_vectors_give_no_nan():
    gaze = gaze_from_pitchyaw(np.random.default_rng(1).normal(size=(1000, 2)).astype(np.float32))
    assert angular_error_deg(gaze, gaze).max() < 1e-5
    assert angular_error_deg(gaze, -gaze).min() > 180 - 1e-5
