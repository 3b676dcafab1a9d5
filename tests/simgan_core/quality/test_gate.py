import numpy as np
import pytest
import torch

from simgan_core.quality.gate import HISTOGRAM_EDGES_PX, inspect, shift_histogram
from simgan_core.simulator.appearance import SYNTHETIC
from simgan_core.simulator.eyes import Rendered, render, sample_scenes


@pytest.fixture(scope="module")
def eyes() -> Rendered:
    """Eyes whose pupils stand out from a light iris."""
    person = SYNTHETIC.person.model_copy(update={"iris_albedo": (0.16, 0.5)})
    light = SYNTHETIC.model_copy(update={"person": person})
    return render(sample_scenes("synthetic", 40, seed=3, appearance=light), "crop", 35, 55)


def test_images_that_were_not_changed_pass(eyes: Rendered) -> None:
    found = inspect(eyes.images, eyes.images, eyes.pupil_px)
    assert found.reasons(gate_shift_px=0.5) == [None] * 40
    assert found.figures()["pupil_shift_px.mean"] == 0


def test_images_moved_beyond_the_gate_are_named_and_others_pass(eyes: Rendered) -> None:
    moved = eyes.images.copy()
    moved[::2] = np.roll(moved[::2], 1, axis=2)
    found = inspect(eyes.images, moved, eyes.pupil_px)
    reasons = found.reasons(gate_shift_px=0.5)
    assert set(reasons[1::2]) == {None}
    assert reasons[::2] == ["refinement moved the pupil by more than 0.5 px"] * 20
    assert found.reasons(gate_shift_px=1.5) == [None] * 40


def test_an_eye_that_was_painted_over_is_lost(eyes: Rendered) -> None:
    refined = eyes.images.copy()
    refined[::2] = refined[::2].mean(axis=(1, 2, 3), keepdims=True)
    found = inspect(eyes.images, refined, eyes.pupil_px)
    reasons = found.reasons(gate_shift_px=2.0)
    assert reasons == ["the pupil is no longer found near its label", None] * 20
    assert found.figures()["num_lost"] == 20


@pytest.mark.parametrize("moved_px", [3, 4, 5, 6])
@pytest.mark.parametrize("iris_albedo", [(0.012, 0.06), (0.16, 0.5)], ids=["dark", "light"])
def test_moves_beyond_the_reach_of_the_fit_are_measured_and_rejected(
    iris_albedo: tuple[float, float], moved_px: int
) -> None:
    person = SYNTHETIC.person.model_copy(update={"iris_albedo": iris_albedo})
    look = SYNTHETIC.model_copy(update={"person": person})
    eyes = render(sample_scenes("synthetic", 300, seed=5, appearance=look), "crop", 35, 55)
    found = inspect(eyes.images, np.roll(eyes.images, moved_px, axis=2), eyes.pupil_px)
    assert sum(reason is None for reason in found.reasons(gate_shift_px=2.0)) <= 3
    assert found.shift is not None
    assert found.shift.summary()["mean"] == pytest.approx(moved_px, abs=0.1)


def test_images_of_other_eyes_are_rejected(eyes: Rendered) -> None:
    others = np.roll(eyes.images, 1, axis=0)
    apart_px = np.linalg.norm(np.roll(eyes.pupil_px, 1, axis=0) - eyes.pupil_px, axis=1)
    reasons = inspect(eyes.images, others, eyes.pupil_px).reasons(gate_shift_px=2.0)
    passed = np.array([reason is None for reason in reasons])
    assert passed[apart_px > 2.5].mean() < 0.1


def test_images_that_turned_white_or_black_are_saturated(eyes: Rendered) -> None:
    refined = eyes.images.copy()
    refined[0], refined[1] = 255, 0
    refined[2, :5] = 255  # a seventh of the picture
    found = inspect(eyes.images, refined, None)
    assert found.saturated.tolist() == [True, True] + [False] * 38
    assert "clipped more than 25%" in str(found.reasons(gate_shift_px=9.0)[0])
    assert found.figures() == {"num_saturated": 2.0}


@pytest.mark.gpu("the inspection runs as a CUDA graph in a stream of its own")
def test_a_gpu_refuses_what_a_cpu_refuses(eyes: Rendered) -> None:
    moved = np.roll(eyes.images, 1, axis=2)
    moved[:3] = 255
    expected = inspect(eyes.images, moved, eyes.pupil_px).reasons(gate_shift_px=0.5)
    for _ in range(5):  # the last ones are recorded
        before, after = (torch.from_numpy(images).cuda() for images in (eyes.images, moved))
        found = inspect(before, after, eyes.pupil_px)
        assert found.reasons(gate_shift_px=0.5) == expected


def test_what_was_clipped_before_is_not_held_against_the_refiner() -> None:
    white = np.full((1, 35, 55, 1), 255, np.uint8)
    assert not inspect(white, white, None).saturated.any()


def test_sixteen_bits_are_judged_as_their_upper_eight_are(eyes: Rendered) -> None:
    before, after = eyes.images, np.roll(eyes.images, 1, axis=2)
    after[:3] = 255
    wide_before, wide_after = (each.astype(np.uint16) * 256 + 77 for each in (before, after))
    found = inspect(wide_before, wide_after, eyes.pupil_px)
    expected = inspect(before, after, eyes.pupil_px)
    assert found.reasons(0.5) == expected.reasons(0.5)
    assert found.figures() == expected.figures()


def test_every_shift_is_in_one_bin_of_the_histogram() -> None:
    counts = shift_histogram(np.array([0.0, 0.24, 0.25, 3.99, 4.0, 50.0]))
    assert counts.sum() == 6
    assert counts[[0, 1, -2, -1]].tolist() == [2, 1, 1, 2]
    assert len(counts) == len(HISTOGRAM_EDGES_PX)
