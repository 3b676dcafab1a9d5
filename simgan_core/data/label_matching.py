"""Label matching: resample synthetic rows to the label distribution of unlabelled real images.

Where a simulator looks in every direction alike and people mostly at a screen, an estimator learns
a wrong prior, and a refiner is taught that looking away is unreal. An estimator trained on
synthetic images guesses the real labels: single guesses may be wrong, what is used is how they are
distributed.
"""

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from simgan_core.gaze import pitchyaw_from_gaze

_SMOOTHING_DEG = 3.0
"""Width of the kernel that densities are estimated with: about an estimator's error."""
_MAX_RATIO = 10.0
"""How many times more or less often than the mean a synthetic image may be dealt."""
_BINS_DEG = np.arange(-90.0, 91.0, 1.0)


def density_ratio(
    synthetic_gaze: NDArray[np.floating], real_gaze: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return how much more often each synthetic gaze occurs among real ones [N], 1 in the mean.

    Gazes are unit vectors [N, 3] and [M, 3], the real ones estimated. Raises InputError where one
    is not finite.
    """
    synthetic_deg, real_deg = (
        np.degrees(pitchyaw_from_gaze(gaze)) for gaze in (synthetic_gaze, real_gaze)
    )
    for name, angles in (("synthetic", synthetic_deg), ("real", real_deg)):
        if len(angles) == 0 or not np.isfinite(angles).all():
            raise InputError(f"matching labels needs a finite gaze of every {name} image")
    density_of_synthetic, density_of_real = (
        _density(angles)[_bins(synthetic_deg)] for angles in (synthetic_deg, real_deg)
    )
    ratio = density_of_real / density_of_synthetic
    ratio = np.clip(ratio / ratio.mean(), 1 / _MAX_RATIO, _MAX_RATIO)
    return np.asarray(ratio / ratio.mean())


def resampled_rows(ratio: NDArray[np.floating], seed: int) -> NDArray[np.int64]:
    """Return N rows among N, each as often as its ratio says, to the nearest whole number.

    Systematic resampling: one random number decides, and no row is rarer or more frequent by 1
    than is due.
    """
    count = len(ratio)
    start = np.random.default_rng(seed).random()
    places = (start + np.arange(count)) / count * np.sum(ratio)
    rows = np.searchsorted(np.cumsum(ratio), places, side="right")
    return np.asarray(np.minimum(rows, count - 1), np.int64)


def _density(angles_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smoothed histogram of [N, 2] pitch and yaw, 1° a bin, summing to 1."""
    histogram = np.zeros((len(_BINS_DEG) - 1, len(_BINS_DEG) - 1))
    np.add.at(histogram, _bins(angles_deg), 1)
    reach = int(4 * _SMOOTHING_DEG)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTHING_DEG) ** 2)
    for axis in (0, 1):
        histogram = np.apply_along_axis(np.convolve, axis, histogram, kernel, mode="same")
    return np.asarray(histogram / histogram.sum() + 1e-12)


def _bins(angles_deg: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    pitch, yaw = (np.digitize(angle, _BINS_DEG[1:-1]) for angle in angles_deg.T)
    return pitch, yaw
