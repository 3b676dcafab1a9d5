"""Where the pupil's centre is in an image of an eye: a fit of pupil and iris to their edges.

The model is two curves round one centre: the pupil, a circle, and the limbus (the iris's rim), an
ellipse ρ(θ) = r + e₁ cos 2θ + e₂ sin 2θ. Either may be invisible: a dark iris hides the pupil, a
bright one the limbus, and the other curve then places the centre alone. Along rays from the
present centre the fit looks for steps from dark to bright near the present curves, and moves
centre and curves to them by weighted least squares, again and again, in ever narrower windows.
Half the way it looks along new rays from where the centre is by then.

The upper lid is the danger: its edge and lashes are the strongest steps in the picture, and in
most eyes it covers the limbus. So no ray points upward, the sides count in full and the bottom in
part, and rays that disagree with the rest lose their weight (Cauchy).

Shapes: N images, R rays, K places along a ray, 2·R observations (pupil first, limbus after). Images
are the last axis of all arrays of the fit: each step is then one sweep over many images at once,
where solving and gathering image by image took five times as long.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simgan_core.errors import InputError
from simgan_core.radial_edges import (
    ANGLES,
    RAY_PX,
    RAY_WEIGHTS,
    STEP_PX,
    WIDTH_PX,
    radial_edges,
)

FloatArray = NDArray[np.floating[Any]]

# Lengths are pixels of an image 55 pixels wide, and scale with the width.
_PUPIL_PX = (1.6, 4.6)
"""Smallest and largest radius of a pupil."""
_IRIS_PX = (6.0, 10.5)
"""Smallest and largest radius of an iris."""
_PUPIL_PLACES = slice(0, int(np.searchsorted(RAY_PX, 6.25)))
_IRIS_PLACES = slice(int(np.searchsorted(RAY_PX, 3.75)), None)
"""Those where pupil and limbus are looked for."""
_WINDOWS_PX = (2.0, 1.5, 1.2), (1.0, 1.0, 1.0)
"""Standard deviation of the window round the present curves in each round of the fit, along the
first rays and along those from the better centre."""
_DISAGREEMENT_PX = 0.5
"""A ray whose edge misses the fit by so much counts half."""
_FARTHEST_PX = 4.0
"""A centre that ends farther from its start has found something else."""

_BLOCK = 256
"""Images fitted at once: their edges stay in a core's cache, calls cost little, and all products of
matrices are too small for BLAS to start threads for them."""


def locate_pupil(
    images: NDArray[Any], start_px: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return centres [N, 2] as x, y in pixels, and whether each was found [N].

    Images are [N, H, W, C] of any pixel type; `start_px` [N, 2] is where the search begins, good
    to some 2 px (the label). (0, 0) is the image's top-left corner. Not found means that too little
    of the two curves was seen, or far from the start, or that the start was not finite; the centre
    is then NaN. No image has an influence on another's result, to the last bit.

    Raises InputError where the shapes disagree.
    """
    start = np.asarray(start_px, np.float32)
    if images.ndim != 4 or start.shape != (len(images), 2):
        raise InputError(
            "locating pupils needs images [N, H, W, C] and as many starts [N, 2], "
            f"found {images.shape} and {start.shape}"
        )
    centres = np.full((len(images), 2), np.nan, np.float32)
    found = np.zeros(len(images), np.bool_)
    # A blank or broken start is nowhere; it would only have warned of NaN all the way.
    usable = np.flatnonzero(np.isfinite(start).all(axis=1))
    for first in range(0, len(usable), _BLOCK):
        rows = usable[first : first + _BLOCK]
        # Sums run in another order in arrays of another shape: the last block is filled up.
        block = np.resize(rows, _BLOCK)
        centres_px, convincing = _fit(images[block], start[block])
        centres[rows], found[rows] = centres_px[: len(rows)], convincing[: len(rows)]
    centres[~found] = np.nan
    return centres, found


_COS, _SIN = np.cos(ANGLES), np.sin(ANGLES)
_ZERO, _ONE = np.zeros_like(ANGLES), np.ones_like(ANGLES)

# The state of a fit is x, y, pupil radius, iris radius, e₁, e₂, all in pixels of an image 55 pixels
# wide, x and y from where the rays begin; how an edge's distance from there, along each ray,
# changes with each of them [2·R, 6]:
_SLOPES = np.concatenate(
    [
        np.stack([_COS, _SIN, _ONE, _ZERO, _ZERO, _ZERO], axis=1),
        np.stack([_COS, _SIN, _ZERO, _ONE, np.cos(2 * ANGLES), np.sin(2 * ANGLES)], axis=1),
    ]
)
_ONE_OF_TWO, _OTHER_OF_TWO = np.triu_indices(6)
_PRODUCTS = np.ascontiguousarray((_SLOPES[:, _ONE_OF_TWO] * _SLOPES[:, _OTHER_OF_TWO]).T)
"""Products of two slopes, each once, for normal equations [21, 2·R]."""
_PRODUCT_OF = np.zeros((6, 6), np.intp)
_PRODUCT_OF[_ONE_OF_TWO, _OTHER_OF_TWO] = _PRODUCT_OF[_OTHER_OF_TWO, _ONE_OF_TWO] = np.arange(21)
"""Which of them belongs to two unknowns [6, 6]."""
_ACROSS = np.stack([_SIN, -_COS], axis=1)
"""How far a centre is beside each ray [R, 2]."""
_OBSERVATION_WEIGHTS = np.concatenate([RAY_WEIGHTS, RAY_WEIGHTS])[:, None]
_DAMPING = np.array([0.02, 0.02, 1.0, 0.5, 0.0, 0.0], np.float32)
"""What slows a step, as so many rays with a full edge that say "stay"; it pulls nowhere."""
_PULL = np.array([0.0, 0.0, 0.0, 0.0, 1.5, 1.5], np.float32)
"""What pulls e₁ and e₂ to 0, likewise: seen from the sides alone, an ellipse looks like a larger
circle."""
_ENOUGH_EDGE = 1.83
"""Edge on the curves, summed along a ray and averaged over rays, that shows an eye. Of the built-in
simulator's synthetic and real eyes 99.8% and 75% have more, of skin, noise and blank images 47%,
37% and none."""


def _fit(images: NDArray[Any], start_px: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the centres [N, 2] of some images at once, and whether they convince [N]."""
    scale = images.shape[2] / WIDTH_PX
    grey = images[..., 0] if images.shape[3] == 1 else images.mean(axis=-1, dtype=np.float32)
    first_windows, last_windows = _WINDOWS_PX
    state = np.zeros((6, len(images)), np.float32)
    edges = radial_edges(grey, start_px.T, scale)
    state[2], state[3] = _first_radii(edges)
    state = _settled(edges, state, first_windows)
    rays_px = start_px.T + state[:2] * scale
    state[:2] = 0
    edges = radial_edges(grey, rays_px, scale)
    state = _settled(edges, state, last_windows)
    convincing = _is_convincing(*_observe(edges, state, last_windows[-1]))
    centres_px = (rays_px + state[:2] * scale).T
    near = np.linalg.norm(centres_px - start_px, axis=1) <= _FARTHEST_PX * scale
    return centres_px, convincing & near


def _first_radii(edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the radii [N] of pupil and iris round the start, where rays agree best on an edge."""
    # The start is off by a pixel or so, which spreads an edge over as many radii.
    agreement = (edges * RAY_WEIGHTS[:, None, None]).sum(axis=0)
    best = []
    for low, high in (_PUPIL_PX, _IRIS_PX):
        first, end = np.searchsorted(RAY_PX, (low, high + STEP_PX / 2))
        spread = np.exp(-0.5 * (RAY_PX[first:end, None] - RAY_PX) ** 2)
        best.append(RAY_PX[first:end][np.argmax(spread @ agreement, axis=0)])
    return best[0], best[1]


def _settled(edges: FloatArray, state: FloatArray, windows: tuple[float, ...]) -> FloatArray:
    """Return the state after a round in each window."""
    for window in windows:
        state = _moved(state, *_observe(edges, state, window))
    return state


def _observe(edges: FloatArray, state: FloatArray, window: float) -> tuple[FloatArray, FloatArray]:
    """Return how much of an edge each ray has near each curve, and its offset outward [2·R, N]."""
    along, across = _SLOPES[: len(ANGLES), :2] @ state[:2], _ACROSS @ state[:2]
    ellipse = _SLOPES[len(ANGLES) :, 3:] @ state[3:]
    # What is close to the limbus is not the pupil's edge.
    pupil_ends = along + np.minimum(_PUPIL_PX[1] + 1, state[3] - 2)
    seen, offsets = np.empty((2, 2, len(ANGLES), state.shape[1]), np.float32)
    for curve, (radius, outline) in enumerate(((state[2], state[2]), (state[3], ellipse))):
        chosen = (_PUPIL_PLACES, _IRIS_PLACES)[curve]
        middle = RAY_PX[chosen].mean()
        places = RAY_PX[chosen] - middle
        one = np.ones_like(places)
        # A centre off the rays' by across: the curve's distance, to second order.
        distance = outline + along - across * across / (2 * radius) - middle
        # The window's exponent −(place − distance)² / 2 window², as a product of matrices: one
        # sweep over the places instead of three.
        powers = np.stack([np.ones_like(distance), distance, distance * distance], axis=1)
        halves = np.stack([places * places, -2 * places, one], axis=1)
        near = (-0.5 / window**2 * halves) @ powers
        np.exp(near, out=near)
        near *= edges[:, chosen]
        if curve == 0:
            powers[:, 1] = pupil_ends - middle
            inside = np.stack([-places, one], axis=1) / STEP_PX @ powers[:, :2]
            near *= np.clip(inside, 0, 1, out=inside)
        moments = np.stack([one, places]) @ near
        seen[curve] = moments[:, 0]
        offsets[curve] = moments[:, 1] / (seen[curve] + 1e-6) - distance
    return seen.reshape(-1, state.shape[1]), offsets.reshape(-1, state.shape[1])


def _moved(state: FloatArray, seen: FloatArray, offsets: FloatArray) -> FloatArray:
    """Return the state after one robust least-squares step towards the observed edges."""
    weights = seen * _OBSERVATION_WEIGHTS
    all_agree = _solved(weights, offsets, state)
    step = _solved(weights / _disagreement(offsets - _SLOPES @ all_agree), offsets, state)
    moved = np.asarray(state + step.clip(-1, 1))
    moved[2] = moved[2].clip(*_PUPIL_PX)
    moved[3] = moved[3].clip(*_IRIS_PX)
    return moved


def _disagreement(misfit: FloatArray) -> FloatArray:
    """Return by what the weight of a ray is divided whose edge misses the fit by so much."""
    misfit = misfit / _DISAGREEMENT_PX
    misfit *= misfit
    misfit += 1
    return misfit


def _solved(weights: FloatArray, offsets: FloatArray, state: FloatArray) -> FloatArray:
    """Return the steps [6, N] that explain the offsets [2·R, N] best."""
    equations = np.empty((6, 7, state.shape[1]), np.float32)
    equations[:, :6] = (_PRODUCTS @ weights)[_PRODUCT_OF]
    for unknown in range(6):
        equations[unknown, unknown] += _DAMPING[unknown] + _PULL[unknown]
    equations[:, 6] = _SLOPES.T @ (weights * offsets) - _PULL[:, None] * state
    # Gauss and Jordan's elimination; damping and pull keep the pivots positive.
    for unknown in range(6):
        pivot = equations[unknown, unknown + 1 :] / equations[unknown, unknown]
        equations[:, unknown + 1 :] -= equations[:, unknown, None] * pivot
        equations[unknown, unknown + 1 :] = pivot
    return np.asarray(equations[:, 6])


def _is_convincing(seen: FloatArray, offsets: FloatArray) -> NDArray[np.bool_]:
    """Say where enough edge lies on the fitted curves, both together [N]."""
    agreeing = seen * _OBSERVATION_WEIGHTS / _disagreement(offsets)
    return np.asarray(agreeing.sum(axis=0) >= _ENOUGH_EDGE * RAY_WEIGHTS.sum())
