import numpy as np
import pytest
import torch

from simgan_core.errors import InputError
from simgan_core.quality.label_drift import classifier_accuracy, pupil_shift_px
from simgan_core.simulator.appearance import SYNTHETIC
from simgan_core.simulator.eyes import Rendered, render, sample_scenes

DARK_EYED = SYNTHETIC.model_copy(
    update={"person": SYNTHETIC.person.model_copy(update={"iris_albedo": (0.012, 0.06)})}
)


@pytest.fixture(scope="module")
def eyes() -> Rendered:
    return render(sample_scenes("synthetic", 300, seed=7), "crop", 35, 55)


def shifted(images: np.ndarray, x_px: float, y_px: float) -> np.ndarray:
    """Move what is in images [N, H, W, C] to the right and down, by less than a pixel."""
    moved = images.astype(float)
    for axis, shift_px in ((2, x_px), (1, y_px)):
        rolled = np.roll(moved, int(np.sign(shift_px)), axis)
        moved += abs(shift_px) * (rolled - moved)
    return np.rint(moved).astype(np.uint8)


@pytest.mark.parametrize("moved_by", [(0.4, -0.3), (-0.8, 0.6)])
def test_a_known_sub_pixel_shift_is_measured(eyes, moved_by):
    shift = pupil_shift_px(eyes.images, shifted(eyes.images, *moved_by), eyes.pupil_px)
    assert shift.found.mean() > 0.97
    displacement = shift.displacement_px[shift.found]
    np.testing.assert_allclose(displacement.mean(axis=0), moved_by, atol=0.1)
    assert shift.summary()["mean"] == pytest.approx(np.hypot(*moved_by), abs=0.15)


def test_an_image_has_not_moved_from_itself(eyes):
    shift = pupil_shift_px(eyes.images, eyes.images, eyes.pupil_px)
    assert shift.summary()["mean"] == 0


def test_eyes_turned_dark_have_hardly_moved(eyes):
    dark = render(sample_scenes("synthetic", 300, seed=7, appearance=DARK_EYED), "crop", 35, 55)
    assert pupil_shift_px(eyes.images, dark.images, eyes.pupil_px).summary()["median"] < 0.25


def test_what_is_not_found_counts_in_no_figure(eyes):
    refined = eyes.images.copy()
    refined[:30] = 128
    shift = pupil_shift_px(eyes.images, refined, eyes.pupil_px)
    assert np.isnan(shift.shift_px[:30]).all()
    assert shift.summary()["mean"] == 0
    assert shift.summary()["share_found"] <= 0.9
    nothing = pupil_shift_px(eyes.images[:3], refined[:3], eyes.pupil_px[:3]).summary()
    assert nothing["share_found"] == 0
    assert np.isnan(nothing["median"])


def test_refined_images_of_another_shape_are_refused(eyes):
    with pytest.raises(InputError, match="shape of the synthetic"):
        pupil_shift_px(eyes.images, eyes.images[:-1], eyes.pupil_px)


def test_a_classifier_tells_two_domains_apart_but_not_one_domain_from_itself(eyes):
    real = render(sample_scenes("real", 300, seed=8), "crop", 35, 55).images
    assert classifier_accuracy(eyes.images, real, seed=0) > 0.95
    assert 0.35 < classifier_accuracy(real[:150], real[150:], seed=0) < 0.65


def test_a_classifiers_accuracy_follows_from_the_seed_and_leaves_the_callers_randomness(eyes):
    halves = eyes.images[:40], eyes.images[40:80]
    state = torch.get_rng_state()
    assert classifier_accuracy(*halves, seed=1) == classifier_accuracy(*halves, seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_a_classifier_needs_images_of_one_size(eyes):
    with pytest.raises(InputError, match="in one size"):
        classifier_accuracy(eyes.images, eyes.images[:, 1:], seed=0)
