import numpy as np
import pytest

from simgan_core.data.label_matching import density_ratio, resampled_rows
from simgan_core.errors import InputError
from simgan_core.gaze import gaze_from_pitchyaw, pitchyaw_from_gaze


def gazes(pitch_deg: float, spread_deg: float, count: int = 4000) -> np.ndarray:
    generator = np.random.default_rng(3)
    angles_deg = generator.normal((pitch_deg, 0.0), spread_deg, (count, 2))
    return np.asarray(gaze_from_pitchyaw(np.radians(angles_deg)))


def test_resampled_labels_are_distributed_as_the_real_ones() -> None:
    synthetic, real = gazes(0, 15), gazes(-8, 6)
    rows = resampled_rows(density_ratio(synthetic, real), seed=0)
    pitch_deg, yaw_deg = np.degrees(pitchyaw_from_gaze(synthetic[rows])).T
    # The ratio is clipped and the density smoothed, so a little of the difference stays.
    assert pitch_deg.mean() == pytest.approx(-8, abs=1.0)
    assert abs(yaw_deg.mean()) < 0.7
    assert pitch_deg.std() < 8.5


def test_labels_that_are_alike_already_stay_almost_as_they_are() -> None:
    synthetic = gazes(0, 10)
    ratio = density_ratio(synthetic, gazes(0, 10)[::-1])
    np.testing.assert_allclose(ratio, 1, atol=1e-6)
    assert len(np.unique(resampled_rows(ratio, seed=0))) == len(synthetic)


def test_each_row_comes_as_often_as_is_due() -> None:
    ratio = np.array([0.5, 1.5, 0.25, 2.0, 0.75])
    for seed in range(20):
        counts = np.bincount(resampled_rows(ratio, seed), minlength=5)
        assert counts.sum() == 5
        assert (np.abs(counts - ratio) < 1).all()


def test_a_gaze_that_is_not_known_is_refused() -> None:
    unknown = gazes(0, 10, count=3)
    unknown[1] = np.nan
    with pytest.raises(InputError, match="finite gaze of every real image"):
        density_ratio(gazes(0, 10), unknown)
