"""What a subject is shown, and what simulated observers' answers say."""

import numpy as np
import pytest

from simgan_core.stats.turing import (
    Answers,
    confusion,
    draw_pool,
    draw_trials,
    fooling,
    interval_over_subjects,
    num_trials_of_control,
    reaction,
    score,
)

REAL, MADE = np.arange(100), np.arange(100, 200)


def _observed(accuracy: float, seed: int, num_subjects: int = 10) -> Answers:
    """Let subjects of one accuracy answer 100 trials each."""
    rng = np.random.default_rng([seed, 7])
    images = np.concatenate(
        [draw_trials(seed, subject, 0, REAL, MADE, 100) for subject in range(num_subjects)]
    )
    made = images >= 100
    wrong = rng.random(len(images)) >= accuracy
    subjects = np.repeat(np.arange(num_subjects), 100)
    return Answers(subjects, images, made, made ^ wrong, np.full(len(images), 500.0))


@pytest.mark.parametrize("accuracy", [0.517, 0.65, 0.81])
def test_intervals_cover_a_known_accuracy_in_95_of_100_studies(accuracy: float) -> None:
    scores = [score(_observed(accuracy, seed).right) for seed in range(1000)]
    covered = np.mean([found.low <= accuracy <= found.high for found in scores])
    assert 0.93 <= covered <= 0.97


def test_p_value_calls_guessers_observers_in_at_most_5_of_100_studies() -> None:
    p_values = [score(_observed(0.5, seed).right).p_value for seed in range(1000)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.065


def test_half_of_the_trials_are_real_and_no_image_comes_twice() -> None:
    shown = draw_trials(3, 0, 0, REAL, MADE, 60)
    assert len(set(shown.tolist())) == 60
    assert np.isin(shown, REAL).sum() == 30


def test_order_follows_from_the_seed_and_the_subject() -> None:
    first = draw_trials(3, 0, 0, REAL, MADE, 60)
    np.testing.assert_array_equal(first, draw_trials(3, 0, 0, REAL, MADE, 60))
    assert first.tolist() != draw_trials(3, 1, 0, REAL, MADE, 60).tolist()
    assert first.tolist() != draw_trials(4, 0, 0, REAL, MADE, 60).tolist()


def test_position_tells_nothing_of_the_kind() -> None:
    real = [np.isin(draw_trials(1, subject, 0, REAL, MADE, 20), REAL) for subject in range(2000)]
    assert np.abs(np.mean(real, axis=0) - 0.5).max() < 0.05


def test_pool_has_no_row_twice_and_is_no_larger_than_the_data() -> None:
    assert sorted(draw_pool(1, "real", 5, 10).tolist()) == [0, 1, 2, 3, 4]


def test_confusion_counts_what_was_shown_against_what_was_said() -> None:
    made = np.array([False, False, False, True, True])
    said_made = np.array([False, True, True, False, True])
    answers = Answers(np.zeros(5, int), np.arange(5), made, said_made, np.ones(5))
    np.testing.assert_array_equal(confusion(answers), [[1, 2], [1, 1]])
    assert score(answers.right).hits == 2


def test_image_that_fools_often_comes_before_one_that_fooled_once() -> None:
    image = np.repeat([1, 2, 3], [10, 1, 10])
    said_made = np.array([False] * 9 + [True] + [False] + [True] * 10)
    answers = Answers(np.arange(21), image, np.ones(21, bool), said_made, np.ones(21))
    assert [(one.image, one.score.hits) for one in fooling(answers)] == [(1, 9), (2, 1), (3, 0)]


def test_people_who_differ_widen_the_interval() -> None:
    alike, unlike = [_observed(0.6, 1, 10), _observed(0.5, 1, 5)]
    keen = _observed(0.9, 2, 5)
    mixed = Answers(
        np.concatenate([unlike.subject, keen.subject + 5]),
        *(np.concatenate([getattr(unlike, name), getattr(keen, name)])
          for name in ("image", "made", "said_made", "reaction_ms")),
    )  # fmt: skip
    narrow, wide = interval_over_subjects(alike), interval_over_subjects(mixed)
    assert narrow is not None
    assert wide is not None
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_two_people_do_not_speak_for_others() -> None:
    assert interval_over_subjects(_observed(0.6, 1, 2)) is None


def test_unknown_reaction_times_are_left_out() -> None:
    ones = np.ones(4)
    answers = Answers(
        ones.astype(int), ones.astype(int), ones > 0, ones > 0, np.array([100.0, 300, 200, np.nan])
    )
    found = reaction(answers)
    assert found is not None
    assert (found.num, found.median) == (3, 200.0)


def test_control_is_a_fifth_of_the_trials_as_in_the_article() -> None:
    assert [num_trials_of_control(num) for num in (100, 10, 4)] == [20, 2, 2]
