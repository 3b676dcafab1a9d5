"""Bootstrap confidence intervals of test errors and of paired differences.

Errors are degrees or pixels, one for every trained estimator (seed) and test image, axes [S, N]:
the same images in the same order under every seed. Everything is computed in float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simgan_core.errors import InputError

_DRAWS_AT_ONCE = 4_000_000
"""Images drawn before their counts are used up; bounds the memory to some 200 MB."""


@dataclass(frozen=True)
class Interval:
    """Mean and its bootstrap confidence interval, all in the unit of the averaged values."""

    mean: float
    low: float
    high: float


def cumulative_shares(errors: ArrayLike, limits: ArrayLike) -> NDArray[np.float64]:
    """Return for each of the limits [L] the share of errors at most as large.

    float64 [L], from 0 to 1; errors may have any shape. The article's Figure 11.
    """
    ordered = np.sort(np.asarray(errors, np.float64), axis=None)
    counts = np.searchsorted(ordered, np.asarray(limits, np.float64), side="right")
    return np.asarray(counts / ordered.size)


def joint_errors_px(found: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Return the distances of joints [..., J, ≥ 2] in the image, float64 [..., J], in pixels.

    Only u and v count; a depth after them is not looked at. Shares within d pixels over joints are
    what the paper reports for NYU (its Table 3).
    """
    a, b = np.asarray(found, np.float64)[..., :2], np.asarray(truth, np.float64)[..., :2]
    return np.asarray(np.linalg.norm(a - b, axis=-1))


def cell_means(
    values: ArrayLike, x: ArrayLike, y: ArrayLike, x_edges: ArrayLike, y_edges: ArrayLike
) -> NDArray[np.float64]:
    """Return the mean of values [N] in each cell of a grid over x and y, float64 [rows, columns].

    Row r holds y from edge r to edge r + 1; a cell without values is NaN, and what lies outside
    the grid is left out.
    """
    rows, columns = np.asarray(y_edges, np.float64), np.asarray(x_edges, np.float64)
    places = np.asarray(y, np.float64), np.asarray(x, np.float64)
    bins = (rows, columns)
    sums = np.histogram2d(*places, bins=bins, weights=np.asarray(values, np.float64))[0]
    counts = np.histogram2d(*places, bins=bins)[0]
    return np.asarray(np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0))


def bootstrap_mean(
    errors: ArrayLike,
    groups: NDArray[np.integer[Any]] | None,
    seed: int,
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return the mean error over seeds and images, with its bootstrap percentile interval.

    Every resample draws seeds, and images: where `groups` [N] names each image's person and there
    are at least two people, first people and then images within each drawn one, so that an
    interval speaks of further people and not only of further images of these.

    Of n seeds or people n − 1 are drawn with replacement: drawing n makes intervals of few too
    narrow, by √((n − 1)/n) (Rao and Wu, JASA 1988). One seed alone shows nothing of the others, and
    three show little: where seeds differ more than images and people do, train more of them.

    Raises InputError where shapes disagree or an error is not finite.
    """
    table = _table_of(errors, groups)
    num_images = table.shape[1]
    members = _Members.of(groups, num_images)
    rng = np.random.default_rng(seed)
    block = max(1, _DRAWS_AT_ONCE // num_images)
    means = [
        _resampled_means(table, members, min(block, num_resamples - first), rng)
        for first in range(0, num_resamples, block)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(table.mean()), float(low), float(high))


def bootstrap_difference(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    groups: NDArray[np.integer[Any]] | None,
    seed: int,
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return the mean of a − b, paired over images and seeds; below 0 where a is better.

    Every resample takes the same people, images and seeds of both [S, N], so that what is hard
    for both cancels out. Raises InputError as `bootstrap_mean` does.
    """
    a, b = np.asarray(errors_a, np.float64), np.asarray(errors_b, np.float64)
    if a.shape != b.shape:
        raise InputError(
            f"paired errors should have one shape [seeds, images], found {a.shape} and {b.shape}"
        )
    return bootstrap_mean(a - b, groups, seed, num_resamples=num_resamples, level=level)


@dataclass(frozen=True)
class _Members:
    """Which images belong to which group: group g owns `images[starts[g] :][: sizes[g]]`."""

    images: NDArray[np.intp]
    starts: NDArray[np.intp]
    sizes: NDArray[np.intp]

    @classmethod
    def of(cls, groups: NDArray[np.integer[Any]] | None, num_images: int) -> "_Members":
        """Sort the images into groups; without names all are one group."""
        names = np.zeros(num_images, np.intp) if groups is None else groups
        _, starts, sizes = np.unique(np.sort(names), return_index=True, return_counts=True)
        return cls(np.argsort(names, kind="stable"), starts, sizes)


def _table_of(errors: ArrayLike, groups: NDArray[np.integer[Any]] | None) -> NDArray[np.float64]:
    table = np.asarray(errors, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise InputError(f"errors should have the shape [seeds, images], found {table.shape}")
    if groups is not None and groups.shape != table.shape[1:]:
        raise InputError(
            f"groups should name the person of each of {table.shape[1]} images, "
            f"found the shape {groups.shape}"
        )
    if not np.isfinite(table).all():
        raise InputError("errors should be finite, found NaN or infinity: an estimator failed")
    return table


def _resampled_means(
    table: NDArray[np.float64], members: _Members, num: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the means [num] of so many resamples of the errors [S, N]."""
    image_counts = _image_counts(members, num, rng)
    seed_counts = _draw_counts(table.shape[0], num, rng)
    # How often each error was drawn is the product of two counts: a sum over resampled errors is
    # two small products of matrices, and nothing of the size of a resample is ever gathered.
    sums = (image_counts @ table.T[members.images] * seed_counts).sum(axis=1)
    return np.asarray(sums / (image_counts.sum(axis=1) * seed_counts.sum(axis=1)))


def _image_counts(members: _Members, num: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how often each image, in `members`' order, was drawn [num, N]."""
    num_groups, num_images = len(members.sizes), len(members.images)
    times = _draw_counts(num_groups, num, rng).astype(np.intp)
    # A group of n drawn k times gives k·n draws of its images, whichever of the k they belong to.
    cell = np.repeat(np.arange(num * num_groups), (times * members.sizes).ravel())
    resample, group = np.divmod(cell, num_groups)
    within = (rng.random(len(cell)) * members.sizes[group]).astype(np.intp)
    drawn = resample * num_images + members.starts[group] + within
    return np.bincount(drawn, minlength=num * num_images).reshape(num, -1).astype(np.float64)


def _draw_counts(size: int, num: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how often each of `size` things is drawn [num, size], in size − 1 draws or in 1."""
    drawn = rng.integers(0, size, (num, max(size - 1, 1))) + size * np.arange(num)[:, None]
    return np.bincount(drawn.ravel(), minlength=num * size).reshape(num, -1).astype(np.float64)
