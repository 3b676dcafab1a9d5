import numpy as np
import pytest
import torch

from simgan_core.data.preprocess import equalize
from simgan_core.errors import InputError
from simgan_core.quality.pupil import fit_pupils, locate_pupil
from simgan_core.simulator.eyes import render, sample_scenes

NUM_EYES = 200


def drawn_eyes(
    centres_px: np.ndarray, iris_level: float, pupil_level: float, size: tuple[int, int] = (35, 55)
) -> np.ndarray:
    """Draw a disc in a disc on white between skin-grey lids; 4×4 samples a pixel, float [N, H, W].

    The lids cut the iris, of radius 7 at a width of 55 pixels, above and below.
    """
    height, width = size
    scale = width / 55
    fine = (np.arange(4 * max(size)) + 0.5) / 4
    x, y = fine[None, None, : 4 * width], fine[None, : 4 * height, None]
    from_centre = np.hypot(x - centres_px[:, :1, None], y - centres_px[:, 1:, None])
    eyes = np.where(from_centre < 7 * scale, iris_level, 210.0)
    eyes[from_centre < 3 * scale] = pupil_level
    lids = np.abs(y - height / 2 - 1) > (7.5 - ((x - width / 2) / scale / 12) ** 2) * scale
    eyes[np.broadcast_to(lids, eyes.shape)] = 130
    return eyes.reshape(len(eyes), height, 4, width, 4).mean(axis=(2, 4))


def as_pixels(eyes: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Round eyes [N, H, W] to uint8 [N, H, W, 1], after noise of this standard deviation."""
    noisy = eyes + np.random.default_rng(0).normal(0, noise, eyes.shape)
    return np.rint(noisy.clip(0, 255)).astype(np.uint8)[..., None]


def centres_near_the_middle(seed: int, scale: float = 1.0) -> np.ndarray:
    offsets = np.random.default_rng(seed).uniform([-9, -2], [9, 2], (NUM_EYES, 2))
    return (np.array([27.5, 18.5]) + offsets) * scale


def jittered(centres_px: np.ndarray, sd_px: float = 0.7) -> np.ndarray:
    return centres_px + np.random.default_rng(9).normal(0, sd_px, centres_px.shape)


def median_miss_px(images: np.ndarray, centres_px: np.ndarray, sd_px: float = 0.7) -> float:
    located, found = locate_pupil(images, jittered(centres_px, sd_px))
    assert found.mean() > 0.97
    return float(np.median(np.linalg.norm(located - centres_px, axis=1)[found]))


@pytest.mark.parametrize(
    ("iris_level", "pupil_level"), [(25, 25), (120, 20), (190, 20)], ids=["dark", "mid", "light"]
)
def test_a_drawn_centre_is_found_whether_iris_or_pupil_or_both_are_seen(iris_level, pupil_level):
    centres = centres_near_the_middle(seed=1)
    eyes = drawn_eyes(centres, iris_level, pupil_level)
    assert median_miss_px(as_pixels(eyes), centres) < 0.15
    assert median_miss_px(as_pixels(eyes, noise=12), centres) < 0.3


def test_images_of_another_size_are_measured_by_their_width():
    centres = centres_near_the_middle(seed=2, scale=2)
    eyes = as_pixels(drawn_eyes(centres, 60, 20, size=(70, 110)))
    assert median_miss_px(eyes, centres, sd_px=1.4) < 0.3


def test_rendered_pupils_are_found():
    rendered = render(sample_scenes("synthetic", NUM_EYES, seed=11), "crop", 35, 55)
    assert median_miss_px(rendered.images, rendered.pupil_px) < 0.2
    assert median_miss_px(equalize(rendered.images), rendered.pupil_px) < 0.3


def test_an_image_has_no_influence_on_anothers_result():
    centres = centres_near_the_middle(seed=3)
    images, start = as_pixels(drawn_eyes(centres, 60, 20)), jittered(centres)
    together, _ = locate_pupil(images, start)
    few, _ = locate_pupil(images[:7], start[:7])
    alone, _ = locate_pupil(images[7:8], start[7:8])
    np.testing.assert_array_equal(np.concatenate([few, alone]), together[:8])
    elsewhere, _ = locate_pupil(images.repeat(3, axis=0), start.repeat(3, axis=0))
    np.testing.assert_array_equal(elsewhere, together.repeat(3, axis=0))


def assert_same_pupils(
    located: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]
) -> None:
    (centres, found), (expected_centres, expected_found) = located, expected
    assert (found == expected_found).mean() >= 0.999
    both = found & expected_found
    assert both.mean() > 0.9
    np.testing.assert_allclose(centres[both], expected_centres[both], rtol=0, atol=0.01)


def test_tensors_are_fitted_as_arrays_are():
    rendered = render(sample_scenes("synthetic", 2 * NUM_EYES, seed=12), "crop", 35, 55)
    start = jittered(rendered.pupil_px).astype(np.float32)
    centres, found = fit_pupils(torch.from_numpy(rendered.images), torch.from_numpy(start))
    assert_same_pupils((centres.numpy(), found.numpy()), fit_pupils(rendered.images, start))


@pytest.mark.gpu("the fit runs as a CUDA graph in float32 on the GPU")
@pytest.mark.parametrize("pixel_type", [np.uint8, np.uint16])
def test_a_gpu_finds_the_pupils_that_a_cpu_finds(pixel_type):
    rendered = render(sample_scenes("synthetic", 2 * NUM_EYES, seed=12), "crop", 35, 55)
    images, start = rendered.images.astype(pixel_type), jittered(rendered.pupil_px)
    expected = locate_pupil(images, start)
    for _ in range(5):  # the last ones are recorded
        assert_same_pupils(locate_pupil(torch.from_numpy(images).cuda(), start), expected)


def test_nothing_is_found_in_a_blank_image_or_from_an_unknown_start():
    centres = centres_near_the_middle(seed=4)[:4]
    blank = np.full((4, 35, 55, 1), 128, np.uint8)
    located, found = locate_pupil(blank, centres)
    assert not found.any()
    assert np.isnan(located).all()
    eyes, unknown = as_pixels(drawn_eyes(centres, 60, 20)), centres.copy()
    unknown[1] = np.nan
    np.testing.assert_array_equal(locate_pupil(eyes, unknown)[1], [True, False, True, True])


def test_no_images_give_no_centres():
    located, found = locate_pupil(np.zeros((0, 35, 55, 1), np.uint8), np.zeros((0, 2)))
    assert located.shape == (0, 2)
    assert found.shape == (0,)


def test_starts_of_another_number_are_refused():
    with pytest.raises(InputError, match="as many starts"):
        locate_pupil(np.zeros((3, 35, 55, 1), np.uint8), np.zeros((2, 2)))
