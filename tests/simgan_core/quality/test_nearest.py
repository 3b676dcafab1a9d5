"""The most alike image is found, and the distance is what it says."""

import numpy as np
import pytest

from simgan_core.errors import InputError
from simgan_core.quality.nearest import describe, nearest


def _noise(count: int, seed: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return np.random.default_rng(seed).integers(0, 256, (count, 35, 55, 1), dtype=np.uint8)


def test_image_is_most_like_itself() -> None:
    images = _noise(40, 0)
    found, distance = nearest(images[::-1], images)
    np.testing.assert_array_equal(found, np.arange(40)[::-1])
    assert distance.max() < 0.1


def test_agrees_with_trying_every_pair() -> None:
    images, among = _noise(12, 0), _noise(30, 1)
    difference = describe(images)[:, None] - describe(among)[None]
    table = np.sqrt((difference.astype(np.float64) ** 2).mean(-1))
    found, distance = nearest(images, among)
    np.testing.assert_array_equal(found, table.argmin(1))
    np.testing.assert_allclose(distance, table.min(1), rtol=1e-3)


def test_rough_image_is_more_like_a_rough_one_of_the_same_tones() -> None:
    tones = np.linspace(60, 190, 55)[None, None, :, None].repeat(35, 1)
    grain = np.random.default_rng(0).normal(0, 25, (3, 35, 55, 1))
    smooth = tones.astype(np.uint8)
    rough = (tones + grain).astype(np.uint8)
    found, _ = nearest(rough[:1], np.concatenate([smooth, rough[1:]]))
    assert found[0] in (1, 2)


@pytest.mark.parametrize("shape", [(5, 8, 3), (224, 224, 1), (36, 60, 1)])
def test_any_size_is_described(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    found, _ = nearest(images, images)
    assert found.tolist() == [0, 1, 2]


def test_images_of_two_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="of the same size"):
        nearest(_noise(2, 0), _noise(2, 0)[:, :30])
