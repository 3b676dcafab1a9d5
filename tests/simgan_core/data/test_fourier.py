import numpy as np
import pytest

from simgan_core.data.fourier import swap_amplitudes
from simgan_core.errors import InputError


def random_images(seed: int, count: int, top: int = 256) -> np.ndarray:
    smooth = np.random.default_rng(seed).normal(0, 1, (count, 35, 55, 1))
    for axis in (1, 2):
        smooth = np.asarray(sum(np.roll(smooth, k, axis) for k in range(-4, 5))) / 9
    return np.clip(top * (0.5 + 0.8 * smooth), 0, top - 1).astype(np.uint8)


def test_an_image_swapped_with_itself_stays_as_it_is() -> None:
    image = random_images(0, 1)
    np.testing.assert_array_equal(swap_amplitudes(image, image, seed=0), image)


def test_brightness_is_the_partners_and_fine_detail_the_images_own() -> None:
    image = random_images(0, 1) // 2 + 60
    partner = image // 4 + 150
    swapped = swap_amplitudes(image, partner, seed=0)
    assert swapped.mean() == pytest.approx(partner.mean(), abs=1)
    spectra = [np.fft.fft2(each[0, :, :, 0].astype(float)) for each in (image, swapped)]
    high = (slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(spectra[1][high], spectra[0][high], atol=80)


def test_the_seed_decides_the_partners() -> None:
    images, reference = random_images(0, 40), random_images(1, 30) // 2
    swapped = swap_amplitudes(images, reference, seed=1)
    np.testing.assert_array_equal(swapped, swap_amplitudes(images, reference, seed=1))
    assert (swapped != swap_amplitudes(images, reference, seed=2)).any()


def test_real_images_of_another_size_or_none_are_refused() -> None:
    with pytest.raises(InputError, match="should be alike"):
        swap_amplitudes(random_images(0, 2), random_images(0, 2)[:, :30], seed=0)
    with pytest.raises(InputError, match="no real image"):
        swap_amplitudes(random_images(0, 2), random_images(0, 2)[:0], seed=0)
