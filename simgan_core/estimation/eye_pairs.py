"""Both eyes of a photograph, found by their ids: two views of one direction of gaze.

Convention: right eyes are mirrored, so that all images show left eyes. Two eyes of one photograph
then have the same pitch and opposite yaws. An estimator errs in the two independently for a good
part, so that their mean is better than either.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from simgan_core.stats.correlation import correlation

_SIDES = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"), ("l", "r"), ("L", "R"))
_OTHER_SIDE = {a: b for pair in _SIDES for a, b in (pair, pair[::-1])}
_SIDE = re.compile(rf"(?<![^/_\-. ])(?:{'|'.join(_OTHER_SIDE)})(?![^/_\-. ])")
"""A side as a word of its own."""

MIN_SHARE_PAIRED = 0.5
"""Share of the images whose other eye must be known for pairs to be used: among fewer an image has
no look-alikes."""
MIN_AGREEMENT = 0.3
"""Correlation of the two eyes' pitches and mirrored yaws, each, below which they are no pairs, or
not mirrored, or predictions are of no use. On real people it is 0.64 and more."""


class PairAverage(NamedTuple):
    """Predictions, averaged over both eyes of a photograph where that is of use."""

    predictions_deg: NDArray[np.float64]
    """Pitch and yaw [N, 2] in degrees."""
    share: float
    """Share of the images whose other eye is known."""
    agreement: float
    """Correlation of the two eyes' pitches or mirrored yaws, the lesser; 0 where there is none."""
    is_used: bool
    """Whether predictions are averaged; else they are as they were."""


def partner_rows(ids: Sequence[str]) -> NDArray[np.int64]:
    """Return for each row that of the same photograph's other eye, -1 where there is none [N].

    Ids of partners differ in one word alone: left and right, or L and R, alike in case. Words end
    at `/ _ - .` and blanks; of several sides in an id the last one counts: "p00/day01/0005/left",
    "anna_0017_R", "right/0017".
    """
    row_of = {name: row for row, name in enumerate(ids)}
    return np.array([row_of.get(_other_eye(name) or "", -1) for name in ids], np.int64)


def _other_eye(name: str) -> str | None:
    sides = list(_SIDE.finditer(name))
    if not sides:
        return None
    start, stop = sides[-1].span()
    return name[:start] + _OTHER_SIDE[name[start:stop]] + name[stop:]


def average_over_pairs(
    predictions_deg: NDArray[np.floating], partner: NDArray[np.integer]
) -> PairAverage:
    """Average predictions [N, 2] (pitch, yaw in degrees) over both eyes of each photograph.

    `partner` [N] is the row of the other eye, -1 where there is none; those rows stay. Yaws are
    averaged about their mean, which stays: it has an error of the estimators, but also the two
    eyes' convergence. Where less than half of the images have a partner, or the two eyes' pitches
    or mirrored yaws correlate by less than 0.3, all predictions stay.

    Raises InputError where the arrays do not belong together.
    """
    predicted = np.asarray(predictions_deg, np.float64)
    if predicted.shape != (len(partner), 2):
        raise InputError(
            f"pairs of eyes need pitch and yaw [N, 2] of {len(partner)} images, found "
            f"{list(predicted.shape)}"
        )
    rows = np.flatnonzero(partner >= 0)
    share = len(rows) / len(partner) if len(partner) else 0.0
    if not len(rows):
        return PairAverage(predicted, share, 0.0, False)
    own, mean = predicted[rows], predicted[rows].mean(axis=0)
    # A pitch is that of the other eye, a yaw about the mean its negative.
    other = mean + (predicted[partner[rows]] - mean) * [1, -1]
    agreement = min(correlation(own[:, axis], other[:, axis]) for axis in (0, 1))
    if share < MIN_SHARE_PAIRED or agreement < MIN_AGREEMENT:
        return PairAverage(predicted, share, agreement, False)
    averaged = predicted.copy()
    averaged[rows] = (own + other) / 2
    return PairAverage(averaged, share, agreement, True)
