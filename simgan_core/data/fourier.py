"""Fourier domain adaptation: low-frequency amplitudes of real images, phases of synthetic ones.

Yang & Soatto, CVPR 2020 (FDA). Costs no network; the opponent of a refiner that acts on broad
light and contrast, where histogram matching acts on the order of grey levels.
"""

import numpy as np

from simgan_core.data.histogram_matching import Pixels
from simgan_core.errors import InputError

WINDOW = 0.05
"""Half the side of the window of swapped frequencies, as a share of the image's shorter side (the
paper's β; it finds 0.01 to 0.09 useful)."""
_AT_ONCE = 1024


def swap_amplitudes(images: Pixels, reference: Pixels, seed: int) -> Pixels:
    """Replace every image's low-frequency amplitudes by those of a random real image (FDA).

    Images [N, H, W, C] and reference [M, H, W, C], both uint8 or uint16, channel by channel; the
    result is like `images`, rounded and clipped to the type's range. Raises InputError where sizes
    or types differ, or none is a reference.
    """
    if images.dtype != reference.dtype or images.shape[1:] != reference.shape[1:]:
        raise InputError(
            f"images {images.dtype} {list(images.shape[1:])} and real images {reference.dtype} "
            f"{list(reference.shape[1:])} (height, width, channels) should be alike to swap "
            "amplitudes"
        )
    if len(reference) == 0:
        raise InputError("there is no real image to take amplitudes from")
    partners = np.random.default_rng(seed).integers(0, len(reference), len(images))
    swapped = np.empty_like(images)
    for first in range(0, len(images), _AT_ONCE):
        block = slice(first, first + _AT_ONCE)
        swapped[block] = _swap(images[block], reference[partners[block]])
    return swapped


def _swap(images: Pixels, partners: Pixels) -> Pixels:
    """Swap amplitudes of images [N, H, W, C] with as many partners, each with its own."""
    height, width = images.shape[1:3]
    spectra, theirs = (np.fft.rfft2(each, axes=(1, 2)) for each in (images, partners))
    reach = max(1, int(WINDOW * min(height, width)))
    # Rows of frequency −reach … reach; columns are the half of the plane that rfft2 keeps.
    rows = np.r_[0 : reach + 1, height - reach : height]
    low = np.ix_(range(len(images)), rows, range(reach + 1))
    phase = np.exp(1j * np.angle(spectra[low]))
    spectra[low] = np.abs(theirs[low]) * phase
    restored = np.fft.irfft2(spectra, s=(height, width), axes=(1, 2))
    top = np.iinfo(images.dtype).max
    result = np.empty_like(images)
    result[...] = np.clip(np.rint(restored), 0, top)
    return result
