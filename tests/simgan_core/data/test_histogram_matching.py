import numpy as np
import pytest

from simgan_core.data.histogram_matching import match_histograms
from simgan_core.errors import InputError


def random_images(seed: int, count: int, channels: int = 1, scale: int = 256) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, scale, (count, 35, 55, channels)).astype(np.uint8)


def test_an_image_without_ties_takes_exactly_the_levels_of_its_partner():
    image = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(1, 16, 16, 1)
    partner = random_images(1, 1, scale=90)[:, :16, :16]
    matched = match_histograms(image, partner, seed=0)
    np.testing.assert_array_equal(np.sort(matched.ravel()), np.sort(partner.ravel()))


def test_order_of_levels_is_kept_so_no_contour_is_lost():
    images, reference = random_images(0, 4), random_images(1, 9, scale=120)
    matched = match_histograms(images, reference, seed=3)
    for image, result in zip(images, matched, strict=True):
        order = np.argsort(image.ravel(), kind="stable")
        assert (np.diff(result.ravel()[order].astype(int)) >= 0).all()


def test_every_channel_is_matched_to_its_own_and_mean_and_spread_follow():
    images = random_images(0, 3, channels=3)
    reference = random_images(1, 1, channels=3) // np.array([1, 2, 4], np.uint8)
    matched = match_histograms(images, reference, seed=0).astype(float)
    for moment in (np.mean, np.std):
        expected = np.tile(moment(reference, axis=(1, 2)), (3, 1))
        np.testing.assert_allclose(moment(matched, axis=(1, 2)), expected, atol=0.5)


def test_an_image_matched_to_itself_stays_as_it_is():
    images = random_images(5, 1)
    np.testing.assert_array_equal(match_histograms(images, images, seed=0), images)


def test_partners_follow_from_the_seed_and_differ_between_images():
    images = np.repeat(random_images(0, 1), 1100, axis=0)
    reference = np.stack([np.full((35, 55, 1), level, np.uint8) for level in range(50)])
    matched = match_histograms(images, reference, seed=1)
    np.testing.assert_array_equal(matched, match_histograms(images, reference, seed=1))
    assert (matched != match_histograms(images, reference, seed=2)).any()
    assert len(np.unique(matched[:, 0, 0, 0])) == 50


def test_a_reference_of_another_size_is_taken():
    small = random_images(1, 2, scale=60)[:, :7, :9]
    matched = match_histograms(random_images(0, 2), small, seed=0)
    assert matched.shape == (2, 35, 55, 1)
    assert matched.max() < 60


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (random_images(0, 2, channels=3), "1 channels and the reference 3"),
        (random_images(0, 2).astype(np.uint16), "uint8"),
        (random_images(0, 0), "no real image"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(reference, message):
    with pytest.raises(InputError, match=message):
        match_histograms(random_images(0, 2), reference, seed=0)


def test_16_bits_are_matched_as_8_bits_are() -> None:
    rng = np.random.default_rng(0)
    images, reference = rng.integers(0, 256, (2, 9, 6, 7, 1), dtype=np.uint8)
    wide = match_histograms(images.astype(np.uint16) * 257, reference.astype(np.uint16) * 257, 5)
    assert wide.dtype == np.uint16
    np.testing.assert_array_equal(wide, match_histograms(images, reference, 5).astype(int) * 257)


def test_8_bits_are_not_matched_to_16() -> None:
    images = np.zeros((2, 3, 4, 1), np.uint8)
    with pytest.raises(InputError, match="images of one type"):
        match_histograms(images, images.astype(np.uint16), 0)
