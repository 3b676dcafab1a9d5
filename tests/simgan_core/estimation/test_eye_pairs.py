import numpy as np
import pytest

from simgan_core.errors import InputError
from simgan_core.estimation.eye_pairs import average_over_pairs, partner_rows


def photographs(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """True angles of left and of mirrored right eyes, and each one's partner."""
    rng = np.random.default_rng(0)
    left = rng.normal(0, 8, (count, 2))
    truth = np.concatenate([left, left * [1, -1]])
    return truth, np.concatenate([np.arange(count, 2 * count), np.arange(count)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("p00/day01/0005/left", "p00/day01/0005/right"),
        ("person-01/2m_-15P_10V_-5H_L", "person-01/2m_-15P_10V_-5H_R"),
        ("left/0017.png", "right/0017.png"),
        ("left/anna_l", "left/anna_r"),
    ],
)
def test_partners_differ_in_the_last_side_alone(one: str, other: str) -> None:
    assert partner_rows([one, "p00/0006/left", other]).tolist() == [2, -1, 0]


def test_no_partner_is_found_by_a_part_of_a_word_or_another_case() -> None:
    ids = ["anna_eyel", "anna_eyer", "bob_L", "bob_r", "leftover", "rightover", "7"]
    assert (partner_rows(ids) == -1).all()
    assert partner_rows([]).shape == (0,)


def test_independent_errors_of_two_eyes_are_halved_in_variance_and_the_mean_stays() -> None:
    truth, partner = photographs()
    rng = np.random.default_rng(1)
    predicted = truth + rng.normal([2, 3], 4, truth.shape)
    averaged = average_over_pairs(predicted, partner)
    away = averaged.predictions_deg - truth
    assert averaged.is_used
    assert averaged.share == 1
    assert averaged.agreement == pytest.approx(0.8, abs=0.05)
    assert away.std(axis=0) == pytest.approx(4 / np.sqrt(2), rel=0.1)
    np.testing.assert_allclose(away.mean(axis=0), (predicted - truth).mean(axis=0))


def test_images_without_a_partner_keep_their_predictions() -> None:
    truth, partner = photographs()
    partner[[3, 303]] = -1
    predicted = truth + np.random.default_rng(1).normal(0, 4, truth.shape)
    averaged = average_over_pairs(predicted, partner)
    np.testing.assert_array_equal(averaged.predictions_deg[[3, 303]], predicted[[3, 303]])
    assert averaged.share == pytest.approx(598 / 600)


def test_pairs_are_not_used_where_right_eyes_are_not_mirrored_or_partners_are_few() -> None:
    truth, partner = photographs()
    not_mirrored = truth * np.repeat([[1, 1], [1, -1]], 300, axis=0)
    few = np.where(np.arange(600) % 300 < 140, partner, -1)
    nobody = np.full(600, -1)
    for predicted, partners in ((not_mirrored, partner), (truth, few), (truth, nobody)):
        averaged = average_over_pairs(predicted, partners)
        assert not averaged.is_used
        np.testing.assert_array_equal(averaged.predictions_deg, predicted)


def test_predictions_that_are_not_of_the_partners_are_refused() -> None:
    with pytest.raises(InputError, match=r"of 5 images, found \[4, 2\]"):
        average_over_pairs(np.zeros((4, 2)), np.full(5, -1))
