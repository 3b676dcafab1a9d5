import math

import h5py
import numpy as np
import pytest
from scipy.io import loadmat

from simgan_core.errors import InputError
from simgan_core.gaze import angular_error_deg, gaze_from_pitchyaw
from simgan_core.stats.bootstrap import (
    bootstrap_difference,
    bootstrap_mean,
    cell_means,
    cumulative_shares,
    joint_errors_px,
)


def errors_of(
    rng: np.random.Generator, people: np.ndarray, num_seeds: int, person_sd: float, seed_sd: float
) -> np.ndarray:
    """Draw errors [S, N] whose expectation over people, images and seeds is 8°."""
    of_person = rng.normal(0, person_sd, people.max() + 1)[people]
    of_image = rng.normal(0, 3, len(people))
    of_seed = rng.normal(0, seed_sd, (num_seeds, 1))
    return 8 + of_person + of_image + of_seed + rng.normal(0, 1, (num_seeds, len(people)))


def test_cumulative_shares_count_the_limit_itself():
    assert cumulative_shares([1.0, 7.0, 7.1, 90.0], [7])[0] == 0.5


def test_intervals_agree_with_a_loop_that_gathers_every_resample():
    rng = np.random.default_rng(0)
    people = rng.permutation(np.repeat(np.arange(6), [3, 30, 10, 8, 20, 9]))
    errors = errors_of(rng, people, num_seeds=4, person_sd=2, seed_sd=0.5)
    means = []
    for _ in range(4000):
        seeds = rng.integers(0, 4, 3)
        images = np.concatenate(
            [rng.choice(np.flatnonzero(people == p), (people == p).sum()) for p in rng.choice(6, 5)]
        )
        means.append(errors[np.ix_(seeds, images)].mean())
    interval = bootstrap_mean(errors, people, seed=1, num_resamples=4000)
    assert interval.mean == pytest.approx(errors.mean())
    np.testing.assert_allclose(
        [interval.low, interval.high], np.quantile(means, [0.025, 0.975]), atol=0.2
    )


@pytest.mark.parametrize(
    ("num_people", "images_each", "num_seeds", "person_sd"), [(15, 40, 5, 1.0), (1, 300, 5, 0.0)]
)
def test_about_95_of_100_intervals_cover_the_truth(num_people, images_each, num_seeds, person_sd):
    people = np.repeat(np.arange(num_people), images_each)
    covered = 0
    for trial in range(200):
        errors = errors_of(np.random.default_rng(trial), people, num_seeds, person_sd, 0.1)
        groups = people if num_people > 1 else None
        interval = bootstrap_mean(errors, groups, seed=trial, num_resamples=400)
        covered += interval.low <= 8 <= interval.high
    assert 0.91 <= covered / 200 <= 0.98


def test_leaving_people_out_of_account_would_make_intervals_too_narrow():
    people = np.repeat(np.arange(10), 100)
    errors = errors_of(np.random.default_rng(3), people, 3, person_sd=2, seed_sd=0)
    by_person, by_image = bootstrap_mean(errors, people, 0), bootstrap_mean(errors, None, 0)
    assert by_person.high - by_person.low > 3 * (by_image.high - by_image.low)


def test_a_difference_is_paired_so_what_is_hard_for_both_cancels_out():
    rng = np.random.default_rng(2)
    hard = errors_of(rng, np.zeros(500, int), 3, person_sd=0, seed_sd=0)
    easier = hard - 0.5 + rng.normal(0, 0.1, hard.shape)
    gain = bootstrap_difference(easier, hard, None, seed=0)
    assert -0.55 < gain.low < -0.5 < gain.high < -0.45


def test_one_person_alone_counts_as_people_unknown():
    errors = errors_of(np.random.default_rng(0), np.zeros(200, int), 2, 0, 0.2)
    assert bootstrap_mean(errors, np.full(200, 7), 5) == bootstrap_mean(errors, None, 5)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    errors = np.random.default_rng(0).random((2, 60))
    assert bootstrap_mean(errors, None, 4) == bootstrap_mean(errors, None, 4)
    assert bootstrap_mean(errors, None, 4) != bootstrap_mean(errors, None, 5)


@pytest.mark.parametrize(
    ("errors", "groups", "message"),
    [
        (np.ones(5), None, r"\[seeds, images\], found \(5,\)"),
        (np.ones((2, 5)), np.zeros(4, int), "each of 5 images"),
        (np.array([[1.0, np.nan]]), None, "finite"),
    ],
)
def test_errors_that_cannot_be_averaged_are_refused(errors, groups, message):
    with pytest.raises(InputError, match=message):
        bootstrap_mean(errors, groups, seed=0)


def test_a_difference_of_other_images_or_seeds_is_refused():
    with pytest.raises(InputError, match="one shape"):
        bootstrap_difference(np.ones((2, 5)), np.ones((3, 5)), None, seed=0)


def test_every_figure_agrees_with_a_float64_loop_to_a_millionth():
    rng = np.random.default_rng(7)
    a, b = (gaze_from_pitchyaw(rng.uniform(-0.6, 0.6, (300, 2))).astype(np.float32) for _ in "ab")
    angles = [
        math.degrees(
            math.acos(
                sum(float(p) * float(q) for p, q in zip(u, v, strict=True))
                / math.dist(u.astype(float), [0, 0, 0])
                / math.dist(v.astype(float), [0, 0, 0])
            )
        )
        for u, v in zip(a, b, strict=True)
    ]
    errors = angular_error_deg(a, b)
    np.testing.assert_allclose(errors, angles, atol=1e-6)
    limits = [0, 5, 7, 20, 90]
    shares = [sum(angle <= limit for angle in angles) / 300 for limit in limits]
    np.testing.assert_allclose(cumulative_shares(errors, limits), shares, atol=1e-6)
    assert np.mean(errors <= 7) == pytest.approx(shares[2], abs=1e-6)
    assert bootstrap_mean(errors[None], None, 0).mean == pytest.approx(
        math.fsum(angles) / 300, abs=1e-6
    )
    joints = rng.uniform(0, 64, (20, 14, 3)), rng.uniform(0, 64, (20, 14, 3))
    distances = [
        [math.dist(p[:2], q[:2]) for p, q in zip(*pair, strict=True)]
        for pair in zip(*joints, strict=True)
    ]
    np.testing.assert_allclose(joint_errors_px(*joints), distances, atol=1e-6)


def test_means_by_cell_are_those_of_the_rows_that_lie_in_it():
    means = cell_means(
        [1, 3, 5, 9], [0.5, 0.6, 1.5, 7.0], [0.5, 0.5, 1.5, 0.5], [0, 1, 2], [0, 1, 2]
    )
    np.testing.assert_array_equal(means, [[2, np.nan], [np.nan, 5]])


def test_predicting_the_mean_of_p00s_labels_costs_what_is_known(shared_data):
    """8.36° is known of all 3,000 eyes, whose right labels are not here; 73 frames have both."""
    with h5py.File(shared_data / "mpiigaze" / "p00_left_eval.h5") as file:
        left = gaze_from_pitchyaw(file["gaze_pitchyaw"][:].astype(np.float64))
    assert angular_error_deg(left, left.mean(axis=0)).mean() == pytest.approx(8.0671, abs=1e-4)
    days = [
        loadmat(day, struct_as_record=False)["data"][0, 0]
        for day in sorted(shared_data.glob("mpiigaze/MPIIGaze/Data/Normalized/p00/*.mat"))
    ]
    eyes = [
        side.gaze.reshape(-1, 3) * [mirror, 1, 1]
        for day in days
        for side, mirror in ((day.left[0, 0], 1), (day.right[0, 0], -1))
    ]
    both = np.concatenate(eyes)
    assert len(both) == 146
    assert angular_error_deg(both, both.mean(axis=0)).mean() == pytest.approx(8.36, abs=0.01)
