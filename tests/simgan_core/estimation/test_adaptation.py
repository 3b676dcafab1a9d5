import numpy as np
import pytest

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from simgan_core.estimation import adaptation
from simgan_core.estimation.adaptation import (
    average_with_landmarks,
    centre_by_look,
    choose_centring,
    stacking_weight,
    student_config,
)


def looks_with_offsets(count: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images of 6 looks, true angles, and predictions that are off by a constant for each look."""
    rng = np.random.default_rng(0)
    look = rng.integers(0, 6, count)
    backgrounds = rng.integers(0, 256, (6, 35, 55, 1))
    noise = rng.normal(0, 3, (count, 35, 55, 1))
    images = np.clip(backgrounds[look] + noise, 0, 255).astype(np.uint8)
    truth = rng.normal(0, 8, (count, 2))
    offsets = rng.normal(0, 6, (6, 2))
    offsets -= offsets[look].mean(axis=0)
    return images, truth, truth + offsets[look]


def test_offsets_of_a_look_are_removed_and_the_overall_mean_stays() -> None:
    images, truth, predicted = looks_with_offsets()
    centred = centre_by_look(predicted, images, seed=0)
    np.testing.assert_allclose(centred.mean(axis=0), predicted.mean(axis=0), atol=0.5)
    before, after = (np.abs(each - truth).mean() for each in (predicted, centred))
    assert after < 0.4 * before


def test_images_of_one_look_whose_heads_are_turned_otherwise_are_no_look_alikes() -> None:
    images, truth, predicted = looks_with_offsets()
    rng = np.random.default_rng(7)
    turn_deg = rng.choice([-20, 0, 20], len(images))
    offsets = np.outer(turn_deg / 4, [0.5, 1])
    predicted += offsets - offsets.mean(axis=0)
    pose = np.radians(np.stack([0 * turn_deg, turn_deg, np.full(len(images), np.nan)], axis=1))
    pose += rng.normal(0, np.radians(1), pose.shape)
    by_look, by_both = (
        np.abs(centre_by_look(predicted, images, 0, head_pose=given) - truth).mean()
        for given in (None, pose)
    )
    assert by_both < 0.6 * by_look


def test_head_poses_that_are_not_of_the_images_are_refused() -> None:
    images, _, predicted = looks_with_offsets(50)
    for pose in (np.zeros((49, 3)), np.full((50, 3), np.nan)):
        with pytest.raises(InputError, match="needs head poses' finite pitch and yaw"):
            centre_by_look(predicted, images, 0, head_pose=pose)


def test_many_images_take_the_offsets_of_their_nearest_references(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, truth, predicted = looks_with_offsets()
    monkeypatch.setattr(adaptation, "_MAX_REFERENCES", 250)
    centred = centre_by_look(predicted, images, seed=0)
    assert np.abs(centred - truth).mean() < 0.5 * np.abs(predicted - truth).mean()
    np.testing.assert_array_equal(centred, centre_by_look(predicted, images, seed=0))


def test_what_the_iris_shows_is_no_look() -> None:
    images, _, predicted = looks_with_offsets(100)
    repainted = images.copy()
    repainted[:, 11:24, 12:43] = 255 - repainted[:, 11:24, 12:43]
    np.testing.assert_array_equal(
        centre_by_look(predicted, repainted, seed=0), centre_by_look(predicted, images, seed=0)
    )


def test_sixteen_bits_look_as_eight_do() -> None:
    images, _, predicted = looks_with_offsets(100)
    deep = images.astype(np.uint16) * 257
    np.testing.assert_allclose(
        centre_by_look(predicted, deep, seed=0), centre_by_look(predicted, images, seed=0)
    )


def test_predictions_that_are_not_of_the_images_are_refused() -> None:
    images, _, predicted = looks_with_offsets(50)
    with pytest.raises(InputError, match=r"of 50 images, found \[49, 2\]"):
        centre_by_look(predicted[:49], images, seed=0)


def test_a_student_keeps_nothing_out() -> None:
    config = student_config(EstimatorConfig(steps=9))
    assert (config.validation_share, config.steps) == (0.0, 9)


def test_agreement_of_two_simulators_chooses_a_centring_that_removes_their_offsets() -> None:
    images, truth, first = looks_with_offsets()
    rng = np.random.default_rng(5)
    second = truth - (first - truth) + rng.normal(0, 2, truth.shape)
    chosen = choose_centring([first, second], images, seed=0)
    assert chosen.centring.num_steps > 0
    assert chosen.agreement > chosen.agreement_uncentred + 0.1
    centred = centre_by_look(first, images, seed=0, centring=chosen.centring)
    assert np.abs(centred - truth).mean() < 0.5 * np.abs(first - truth).mean()


def test_nothing_is_subtracted_where_that_makes_predictions_agree_less() -> None:
    """Each look looks its own way, which both simulators' estimators see."""
    images, _, predicted = looks_with_offsets()
    rng = np.random.default_rng(6)
    blurred = [predicted + rng.normal(0, 8, predicted.shape) for _ in range(2)]
    chosen = choose_centring(blurred, images, seed=0)
    assert chosen.centring.num_steps == 0
    assert chosen.agreement == chosen.agreement_uncentred
    kept = centre_by_look(predicted, images, seed=0, centring=chosen.centring)
    np.testing.assert_array_equal(kept, predicted)


def two_witnesses(count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True angles, predictions 5° too high, and landmarks' gaze 9° off in yaw, both noisy."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 8, (count, 2))
    predicted = truth + rng.normal([5, 0], 4, (count, 2))
    return truth, predicted, truth + rng.normal([0, 9], 4, (count, 2))


def test_landmarks_halve_the_errors_variance_and_set_the_mean_pitch_alone() -> None:
    truth, predicted, geometric = two_witnesses()
    averaged = average_with_landmarks(predicted, geometric)
    away = averaged.predictions_deg - truth
    assert averaged.teaches
    assert away.std(axis=0) == pytest.approx(4 / np.sqrt(2), rel=0.1)
    assert away.mean(axis=0) == pytest.approx([0, 0], abs=0.5)
    assert averaged.sets_mean_pitch
    assert averaged.pitch_difference_deg == pytest.approx(-5, abs=0.5)
    assert averaged.agreement == pytest.approx(0.8, abs=0.05)
    assert averaged.share == 1


def test_a_mean_pitch_far_from_the_estimators_is_not_used() -> None:
    _, predicted, geometric = two_witnesses()
    averaged = average_with_landmarks(predicted, geometric - [12, 0])
    assert averaged.teaches
    assert not averaged.sets_mean_pitch
    np.testing.assert_allclose(averaged.predictions_deg.mean(axis=0), predicted.mean(axis=0))


def test_images_without_landmarks_keep_their_predictions_but_for_the_mean_pitch() -> None:
    _, predicted, geometric = two_witnesses()
    geometric[:100] = np.nan
    averaged = average_with_landmarks(predicted, geometric)
    kept = predicted[:100] + np.array([averaged.pitch_difference_deg, 0])
    np.testing.assert_allclose(averaged.predictions_deg[:100], kept)
    assert averaged.share == 0.75


@pytest.mark.parametrize("how", ["found in few images", "at odds in yaw", "constant", "absent"])
def test_landmarks_of_no_use_leave_predictions_as_they_are(how: str) -> None:
    _, predicted, geometric = two_witnesses()
    if how == "found in few images":
        geometric[:201] = np.nan
    elif how == "at odds in yaw":
        geometric[:, 1] = np.random.default_rng(1).normal(0, 8, len(geometric))
    else:
        geometric[:] = 3 if how == "constant" else np.nan
    averaged = average_with_landmarks(predicted, geometric)
    assert not averaged.teaches
    assert not averaged.sets_mean_pitch
    np.testing.assert_array_equal(averaged.predictions_deg, predicted)


def test_landmarks_of_other_images_are_refused() -> None:
    _, predicted, geometric = two_witnesses()
    with pytest.raises(InputError, match="pitch and yaw"):
        average_with_landmarks(predicted, geometric[1:])


def test_stacking_finds_the_weight_of_the_least_error_without_the_truth() -> None:
    """Agreement with the brute-force search that knows the truth, mean yaws aside."""
    rng = np.random.default_rng(3)
    truth = rng.normal(0, 8, (5000, 2))
    first, second = (truth + rng.normal(0, sd, truth.shape) for sd in (6, 4))
    second[:, 1] += 7
    geometric = truth + rng.normal([0, -9], 5, truth.shape)
    found = stacking_weight(first, second, geometric)

    def error(weight: float) -> float:
        away = (1 - weight) * first + weight * second - truth
        return float(np.square(away - [0, away[:, 1].mean()]).sum())

    best = min(np.linspace(0, 1, 101), key=error)
    assert found == pytest.approx(best, abs=0.03)
    assert best == pytest.approx(36 / (36 + 16), abs=0.03)


def test_a_wrong_mean_pitch_costs_a_teacher_weight_where_landmarks_set_it() -> None:
    truth, biased, geometric = two_witnesses()
    unbiased = truth + np.random.default_rng(1).normal(0, 4, truth.shape)
    assert stacking_weight(biased, unbiased, geometric) > 0.6
    far_away = geometric - [20, 0]
    assert stacking_weight(biased, unbiased, far_away) == pytest.approx(0.5, abs=0.1)


def test_teachers_weigh_the_same_where_landmarks_tell_nothing() -> None:
    truth, predicted, geometric = two_witnesses()
    assert stacking_weight(truth, predicted, np.full_like(truth, np.nan)) == 0.5
    assert stacking_weight(predicted, predicted, geometric) == 0.5


def test_stacking_never_takes_one_teacher_from_the_other() -> None:
    truth, _, geometric = two_witnesses()
    noisy = truth + np.random.default_rng(1).normal(0, 30, truth.shape)
    assert 0 <= stacking_weight(truth, noisy, geometric) < 0.1
    assert 0.9 < stacking_weight(noisy, truth, geometric) <= 1
    further = 2 * truth - geometric
    assert stacking_weight(truth, further, geometric) == 0


def test_stacked_teachers_predict_the_same_images() -> None:
    truth, predicted, geometric = two_witnesses()
    with pytest.raises(InputError, match=r"of 400 images, found \[399, 2\]"):
        stacking_weight(truth, predicted[:-1], geometric)


def test_photographs_that_look_alike_in_one_eye_alone_are_no_look_alikes() -> None:
    """Heads turned left and right: a left eye of the one looks like a right eye of the other."""
    rng = np.random.default_rng(3)
    look = rng.integers(0, 2, 300)  # near, far
    backgrounds = rng.integers(0, 256, (2, 35, 55, 1))
    eyes = np.concatenate([look, np.where(rng.random(300) < 0.5, look, 1 - look)])
    noise = rng.normal(0, 3, (600, 35, 55, 1))
    images = np.clip(backgrounds[eyes] + noise, 0, 255).astype(np.uint8)
    partner = np.concatenate([np.arange(300, 600), np.arange(300)])
    offsets = np.array([[0, 0], [4, 8]])[(eyes == eyes[partner]).astype(int)]
    truth = rng.normal(0, 8, (600, 2))
    predicted = truth + offsets - offsets.mean(axis=0)
    by_one, by_both = (
        np.abs(centre_by_look(predicted, images, 0, partner=given) - truth).mean()
        for given in (None, partner)
    )
    assert by_both < 0.5 * by_one


def test_images_without_a_partner_are_centred_by_their_own_look() -> None:
    images, truth, predicted = looks_with_offsets()
    partner = np.full(len(images), -1)
    alone = centre_by_look(predicted, images, 0)
    np.testing.assert_array_equal(centre_by_look(predicted, images, 0, partner=partner), alone)
    partner[:200] = np.roll(np.arange(200), 100)
    some = centre_by_look(predicted, images, 0, partner=partner)
    np.testing.assert_array_equal(some[200:], alone[200:])
    assert np.abs(some[:200] - alone[:200]).max() > 0.01
    chosen = choose_centring([predicted, truth], images, 0, partner=partner)
    assert chosen != choose_centring([predicted, truth], images, 0)


def test_partners_that_are_not_of_the_images_are_refused() -> None:
    images, _, predicted = looks_with_offsets(50)
    for partner in (np.full(49, -1), np.full(50, 50)):
        with pytest.raises(InputError, match="partners should be rows of 50 images"):
            centre_by_look(predicted, images, 0, partner=partner)
