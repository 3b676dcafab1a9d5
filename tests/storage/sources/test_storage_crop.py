"""The one crop rule."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from storage.sources.crop import Box, Size, box_around, centre_box, crop_and_resize, to_crop


def random_images(*shape: int, dtype: type = np.uint8) -> NDArray[np.integer]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)


def test_the_centre_box_keeps_the_targets_proportions() -> None:
    wide = centre_box(Size(36, 60), Size(35, 55))
    assert wide == pytest.approx(Box((60 - 36 * 55 / 35) / 2, 0, 36 * 55 / 35, 36))
    tall = centre_box(Size(80, 110), Size(35, 55))
    assert tall == pytest.approx(Box(0, 5, 110, 70))


def test_a_box_around_a_point_has_it_in_its_middle() -> None:
    assert box_around(50, 40, 22, Size(35, 55)) == pytest.approx(Box(39, 33, 22, 14))


def test_an_image_of_the_right_size_stays_as_it_is() -> None:
    images = random_images(3, 35, 55, 1)
    same = crop_and_resize(images, centre_box(Size(35, 55), Size(35, 55)), Size(35, 55))
    assert np.array_equal(same, images)


def test_a_whole_reduction_is_the_mean_of_blocks() -> None:
    images = random_images(5, 12, 20, 3)
    means = images.reshape(5, 4, 3, 5, 4, 3).mean(axis=(2, 4))
    resized = crop_and_resize(images, Box(0, 0, 20, 12), Size(4, 5))
    assert np.abs(resized - means).max() <= 0.5


def test_it_agrees_with_pillows_box_filter_on_whole_reductions() -> None:
    image = random_images(1, 60, 80, 1)
    reduced = Image.fromarray(image[0, :, :, 0]).reduce(4)
    ours = crop_and_resize(image, Box(0, 0, 80, 60), Size(15, 20))[0, :, :, 0]
    assert np.abs(ours.astype(int) - np.asarray(reduced)).max() <= 1


def test_parts_of_pixels_count_by_their_share() -> None:
    image = np.array([0, 100, 200, 40], np.uint8).reshape(1, 1, 4, 1)
    # The box from 0.5 to 3.5 in two steps: half of 0, then 100; 200, then half of 40.
    resized = crop_and_resize(image, Box(0.5, 0, 3, 1), Size(1, 2))
    assert resized.ravel().tolist() == [67, 147]


def test_the_frames_border_goes_on_beyond_it() -> None:
    image = np.array([[10, 20], [30, 40]], np.uint8).reshape(1, 2, 2, 1)
    resized = crop_and_resize(image, Box(-4, -4, 8, 8), Size(2, 2))
    assert resized[0, 0, 0, 0] == 10
    beyond = crop_and_resize(image, Box(50, 50, 4, 4), Size(2, 2))
    assert (beyond == 40).all()


def test_16_bits_keep_their_scale() -> None:
    image = np.full((1, 20, 20, 1), 65_535, np.uint16)
    resized = crop_and_resize(image, Box(1.3, 2.1, 11.7, 9.9), Size(4, 5))
    assert resized.dtype == np.uint16
    assert (resized == 65_535).all()


def test_an_image_comes_out_the_same_in_any_batch() -> None:
    images = random_images(70, 36, 60, 1)
    box, size = centre_box(Size(36, 60), Size(35, 55)), Size(35, 55)
    alone = np.concatenate([crop_and_resize(images[i : i + 1], box, size) for i in range(70)])
    assert np.array_equal(crop_and_resize(images, box, size), alone)


def test_points_move_with_their_pixels() -> None:
    image = np.zeros((1, 40, 60, 1), np.uint8)
    image[0, 22, 31] = 255
    box, size = Box(12, 10, 40, 20), Size(10, 20)
    bright = np.argwhere(crop_and_resize(image, box, size)[0, :, :, 0])
    point = to_crop(np.array([31.5, 22.5]), box, size)
    assert bright.tolist() == [[int(point[1]), int(point[0])]]
    assert point.tolist() == [9.75, 6.25]
    assert point.dtype == np.float32
