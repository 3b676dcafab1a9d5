from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simgan_core.data.label_matching import (
    FALLBACK_ERROR_SD_DEG,
    LabelPrior,
    error_spread_deg,
    estimate_label_prior,
    load_label_prior,
    resampled_rows,
    save_label_prior,
)
from simgan_core.errors import InputError

ERROR_SD_DEG = np.array([7.0, 9.0])
MEAN_DEG, SD_DEG = np.array([-4.0, 3.0]), np.array([6.0, 8.0])


def training_deg(count: int = 6000) -> np.ndarray:
    return np.random.default_rng(1).uniform((-25, -30), (25, 30), (count, 2))


def predictions_deg(count: int = 3000, seed: int = 2) -> np.ndarray:
    """One estimator's predictions about images with a narrower, shifted prior, with its error."""
    rng = np.random.default_rng(seed)
    shape = (1, count, 2)
    return rng.normal(MEAN_DEG, SD_DEG, shape) + rng.normal(0, ERROR_SD_DEG, shape)


@pytest.fixture(scope="module")
def prior() -> LabelPrior:
    return estimate_label_prior(predictions_deg(), training_deg(), ERROR_SD_DEG, seed=0)


def test_a_shifted_prior_is_recovered_from_blurred_predictions(prior: LabelPrior) -> None:
    np.testing.assert_allclose(prior.mean_deg, MEAN_DEG, atol=0.6)
    # The predictions' own spread is 9.2° and 12.0°.
    np.testing.assert_allclose(prior.sd_deg, SD_DEG, atol=1.2)


def test_resampled_labels_are_distributed_as_the_real_ones_blurred_by_5_degrees(
    prior: LabelPrior,
) -> None:
    labels = training_deg()
    resampled = labels[resampled_rows(prior.weights(labels), seed=0)]
    np.testing.assert_allclose(resampled.mean(axis=0), MEAN_DEG, atol=1.0)
    np.testing.assert_allclose(resampled.std(axis=0), np.hypot(SD_DEG, 5), atol=1.2)
    assert resampled.std(axis=0)[1] < predictions_deg()[0].std(axis=0)[1]


def test_the_same_prior_serves_a_training_set_with_other_labels(prior: LabelPrior) -> None:
    narrow = training_deg()[np.abs(training_deg()[:, 1]) < 20]
    resampled = narrow[resampled_rows(prior.weights(narrow), seed=0)]
    np.testing.assert_allclose(resampled.mean(axis=0), MEAN_DEG, atol=1.0)


def test_iterations_agree_with_a_brute_force_reference(prior: LabelPrior) -> None:
    """The update written out over all pairs of predictions and cells."""
    cells = np.stack(np.meshgrid(prior.pitch_deg, prior.yaw_deg, indexing="ij"), -1)
    distance = (predictions_deg()[0][:, None, None] - cells) / ERROR_SD_DEG
    likelihood = np.exp(-0.5 * (distance**2).sum(axis=-1)) + 1e-12

    def smoothed(grid: np.ndarray, sd_cells: float) -> np.ndarray:
        kernel = np.exp(-0.5 * (np.arange(-20, 21) / sd_cells) ** 2)
        kernel[np.abs(np.arange(-20, 21)) > np.ceil(4 * sd_cells)] = 0
        padded = np.pad(grid, 20)
        for axis in (0, 1):
            padded = sum(
                w * np.roll(padded, k - 20, axis) for k, w in enumerate(kernel / kernel.sum())
            )
            padded[:20] = padded[-20:] = padded[:, :20] = padded[:, -20:] = 0
        return padded[20:-20, 20:-20] / padded.sum()

    histogram = np.zeros(prior.density.shape)
    for pitch, yaw in training_deg():
        row, column = np.abs(prior.pitch_deg - pitch).argmin(), np.abs(prior.yaw_deg - yaw).argmin()
        histogram[row, column] += 1
    density = smoothed(histogram, 1.5)
    for _ in range(prior.num_iterations):
        posterior = likelihood * density
        posterior /= posterior.sum(axis=(1, 2), keepdims=True)
        density = smoothed(posterior.mean(axis=0), 0.75)
    np.testing.assert_allclose(prior.density, density, atol=1e-9)


def test_a_prior_is_trusted_where_predictions_spread_wider_than_their_error(
    prior: LabelPrior,
) -> None:
    expected = 1 - ERROR_SD_DEG**2 / (SD_DEG**2 + ERROR_SD_DEG**2)
    np.testing.assert_allclose(prior.signal_share, expected, atol=0.05)
    assert prior.doubt == ""


def test_predictions_shrunk_to_their_error_are_no_narrow_distribution() -> None:
    """The eyes look around by 10°, and the estimators see a third of it in yaw."""
    rng = np.random.default_rng(3)
    seen = rng.normal(0, (8, 10), (1, 3000, 2)) * (1, 0.35)
    predicted = seen + rng.normal(0, (4, 3.5), seen.shape)
    shrunk = estimate_label_prior(predicted, training_deg(), (4.0, 4.9), seed=0)
    assert shrunk.sd_deg[1] < 5
    assert "predicted yaw spreads by 4.9°, hardly more than its error of 4.9°" in shrunk.doubt


def test_the_same_seed_gives_the_same_bits(prior: LabelPrior) -> None:
    again = estimate_label_prior(predictions_deg(), training_deg(), ERROR_SD_DEG, seed=0)
    np.testing.assert_array_equal(again.density, prior.density)
    assert again.num_iterations == prior.num_iterations > 1


def test_a_second_estimator_that_predicts_the_same_changes_nothing() -> None:
    """No image is in both halves: else EM would fit what it is to be stopped by."""
    predicted = predictions_deg(count=200)
    alone = estimate_label_prior(predicted, training_deg(), ERROR_SD_DEG, seed=0)
    twice = np.concatenate([predicted, predicted])
    both = estimate_label_prior(twice, training_deg(), ERROR_SD_DEG, seed=0)
    assert both.num_iterations == alone.num_iterations
    np.testing.assert_allclose(both.density, alone.density, atol=1e-12)


def test_labels_that_are_alike_already_stay_almost_as_they_are() -> None:
    labels = np.random.default_rng(0).normal(0, 10, (4000, 2))
    blurred = (labels + np.random.default_rng(1).normal(0, 5, labels.shape))[None]
    weights = estimate_label_prior(blurred, labels, (5, 5), seed=0).weights(labels)
    assert np.quantile(np.abs(weights - 1), 0.9) < 0.4


def test_each_row_comes_as_often_as_is_due() -> None:
    weights = np.array([0.5, 1.5, 0.25, 2.0, 0.75])
    for seed in range(20):
        counts = np.bincount(resampled_rows(weights, seed), minlength=5)
        assert counts.sum() == 5
        assert (np.abs(counts - weights) < 1).all()


def test_the_error_spread_grows_by_as_much_as_seeds_disagree_more_on_real_images() -> None:
    rng = np.random.default_rng(4)
    truth = training_deg(4000)
    common = rng.normal(0, 4, truth.shape)
    held_out = truth + common + rng.normal(0, 3, (2, *truth.shape))
    real = rng.normal(0, 10, truth.shape) + rng.normal(0, 4.5, (2, *truth.shape))
    spread = error_spread_deg(held_out, truth, real, by_identity=True)
    np.testing.assert_allclose(spread, 5 * 1.5, rtol=0.05)
    np.testing.assert_allclose(
        error_spread_deg(held_out, truth, real, by_identity=False), 1.35 * spread
    )
    silent = np.stack([truth, truth])
    fallback = error_spread_deg(silent, truth, real, by_identity=True)
    np.testing.assert_array_equal(fallback, FALLBACK_ERROR_SD_DEG)


def test_a_gaze_that_is_not_known_is_refused(prior: LabelPrior) -> None:
    unknown = predictions_deg(count=3)
    unknown[0, 1] = np.nan
    with pytest.raises(InputError, match="1 of 3 predictions on real images are not"):
        estimate_label_prior(unknown, training_deg(), ERROR_SD_DEG, seed=0)
    with pytest.raises(InputError, match=r"training labels \[N, 2\], found \[0, 2\]"):
        prior.weights(np.empty((0, 2)))
    with pytest.raises(InputError, match="above 0°"):
        estimate_label_prior(predictions_deg(), training_deg(), (9.0, 0.0), seed=0)


def test_a_prior_is_read_as_it_was_written_and_nothing_else_is_one(
    prior: LabelPrior, tmp_path: Path
) -> None:
    path = tmp_path / "prior.npz"
    save_label_prior(path, prior)
    np.testing.assert_array_equal(load_label_prior(path).density, prior.density)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="is not a label prior"):
        load_label_prior(path)
    with pytest.raises(InputError, match="simgan label-prior"):
        load_label_prior(tmp_path / "none.npz")


def test_pseudo_labels_that_landmarks_confirm_are_not_doubted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    training = rng.uniform(-25, 25, (2000, 2))
    narrow = rng.normal(3, 4, (1, 500, 2))
    alone = estimate_label_prior(narrow, training, (5, 5), seed=0)
    assert alone.doubt
    confirmed = replace(alone, by_landmarks=True)
    assert not confirmed.doubt
    save_label_prior(tmp_path / "prior.npz", confirmed)
    assert load_label_prior(tmp_path / "prior.npz").by_landmarks is True
