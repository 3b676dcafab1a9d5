"""Label-shift correction: the label distribution of unlabelled real images, and row weights.

A simulator looks in every direction alike, people mostly at a screen, so an estimator learns a
wrong prior, and a refiner is taught that looking away is unreal. Two estimators trained on the
synthetic images predict the gaze of the unlabelled real ones. Their predictions are the real
labels blurred by the estimators' error: maximum likelihood (EM for label shift, Saerens et al.,
Neural Computation 2002, with a Gaussian error kernel instead of a confusion matrix) undoes the
blur. Synthetic rows are then drawn as often as their labels occur under the estimated prior.

Angles are pitch and yaw in degrees, [N, 2], signs as in `simgan_core.gaze`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.atomic_file import atomic_write
from simgan_core.errors import InputError

Angles = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

PSEUDO_LABEL_ERROR_SD_DEG = 5.0
"""Standard deviation of the error of pseudo-labels: predictions of estimators averaged with gaze
from landmarks and centred by look. On people with labels it is 3 to 5° in pitch and in yaw."""
FALLBACK_ERROR_SD_DEG = 9.0
"""Standard deviation of an estimator's error on images of another domain where nothing tells."""
_RANDOM_SPLIT_FACTOR = 1.35
"""Ratio of errors on unseen identities to errors on unseen rows of known identities."""
_ERROR_SD_RANGE_DEG = (1.0, 30.0)
_STEP_DEG = 2.0
"""Side of a cell of the grid on which priors are estimated."""
_TRAINING_SMOOTHING_DEG = 3.0
_PRIOR_SMOOTHING_DEG = 1.5
_MAX_ITERATIONS = 200
_PATIENCE = 3
"""Iterations without a better likelihood of the other half after which EM stops."""
_MIN_GAIN = 1e-5
"""Log-likelihood a prediction by which an iteration has to be better to count as such."""
_OUTLIER_DENSITY = 1e-12
"""Added to every likelihood, so that a prediction that nothing explains changes nothing."""
_MAX_PREDICTIONS = 8192
"""Predictions that EM looks at, drawn at random from more."""
_MAX_RATIO = 10.0
"""Largest factor by which a row is drawn more or less often than the mean."""
_MEAN_UNCERTAINTY_DEG = 5.0
"""Standard deviation by which a prior is blurred before rows are drawn by it: a domain's common
offset is part of the predictions' mean and of no estimate of their error (docs/decisions.md)."""
_LEAST_SIGNAL_SHARE = 0.15
"""Share of the predictions' variance beyond their error's below which a prior is not trusted: 0.18
and more where matching helped, 0.11 and 0.00 where it did harm (docs/decisions.md)."""


@dataclass(frozen=True)
class LabelPrior:
    """A density of gaze on a grid of pitch × yaw, estimated for unlabelled images."""

    pitch_deg: Floats
    """Centres of the grid's rows [P], ascending."""
    yaw_deg: Floats
    """Centres of the grid's columns [Y], ascending."""
    density: Floats
    """Share of the images in each cell [P, Y], summing to 1."""
    error_sd_deg: Floats
    """Assumed standard deviation of the predictions' error [2]."""
    prediction_sd_deg: Floats
    """Standard deviation of the predictions themselves [2]."""
    num_iterations: int
    """EM iterations after which the other half's likelihood stopped rising."""
    by_landmarks: bool = False
    """Whether the predictions are averaged with gaze from eye landmarks, which confirms them."""

    @property
    def mean_deg(self) -> Floats:
        """Mean pitch and yaw [2]."""
        return np.array([p @ axis for p, axis in self._marginals()])

    @property
    def sd_deg(self) -> Floats:
        """Standard deviation of pitch and yaw [2]."""
        pairs = zip(self._marginals(), self.mean_deg, strict=True)
        return np.array([np.sqrt(p @ (axis - mean) ** 2) for (p, axis), mean in pairs])

    @property
    def signal_share(self) -> Floats:
        """Share of the predictions' variance that their error does not explain, pitch and yaw [2].

        About 0 or less where predictions spread no wider than their own error: then they are shrunk
        towards the middle, and the prior is as narrow as they are, whatever the truth is.
        """
        return np.asarray(1 - (self.error_sd_deg / self.prediction_sd_deg) ** 2)

    def effective_share(self, labels_deg: Angles) -> float:
        """Return Kish's effective sample size of rows [N, 2] under the prior, as a share of N."""
        weights = self.weights(labels_deg)
        return float(weights.sum() ** 2 / (weights**2).sum() / len(weights))

    @property
    def doubt(self) -> str:
        """Reason not to match labels by this estimate; empty if it is to be trusted."""
        worst = int(self.signal_share.argmin())
        if self.by_landmarks or self.signal_share[worst] >= _LEAST_SIGNAL_SHARE:
            return ""
        return (
            f"predicted {('pitch', 'yaw')[worst]} spreads by {self.prediction_sd_deg[worst]:.1f}°, "
            f"hardly more than its error of {self.error_sd_deg[worst]:.1f}°, so that shrunk "
            "predictions cannot be told from a narrow distribution"
        )

    def weights(self, labels_deg: Angles) -> Floats:
        """Return the sampling weight of each row of a training set [N, 2], [N], 1 in the mean.

        The ratio of the prior, blurred by 5° since its mean is uncertain, to the training set's own
        smoothed density, clipped to a tenth and ten times the mean. Raises
        InputError where there is no label or one is not finite.
        """
        labels_deg = _checked(labels_deg, "training labels [N, 2]")
        cells = _cells(labels_deg, (self.pitch_deg, self.yaw_deg))
        own = _smoothed_histogram(cells, self.density.shape)
        blurred = _smoothed(self.density, _MEAN_UNCERTAINTY_DEG)
        ratio = blurred[cells] / np.maximum(own[cells], _OUTLIER_DENSITY)
        ratio = np.clip(ratio / ratio.mean(), 1 / _MAX_RATIO, _MAX_RATIO)
        return np.asarray(ratio / ratio.mean())

    def _marginals(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        return (self.density.sum(1), self.pitch_deg), (self.density.sum(0), self.yaw_deg)


def estimate_label_prior(
    predictions_deg: Angles, training_deg: Angles, error_sd_deg: Sequence[float] | Floats, seed: int
) -> LabelPrior:
    """Estimate the label distribution behind predictions [S, M, 2] by maximum likelihood.

    `predictions_deg` are those of S estimators on M images, trained on rows with labels
    `training_deg` [N, 2] as they are; the error is Gaussian with `error_sd_deg` [2].
    EM starts at the training labels' density. It stops where the likelihood of the images
    that were kept out stops rising: the mean over two random halves, each kept out in turn.
    `seed` decides the halves. Raises InputError where an angle is missing or not finite.
    """
    training_deg = _checked(training_deg, "training labels [N, 2]")
    predictions_deg = _checked(predictions_deg, "predictions on real images [S, M, 2]")
    sd_deg = np.asarray(error_sd_deg, np.float64)
    if sd_deg.shape != (2,) or not (np.isfinite(sd_deg) & (sd_deg > 0)).all():
        raise InputError(
            f"the error's standard deviation should be two angles above 0°, found {error_sd_deg}"
        )
    low, high = np.floor(training_deg.min(0) / _STEP_DEG), training_deg.max(0) / _STEP_DEG
    axes = [_STEP_DEG * np.arange(low[i], high[i] + 1) for i in (0, 1)]
    start = _smoothed_histogram(_cells(training_deg, axes), (len(axes[0]), len(axes[1])))
    rng = np.random.default_rng(seed)
    num_estimators, num_images, _ = predictions_deg.shape
    # Images and not predictions are halved: estimators err alike on one image.
    order = rng.permutation(num_images)[: max(1, _MAX_PREDICTIONS // num_estimators)]
    halves = [_kernels(predictions_deg[:, order[half::2]], axes, sd_deg) for half in (0, 1)]
    kernels = tuple(np.concatenate(axis) for axis in zip(*halves, strict=True))
    stops = [_best_iteration(start, halves[i], halves[1 - i]) for i in (0, 1)]
    num_iterations = max(1, int(np.mean(stops)))
    density = start
    for _ in range(num_iterations):
        density = _em_step(density, kernels)
    spread = predictions_deg.std(axis=(0, 1))
    return LabelPrior(axes[0], axes[1], density, sd_deg, spread, num_iterations)


def error_spread_deg(
    held_out_deg: Angles, truth_deg: Angles, real_deg: Angles, *, by_identity: bool
) -> Floats:
    """Estimate the standard deviation [2] of predictions' errors on real images, without labels.

    `held_out_deg` [2, N, 2] are the predictions of two seeds on synthetic rows that they did not
    train on, whose labels are `truth_deg` [N, 2]; `real_deg` [2, M, 2] are two seeds' predictions
    on real images. The held-out error is scaled by how much more the two seeds disagree on real
    images. Where rows were not held out `by_identity`, errors are 1.35 times larger than they seem.
    """
    residual_sd = (held_out_deg - truth_deg).std(axis=1).mean(axis=0)
    disagreement = _disagreement(held_out_deg)
    if not (disagreement > 0).all():
        return np.full(2, FALLBACK_ERROR_SD_DEG)
    sd_deg = residual_sd * _disagreement(real_deg) / disagreement
    if not by_identity:
        sd_deg = _RANDOM_SPLIT_FACTOR * sd_deg
    return np.asarray(np.clip(sd_deg, *_ERROR_SD_RANGE_DEG), np.float64)


def resampled_rows(weights: NDArray[np.floating[Any]], seed: int) -> NDArray[np.int64]:
    """Resample N of N rows in proportion to their weights, to the nearest whole number.

    Systematic resampling: one random number decides, and no row is rarer or more frequent by 1
    than is due.
    """
    count = len(weights)
    start = np.random.default_rng(seed).random()
    places = (start + np.arange(count)) / count * np.sum(weights)
    rows = np.searchsorted(np.cumsum(weights), places, side="right")
    return np.asarray(np.minimum(rows, count - 1), np.int64)


def save_label_prior(path: Path, prior: LabelPrior) -> None:
    """Write a prior as npz, atomically."""
    arrays = {field.name: getattr(prior, field.name) for field in fields(prior)}
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_label_prior(path: Path) -> LabelPrior:
    """Read a prior; InputError where the file is not one."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; make one with simgan label-prior")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            found = {field.name: kept[field.name] for field in fields(LabelPrior)}
        kinds = {"num_iterations": int, "by_landmarks": bool}
        prior = LabelPrior(**found | {name: kind(found[name]) for name, kind in kinds.items()})
        whole = prior.density.shape == (len(prior.pitch_deg), len(prior.yaw_deg))
    except Exception as error:  # damaged bytes fail anywhere in the reader
        raise InputError(
            f"{path} is not a label prior ({type(error).__name__}: {error}); make one with simgan "
            "label-prior"
        ) from error
    if not whole or not np.isclose(prior.density.sum(), 1):
        raise InputError(f"{path} is damaged: its density is none; make it again")
    return prior


def _disagreement(predictions_deg: Angles) -> Floats:
    """Return the root mean square of half the squared difference of two seeds [2, N, 2], [2]."""
    first, second = predictions_deg
    return np.asarray(np.sqrt(((first - second) ** 2).mean(axis=0) / 2), np.float64)


def _kernels(
    predictions_deg: Floats, axes: Sequence[Floats], sd_deg: Floats
) -> tuple[Floats, Floats]:
    """Return likelihoods of predictions [S, M, 2] by pitch [S·M, P] and by yaw [S·M, Y]."""
    predictions_deg = predictions_deg.reshape(-1, 2)
    pitch, yaw = (
        np.exp(-0.5 * ((predictions_deg[:, i, None] - axes[i]) / sd_deg[i]) ** 2) for i in (0, 1)
    )
    return pitch, yaw


def _likelihood(density: Floats, kernels: tuple[Floats, ...]) -> Floats:
    """Return the likelihood of each prediction [M] under a density [P, Y], up to a factor."""
    pitch, yaw = kernels
    return np.asarray(((pitch @ density) * yaw).sum(axis=1) + _OUTLIER_DENSITY)


def _em_step(density: Floats, kernels: tuple[Floats, ...]) -> Floats:
    """Return the mean posterior [P, Y] of all predictions, smoothed."""
    pitch, yaw = kernels
    share = 1 / _likelihood(density, kernels)
    posterior = density * (pitch.T @ (yaw * share[:, None]) + _OUTLIER_DENSITY * share.sum())
    smoothed = _smoothed(posterior / len(share), _PRIOR_SMOOTHING_DEG)
    return np.asarray(smoothed / smoothed.sum())


def _best_iteration(
    density: Floats, fitted: tuple[Floats, ...], kept_out: tuple[Floats, ...]
) -> int:
    """Return the number of EM iterations on one half by the likelihood of the other half."""
    if len(kept_out[0]) == 0:
        return 1
    best, best_at = -np.inf, 0
    for iteration in range(_MAX_ITERATIONS):
        score = float(np.log(_likelihood(density, kept_out)).mean())
        if score > best + _MIN_GAIN:
            best, best_at = score, iteration
        elif iteration - best_at >= _PATIENCE:
            break
        density = _em_step(density, fitted)
    return best_at


def _smoothed_histogram(cells: tuple[NDArray[np.intp], ...], shape: tuple[int, ...]) -> Floats:
    """Return the smoothed density of training labels on the grid, summing to 1."""
    histogram = np.zeros(shape)
    np.add.at(histogram, cells, 1)
    smoothed = _smoothed(histogram, _TRAINING_SMOOTHING_DEG)
    return np.asarray(smoothed / smoothed.sum())


def _smoothed(grid: Floats, sd_deg: float) -> Floats:
    """Convolve a grid [P, Y] with a Gaussian; what leaves it is lost."""
    reach = int(np.ceil(4 * sd_deg / _STEP_DEG))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * _STEP_DEG / sd_deg) ** 2)
    kernel /= kernel.sum()
    for axis, size in enumerate(grid.shape):
        # "same" would return the kernel's length where the grid is the shorter one.
        rows = np.stack(
            [np.convolve(row, kernel)[reach : reach + size] for row in np.moveaxis(grid, axis, 1)]
        )
        grid = np.moveaxis(rows, 1, axis)
    return grid


def _cells(labels_deg: Floats, axes: Sequence[Floats]) -> tuple[NDArray[np.intp], ...]:
    """Return the nearest cell of each label [N, 2] as rows [N] and columns [N]."""
    return tuple(
        np.clip(
            np.round((labels_deg[:, i] - axes[i][0]) / _STEP_DEG).astype(np.intp),
            0,
            len(axes[i]) - 1,
        )
        for i in (0, 1)
    )


def _checked(angles_deg: Angles, what: str) -> Floats:
    """Return finite angles; `what` they are ends in their axes."""
    angles = np.asarray(angles_deg, np.float64)
    name, _, axes = what.partition(" [")
    if angles.ndim != axes.count(",") + 1 or angles.shape[-1] != 2 or angles.size == 0:
        raise InputError(
            f"matching labels needs pitch and yaw of at least one image as {what}, found "
            f"{list(angles.shape)}"
        )
    finite = np.isfinite(angles).all(axis=-1)
    if not finite.all():
        raise InputError(
            f"matching labels needs finite angles; {np.count_nonzero(~finite)} of {finite.size} "
            f"{name} are not: leave out the rows without a label"
        )
    return angles
