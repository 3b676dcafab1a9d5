import numpy as np
import pytest

from simgan_core.data.preprocess import equalize, preprocess
from simgan_core.errors import InputError


def equalized_by_hand(plane: np.ndarray) -> np.ndarray:
    levels = np.sort(plane.ravel())
    darkest = np.count_nonzero(levels == levels[0])
    if darkest == levels.size:
        return plane
    scale = np.float32(255) / np.float32(levels.size - darkest)
    return np.array(
        [
            [round(float(np.float32(np.count_nonzero(levels <= v) - darkest) * scale)) for v in row]
            for row in plane
        ],
        np.uint8,
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_agrees_with_a_loop_over_images_channels_and_pixels(channels):
    rng = np.random.default_rng(0)
    images = rng.normal(120, [[[[20]]], [[[60]]], [[[2]]]], size=(3, 9, 14, channels))
    images = images.clip(0, 255).astype(np.uint8)
    expected = np.empty_like(images)
    for i in range(len(images)):
        for c in range(channels):
            expected[i, :, :, c] = equalized_by_hand(images[i, :, :, c])
    np.testing.assert_array_equal(preprocess(images, "equalize"), expected)


def test_four_levels_are_spread_over_the_range():
    image = np.array([[10, 11], [12, 13]], np.uint8)[None, :, :, None]
    np.testing.assert_array_equal(equalize(image).ravel(), [0, 85, 170, 255])


def test_an_image_of_one_level_stays_as_it_is():
    image = np.full((2, 4, 5, 1), 77, np.uint8)
    np.testing.assert_array_equal(equalize(image), image)


def test_equalizing_twice_changes_no_level_by_more_than_rounding():
    image = np.random.default_rng(2).integers(0, 256, (4, 35, 55, 1), dtype=np.uint8)
    once = equalize(image).astype(int)
    assert np.abs(equalize(once.astype(np.uint8)) - once).max() <= 1


def test_none_returns_the_same_images():
    images = np.zeros((1, 2, 2, 1), np.uint16)
    assert preprocess(images, "none") is images


def test_16_bit_images_are_refused_with_what_to_do():
    with pytest.raises(InputError, match=r"uint16.*use preprocess 'none'"):
        preprocess(np.zeros((1, 2, 2, 1), np.uint16), "equalize")


def test_no_images_give_no_images():
    assert equalize(np.zeros((0, 35, 55, 1), np.uint8)).shape == (0, 35, 55, 1)
