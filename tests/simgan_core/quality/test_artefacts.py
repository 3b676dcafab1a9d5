import numpy as np
import pytest
from numpy.typing import NDArray

from simgan_core.errors import InputError
from simgan_core.quality.artefacts import PATCH_PX, ArtefactDetector
from simgan_core.simulator.eyes import render, sample_scenes


@pytest.fixture(scope="module")
def eyes() -> NDArray[np.uint8]:
    return render(sample_scenes("real", 210, seed=1), "crop", 35, 55).images


@pytest.fixture(scope="module")
def real(eyes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return eyes[:150]


@pytest.fixture(scope="module")
def detector(real: NDArray[np.uint8]) -> ArtefactDetector:
    return ArtefactDetector(real)


def test_other_images_of_the_real_kind_have_a_hundredth(
    detector: ArtefactDetector, eyes: NDArray[np.uint8]
):
    assert 0.005 < detector.share(eyes[150:]) < 0.02


def test_a_faint_checkerboard_is_an_artefact_and_another_tone_is_none(
    detector: ArtefactDetector, real: NDArray[np.uint8]
):
    row, column = np.indices(real.shape[1:3])
    board = np.where((row + column) % 2, 20, -20)[..., None]
    spoilt = (real.astype(int) + board).clip(0, 255).astype(np.uint8)
    assert detector.share(spoilt) > 0.5
    lighter = (real.astype(int) * 0.8 + 40).astype(np.uint8)
    assert detector.share(lighter) < 0.03


def test_distances_are_those_of_a_plain_search(detector: ArtefactDetector, real: NDArray[np.uint8]):
    image = real[7:8]
    found = detector.distances(image)
    assert found.shape == (1, 35 - PATCH_PX + 1, 55 - PATCH_PX + 1)
    for row, column in ((0, 0), (11, 30), (28, 48)):
        patch = image[0, row : row + PATCH_PX, column : column + PATCH_PX, 0].ravel() / 255
        whitened = (patch - patch.mean()) @ detector._whitening
        nearest = min(np.linalg.norm(whitened - other) for other in detector._references)
        assert found[0, row, column] == pytest.approx(nearest, rel=1e-2, abs=0.05)


def test_sixteen_bits_and_colour_are_taken(real: NDArray[np.uint8], detector: ArtefactDetector):
    wide = real.astype(np.uint16) * 257
    assert ArtefactDetector(wide).limit == pytest.approx(detector.limit, rel=0.02)
    colour = np.repeat(real[:20], 3, axis=3)
    assert 0 <= ArtefactDetector(colour).share(colour) < 0.05


def test_one_real_image_is_refused(real: NDArray[np.uint8]):
    with pytest.raises(InputError, match="at least 2 real images"):
        ArtefactDetector(real[:1])
