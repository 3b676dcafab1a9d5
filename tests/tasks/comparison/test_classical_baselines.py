import numpy as np
import pytest

from simgan_core.gaze import angular_error_deg, gaze_from_pitchyaw
from simgan_core.simulator.eyes import render, sample_scenes
from tasks.comparison.classical_baselines import TITLES, predict_by


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    scenes = sample_scenes("synthetic", 200, seed=3)
    # Every second pixel: the principal components of all of them take seconds.
    images = render(scenes, "crop", 35, 55).images[:, ::2, ::2]
    return images, scenes.gaze.astype(np.float32)


@pytest.mark.parametrize("method", list(TITLES))
def test_every_method_beats_the_mean_and_says_the_same_twice(method, pictures):
    images, gaze = pictures
    first, again = (
        predict_by(method, images[:150], gaze[:150], images[150:], seed=1) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    constant_deg = angular_error_deg(gaze[:150].mean(axis=0), gaze[150:]).mean()
    assert angular_error_deg(first, gaze[150:]).mean() < 0.9 * constant_deg


def test_the_nearest_neighbours_are_the_mean_of_the_ten_nearest():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 4, 5, 1), dtype=np.uint8)
    angles = rng.uniform(-0.3, 0.3, (60, 2))
    found = predict_by("knn", images[:50], gaze_from_pitchyaw(angles[:50]), images[50:], seed=0)
    flat = images.reshape(60, -1).astype(float)
    for row in range(10):
        nearest = np.argsort(((flat[:50] - flat[50 + row]) ** 2).sum(axis=1))[:10]
        expected = gaze_from_pitchyaw(angles[:50][nearest].mean(axis=0))
        assert angular_error_deg(found[row], expected) < 1e-3


def test_16_bits_say_what_8_bits_say(pictures):
    images, gaze = pictures
    wide = images.astype(np.uint16) * 257
    predictions = [
        predict_by("ridge", each[:150], gaze[:150], each[150:], seed=0) for each in (images, wide)
    ]
    np.testing.assert_allclose(*predictions, atol=1e-5)
