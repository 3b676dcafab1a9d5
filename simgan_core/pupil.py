"""Where the pupil's centre is in an image of an eye: a fit of pupil and iris to their edges.

The model is two curves round one centre: the pupil, a circle, and the limbus (the iris's rim), an
ellipse ρ(θ) = r + e₁ cos 2θ + e₂ sin 2θ. Either may be invisible: a dark iris hides the pupil, a
bright one the limbus, and the other curve then places the centre alone. Along rays from the
present centre the fit looks for steps from dark to bright near the present curves, and moves
centre and curves to them by weighted least squares, again and again, in ever narrower windows.

The upper lid is the danger: its edge and lashes are the strongest steps in the picture, and in
most eyes it covers the limbus. So no ray points upward, the sides count in full and the bottom in
part, and rays that disagree with the rest lose their weight (Cauchy).

Shapes: N images, R rays, K places along a ray, 2·R observations (pupil first, limbus after).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simgan_core.errors import InputError

FloatArray = NDArray[np.floating[Any]]

# Lengths are pixels of an image 55 pixels wide, and scale with the width.
_WIDTH_PX = 55
_PUPIL_PX = (1.6, 4.6)
"""Smallest and largest radius of a pupil."""
_IRIS_PX = (6.0, 10.5)
"""Smallest and largest radius of an iris."""
_BLUR_PX = 0.6
"""Standard deviation of the smoothing before derivatives are taken."""
_RAY_PX = np.arange(1.0, 13.0, 0.5, dtype=np.float32)
"""Places along a ray, as distances from the centre [K]."""
_WINDOWS_PX = (2.0, 1.5, 1.2, 1.0, 1.0, 1.0)
"""Standard deviation of the window round the present curves in each round of the fit."""
_DISAGREEMENT_PX = 0.5
"""A ray whose edge misses the fit by so much counts half."""
_FARTHEST_PX = 4.0
"""A centre that ends farther from its start has found something else."""

_NUM_RAYS = 32
_BLOCK = 64
"""Images fitted at once: their profiles stay in a core's cache."""


def locate_pupil(
    images: NDArray[Any], start_px: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return centres [N, 2] as x, y in pixels, and whether each was found [N].

    Images are [N, H, W, C] of any pixel type; `start_px` [N, 2] is where the search begins, good
    to some 2 px (the label). (0, 0) is the image's top-left corner. Not found means that too little
    of the two curves was seen, or far from the start, or that the start was not finite; the centre
    is then NaN. No image has an influence on another's result.

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
        centres[rows], found[rows] = _fit(images[rows], start[rows])
    centres[~found] = np.nan
    return centres, found


def _ray_angles_and_weights() -> tuple[FloatArray, FloatArray]:
    """Return the rays' angles [R], clockwise from the image's right, and how much each counts."""
    angles = (2 * np.pi / _NUM_RAYS * np.arange(_NUM_RAYS)).astype(np.float32)
    downward = np.sin(angles)
    weights = np.select([downward < -0.5, downward > 0.75], [0.0, 0.6], 1.0).astype(np.float32)
    return angles[weights > 0], weights[weights > 0]


_ANGLES, _RAY_WEIGHTS = _ray_angles_and_weights()
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)
_ZERO, _ONE = np.zeros_like(_ANGLES), np.ones_like(_ANGLES)

# The state of a fit is x, y, pupil radius, iris radius, e₁, e₂; how an edge's distance from the
# centre, along each ray, changes with each of them [2·R, 6]:
_SLOPES = np.concatenate(
    [
        np.stack([_COS, _SIN, _ONE, _ZERO, _ZERO, _ZERO], axis=1),
        np.stack([_COS, _SIN, _ZERO, _ONE, np.cos(2 * _ANGLES), np.sin(2 * _ANGLES)], axis=1),
    ]
)
_OBSERVATION_WEIGHTS = np.concatenate([_RAY_WEIGHTS, _RAY_WEIGHTS])
_DAMPING = np.array([0.02, 0.02, 1.0, 0.5, 0.0, 0.0], np.float32)
"""What slows a step, as so many rays with a full edge that say "stay"; it pulls nowhere."""
_PULL = np.array([0.0, 0.0, 0.0, 0.0, 1.5, 1.5], np.float32)
"""What pulls e₁ and e₂ to 0, likewise: seen from the sides alone, an ellipse looks like a larger
circle."""
_ENOUGH_EDGE = 1.85
"""Edge on the curves, summed along a ray and averaged over rays, that shows an eye. On the built-in
simulator's domains 99% of eyes have more, of skin, noise and blank images 40%, 25% and none."""


def _fit(images: NDArray[Any], start_px: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the centres [N, 2] of some images at once, and whether they convince [N]."""
    scale = images.shape[2] / _WIDTH_PX
    smooth = _blurred(images.mean(axis=-1, dtype=np.float32), _BLUR_PX * scale)
    state = np.zeros((len(images), 6), np.float32)
    state[:, :2] = start_px
    edges = _edges(smooth, start_px, scale)
    state[:, 2], state[:, 3] = _first_radii(edges)
    for window in _WINDOWS_PX:
        state[:] = _moved(state, *_observe(edges, state, window), scale)
        edges = _edges(smooth, state[:, :2], scale)
    convincing = _is_convincing(*_observe(edges, state, _WINDOWS_PX[-1]))
    near = np.linalg.norm(state[:, :2] - start_px, axis=1) <= _FARTHEST_PX * scale
    return state[:, :2], convincing & near


def _edges(smooth: NDArray[np.float32], centre_px: FloatArray, scale: float) -> FloatArray:
    """Return how strongly grey levels rise outward, 0 to 1, along every ray [N, R, K].

    The measure is the image's own: a rise of three times the root mean square of all rays counts
    as 1, and so does a stronger one, so that no single edge rules the fit.
    """
    reach = _RAY_PX * scale
    x = centre_px[:, 0, None, None] + _COS[:, None] * reach
    y = centre_px[:, 1, None, None] + _SIN[:, None] * reach
    rise = np.maximum(np.gradient(_sampled(smooth, x, y), axis=2), 0)
    typical = np.sqrt(np.mean(rise**2, axis=(1, 2), keepdims=True))
    return np.asarray(np.minimum(rise / (3 * typical + 1e-3), 1))


def _first_radii(edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the radii [N] of pupil and iris round the start, where rays agree best on an edge."""
    # The start is off by a pixel or so, which spreads an edge over as many radii.
    reach = _RAY_PX
    distance = reach[:, None] - reach
    agreement = (edges * _RAY_WEIGHTS[:, None]).sum(axis=1) @ np.exp(-0.5 * distance**2)
    best = []
    for low, high in (_PUPIL_PX, _IRIS_PX):
        allowed = (reach >= low) & (reach <= high)
        best.append(reach[allowed][np.argmax(agreement[:, allowed], axis=1)])
    return best[0], best[1]


def _observe(edges: FloatArray, state: FloatArray, window: float) -> tuple[FloatArray, FloatArray]:
    """Return how much of an edge each ray has near each curve, and its offset outward [N, 2·R]."""
    curves = (state[:, 2:] @ _SLOPES[:, 2:].T).reshape(len(state), 2, -1)
    offsets = _RAY_PX - curves[..., None]
    near = edges[:, None] * np.exp(-0.5 * (offsets / window) ** 2)
    # What is close to the limbus is not the pupil's edge.
    pupil_ends = np.minimum(_PUPIL_PX[1] + 1, state[:, 3] - 2)[:, None, None]
    near[:, 0] *= np.less(_RAY_PX, pupil_ends)
    seen = near.sum(axis=-1)
    mean_offsets = (near * offsets).sum(axis=-1) / (seen + 1e-6)
    return seen.reshape(len(state), -1), mean_offsets.reshape(len(state), -1)


def _moved(state: FloatArray, seen: FloatArray, offsets: FloatArray, scale: float) -> FloatArray:
    """Return the state after one robust least-squares step towards the observed edges."""
    weights = seen * _OBSERVATION_WEIGHTS
    step = _solved(weights, offsets, state)
    for _ in range(2):
        misfit = offsets - step @ _SLOPES.T
        step = _solved(weights / (1 + (misfit / _DISAGREEMENT_PX) ** 2), offsets, state)
    moved = np.asarray(state + step.clip(-1, 1) * np.array([scale, scale, 1, 1, 1, 1], np.float32))
    moved[:, 2] = moved[:, 2].clip(*_PUPIL_PX)
    moved[:, 3] = moved[:, 3].clip(*_IRIS_PX)
    return moved


def _solved(weights: FloatArray, offsets: FloatArray, state: FloatArray) -> FloatArray:
    """Return the steps [N, 6] that explain the offsets [N, 2·R] best."""
    weighted = weights[..., None] * _SLOPES
    normal = _SLOPES.T @ weighted + np.diag(_DAMPING + _PULL)
    right = (weighted * offsets[..., None]).sum(axis=1) - _PULL * state
    return np.asarray(np.linalg.solve(normal, right[..., None])[..., 0])


def _is_convincing(seen: FloatArray, offsets: FloatArray) -> NDArray[np.bool_]:
    """Say where enough edge lies on the fitted curves, both together [N]."""
    agreeing = seen * _OBSERVATION_WEIGHTS / (1 + (offsets / _DISAGREEMENT_PX) ** 2)
    return np.asarray(agreeing.sum(axis=1) >= _ENOUGH_EDGE * _RAY_WEIGHTS.sum())


def _blurred(images: NDArray[np.float32], sd_px: float) -> NDArray[np.float32]:
    """Smooth images [N, H, W] with a Gaussian, edges repeated."""
    reach = int(3 * sd_px + 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sd_px) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    for axis in (1, 2):
        place = np.arange(images.shape[axis])
        smooth = np.zeros_like(images)
        for shift, weight in zip(range(-reach, reach + 1), kernel, strict=True):
            smooth += weight * images.take((place + shift).clip(0, place[-1]), axis=axis)
        images = smooth
    return images


def _sampled(images: NDArray[np.float32], x: FloatArray, y: FloatArray) -> NDArray[np.float32]:
    """Interpolate images [N, H, W] linearly at pixel positions [N, …], edges repeated."""
    num_images, height, width = images.shape
    x = (x - 0.5).clip(0, width - 1.001).astype(np.float32)
    y = (y - 0.5).clip(0, height - 1.001).astype(np.float32)
    column, row = np.floor(x), np.floor(y)
    right, below = x - column, y - row
    first = np.arange(num_images).reshape(-1, *[1] * (x.ndim - 1)) * (height * width)
    place = first + row.astype(np.intp) * width + column.astype(np.intp)
    levels = images.ravel()
    upper = levels[place] * (1 - right) + levels[place + 1] * right
    lower = levels[place + width] * (1 - right) + levels[place + width + 1] * right
    return np.asarray(upper * (1 - below) + lower * below)
