import numpy as np
import pytest
import torch

from simgan_core.errors import InputError
from simgan_core.quality.registration import displacement_px
from simgan_core.simulator.appearance import SYNTHETIC
from simgan_core.simulator.eyes import Rendered, render, sample_scenes

DARK_EYED = SYNTHETIC.model_copy(
    update={"person": SYNTHETIC.person.model_copy(update={"iris_albedo": (0.012, 0.06)})}
)
LIGHT_EYED = SYNTHETIC.model_copy(
    update={"person": SYNTHETIC.person.model_copy(update={"iris_albedo": (0.16, 0.5)})}
)


@pytest.fixture(scope="module")
def eyes() -> Rendered:
    return render(sample_scenes("synthetic", 300, seed=21, appearance=LIGHT_EYED), "crop", 35, 55)


@pytest.fixture(scope="module")
def dark_eyes() -> Rendered:
    """The same scenes with dark irises."""
    return render(sample_scenes("synthetic", 300, seed=21, appearance=DARK_EYED), "crop", 35, 55)


def rolled(images: np.ndarray, x_px: int, y_px: int) -> np.ndarray:
    return np.roll(images, (y_px, x_px), axis=(1, 2))


@pytest.mark.parametrize("moved_px", [(4, 0), (-6, 0), (0, 2), (2, -4)])
def test_eyes_moved_as_a_whole_are_found_where_they_went(eyes, moved_px):
    found = displacement_px(eyes.images, rolled(eyes.images, *moved_px), eyes.pupil_px)
    assert (found == moved_px).all(axis=1).mean() > 0.98


def test_moves_are_found_through_a_change_of_looks(eyes, dark_eyes):
    moved = rolled(dark_eyes.images, 4, 0)
    found = displacement_px(eyes.images, moved, eyes.pupil_px)
    assert (np.abs(found - (4, 0)) <= 2).all(axis=1).mean() > 0.75


def test_a_change_of_looks_alone_is_no_move(eyes, dark_eyes):
    found = displacement_px(eyes.images, dark_eyes.images, eyes.pupil_px)
    assert found.any(axis=1).mean() < 0.02
    assert not displacement_px(eyes.images, eyes.images, eyes.pupil_px).any()


def test_a_turned_eye_is_followed_though_its_lids_stay(eyes):
    # The iris alone: a disc of it cut out and set down 4 px to the right.
    turned = eyes.images.copy()
    y, x = np.mgrid[:35, :55] + 0.5
    for image, original, (pupil_x, pupil_y) in zip(turned, eyes.images, eyes.pupil_px, strict=True):
        there = np.hypot(x - pupil_x - 4, y - pupil_y) < 8
        image[there] = np.roll(original, 4, axis=1)[there]
    found = displacement_px(eyes.images, turned, eyes.pupil_px)
    assert (np.abs(found - (4, 0)) <= 2).all(axis=1).mean() > 0.98


def brute_force_px(before: np.ndarray, after: np.ndarray, centre_px: np.ndarray) -> np.ndarray:
    """Register one pair [H, W] of even sides in float64, cell by cell; the width is 56 pixels."""

    def gradients(image: np.ndarray, y: int, x: int) -> tuple[float, float]:
        def mean(row: int, column: int) -> float:
            cell_px = 2 * 56 / 55
            shares = [
                np.clip(
                    np.minimum((cell + 1) * cell_px, np.arange(size) + 1)
                    - np.maximum(cell * cell_px, np.arange(size)),
                    0,
                    None,
                )
                for cell, size in ((row, image.shape[0]), (column, image.shape[1]))
            ]
            area = shares[0].sum() * shares[1].sum()
            return float(shares[0] @ image.astype(float) @ shares[1] / area)

        height, width = (int(np.ceil(size / (2 * 56 / 55))) for size in image.shape)
        across = mean(y, x + 1) - mean(y, x - 1) if 0 < x < width - 1 and 0 <= y < height else 0.0
        down = mean(y + 1, x) - mean(y - 1, x) if 0 < y < height - 1 and 0 <= x < width else 0.0
        return across, down

    column, row = (int(value // (2 * 56 / 55)) for value in centre_px)
    best, at_rest = (-2.0, (0, 0)), 0.0
    for shift_y in range(-3, 4):
        for shift_x in range(-3, 4):
            product = own = others = 0.0
            for y in range(-4, 5):
                for x in range(-4, 5):
                    weight = np.exp(-(x**2 + y**2) / (2 * 3**2))
                    a = gradients(before, row + y, column + x)
                    b = gradients(after, row + y + shift_y, column + x + shift_x)
                    product += weight * (a[0] * b[0] + a[1] * b[1])
                    own += weight * (a[0] ** 2 + a[1] ** 2)
                    others += weight * (b[0] ** 2 + b[1] ** 2)
            correlation = product / np.sqrt(own * others)
            best = max(best, (correlation, (shift_x, shift_y)))
            if shift_x == shift_y == 0:
                at_rest = correlation
    shift = best[1] if best[0] > at_rest + 0.15 else (0, 0)
    return np.array(shift) * 2 * 56 / 55


def test_it_agrees_with_a_brute_force_search():
    rendered = render(sample_scenes("synthetic", 3, seed=4), "crop", 36, 56)
    moved = rolled(rendered.images, -3, 2)
    found = displacement_px(rendered.images, moved, rendered.pupil_px)
    for row in range(3):
        expected = brute_force_px(
            rendered.images[row, ..., 0], moved[row, ..., 0], rendered.pupil_px[row]
        )
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)


def test_steps_scale_with_the_width(eyes):
    large = eyes.images.repeat(2, axis=1).repeat(2, axis=2)
    found = displacement_px(large, rolled(large, 8, 0), 2 * eyes.pupil_px)
    assert (found == (8, 0)).all(axis=1).mean() > 0.98


def test_tensors_are_registered_as_arrays_are(eyes):
    moved = rolled(eyes.images, 3, -2)
    expected = displacement_px(eyes.images, moved, eyes.pupil_px)
    before, after = torch.from_numpy(eyes.images), torch.from_numpy(moved)
    found = displacement_px(before, after, eyes.pupil_px)
    assert (found == expected).all(axis=1).mean() > 0.99


def test_an_image_has_no_influence_on_anothers_result(eyes):
    moved = rolled(eyes.images, 3, 0)
    together = displacement_px(eyes.images, moved, eyes.pupil_px)
    alone = displacement_px(eyes.images[7:8], moved[7:8], eyes.pupil_px[7:8])
    np.testing.assert_array_equal(alone, together[7:8])


def test_unknown_points_and_points_outside_are_no_error(eyes):
    points = eyes.pupil_px[:3].copy()
    points[0], points[1] = np.nan, (-40, 90)
    found = displacement_px(eyes.images[:3], rolled(eyes.images[:3], 4, 0), points)
    np.testing.assert_array_equal(found[[0, 2]], [(0, 0), (4, 0)])
    assert displacement_px(eyes.images[:0], eyes.images[:0], points[:0]).shape == (0, 2)


def test_images_of_two_shapes_are_refused(eyes):
    with pytest.raises(InputError, match="one shape"):
        displacement_px(eyes.images, eyes.images[:, :, 1:], eyes.pupil_px)
