"""Pupil localisation: fit of pupil and iris circles to radial edges.

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
where solving and gathering image by image took five times as long. On a CPU the arrays are numpy's,
on a GPU torch's, all of the fit float32, and no step waits for what an earlier one found.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Lock
from types import ModuleType

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from simgan_core.compute.array_api import Array, library_of, on_host
from simgan_core.compute.cuda_graph import CapturedFunction
from simgan_core.errors import InputError
from simgan_core.quality.radial_edges import (
    ANGLES,
    RAY_PX,
    RAY_WEIGHTS,
    STEP_PX,
    WIDTH_PX,
    FloatArray,
    radial_edges,
)

# Lengths are pixels of an image 55 pixels wide, and scale with the width.
_PUPIL_PX = (1.6, 4.6)
"""Smallest and largest radius of a pupil."""
_IRIS_PX = (6.0, 10.5)
"""Smallest and largest radius of an iris."""
_PUPIL_PLACES = slice(0, int(np.searchsorted(RAY_PX, 6.25)))
_IRIS_PLACES = slice(int(np.searchsorted(RAY_PX, 3.75)), None)
"""The places along a ray where pupil and limbus are looked for."""
_WINDOWS_PX = (2.0, 1.5, 1.2), (1.0, 1.0, 1.0)
"""Standard deviation of the window round the present curves in each round of the fit, along the
first rays and along those from the better centre."""
_DISAGREEMENT_PX = 0.5
"""A ray whose edge misses the fit by so much counts half."""
_FARTHEST_PX = 4.0
"""A centre that ends farther from its start has found something else."""

_DAMPING = np.array([0.02, 0.02, 1.0, 0.5, 0.0, 0.0], np.float32)
"""Damping of a step, in rays with a full edge; it has no direction."""
_PULL = np.array([0.0, 0.0, 0.0, 0.0, 1.5, 1.5], np.float32)
"""What pulls e₁ and e₂ to 0, likewise: seen from the sides alone, an ellipse looks like a larger
circle."""
_ENOUGH_EDGE = 1.83
"""Edge on the curves, summed along a ray and averaged over rays, that shows an eye. Of the built-in
simulator's synthetic and real eyes 99.8% and 75% have more, of skin, noise and blank images 47%,
37% and none."""

_CPU_BLOCK = 256
"""Images fitted at once: their edges stay in a core's cache, calls cost little, and all products of
matrices are too small for BLAS to start threads for them."""
_GPU_BLOCK = 16384
"""Likewise on a GPU, where a fit is a thousand kernels however many images it has."""
_GPU_BLOCK_VALUES = 2**25
"""Most values of pixels in a block on a GPU, where a fit needs some 7 bytes for each."""


def locate_pupil(
    images: Array, start_px: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return centres [N, 2] as x, y in pixels, and whether each was found [N].

    Images are [N, H, W, C] of any pixel type, an array or a tensor on a GPU, which then computes;
    `start_px` [N, 2] is where the search begins, good to some 2 px (the label). (0, 0) is the
    image's top-left corner. Not found means that too little of the two curves was seen, or far from
    the start, or that the start was not finite; the centre is then NaN. No image has an influence
    on another's result, to the last bit; the device has one on the last bits.

    Raises InputError where the shapes disagree.
    """
    start = np.asarray(start_px, np.float32)
    if images.ndim != 4 or start.shape != (len(images), 2):
        raise InputError(
            "locating pupils needs images [N, H, W, C] and as many starts [N, 2], "
            f"found {tuple(images.shape)} and {start.shape}"
        )
    fit, block_size = fit_pupils, _CPU_BLOCK
    if isinstance(images, Tensor):
        # torch gathers no wide unsigned integers.
        images = images if images.dtype is torch.uint8 else images.to(torch.float32)
        fit, block_size = _fit_on_gpu, _gpu_block_size(images.shape[1:])
    centres = np.full((len(images), 2), np.nan, np.float32)
    found = np.zeros(len(images), np.bool_)
    # A start that is not finite cannot be fitted; computing with NaN would warn at every step.
    usable = np.flatnonzero(np.isfinite(start).all(axis=1))
    for first in range(0, len(usable), block_size):
        rows = usable[first : first + block_size]
        # Sums run in another order in arrays of another shape: the last block is filled up.
        block = np.resize(rows, block_size)
        centres_px, convincing = fit(images[block], start[block])
        centres[rows] = on_host(centres_px)[: len(rows)]
        found[rows] = on_host(convincing)[: len(rows)]
    centres[~found] = np.nan
    return centres, found


def _gpu_block_size(image_shape: tuple[int, ...]) -> int:
    """Return how many images of this shape are fitted at once, which depends on nothing else."""
    return min(_GPU_BLOCK, max(1, _GPU_BLOCK_VALUES // math.prod(image_shape)))


def _fit_on_gpu(images: Tensor, start_px: FloatArray) -> tuple[Tensor, Tensor]:
    """Fit a block on a GPU, by one captured CUDA graph for each shape of images."""
    with _one_at_a_time:
        fit = _captured_fit(images.device, images.dtype, images.shape)
        found = fit(images, torch.from_numpy(start_px).to(images.device))
        return found["centres_px"], found["convincing"]


_one_at_a_time = Lock()


@lru_cache(maxsize=2)
def _captured_fit(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, ...]
) -> CapturedFunction:
    def fit(images: Tensor, start_px: Tensor) -> dict[str, Tensor]:
        centres_px, convincing = fit_pupils(images, start_px)
        return {"centres_px": centres_px, "convincing": convincing}

    return CapturedFunction(fit, device)


def fit_pupils(images: Array, start_px: Array) -> tuple[Array, Array]:
    """Return the centres [N, 2] of some images at once, and whether each fit is convincing [N].

    Images [N, H, W, C] and finite starts, float32 [N, 2], are numpy's or torch's on any device, and
    so is the result.
    """
    xp = library_of(images)
    model = _model(xp, images.device)
    scale = images.shape[2] / WIDTH_PX
    grey = images[..., 0] if images.shape[3] == 1 else images.mean(axis=-1, dtype=xp.float32)
    first_windows, last_windows = _WINDOWS_PX
    state = xp.zeros((6, len(images)), dtype=xp.float32, device=images.device)
    edges = radial_edges(grey, start_px.T, scale)
    state[2], state[3] = _first_radii(model, edges)
    state = _settled(model, edges, state, first_windows)
    rays_px = start_px.T + state[:2] * scale
    state[:2] = 0
    edges = radial_edges(grey, rays_px, scale)
    state = _settled(model, edges, state, last_windows)
    convincing = _is_convincing(model, *_observe(model, edges, state, last_windows[-1]))
    centres_px = (rays_px + state[:2] * scale).T
    near = xp.linalg.norm(centres_px - start_px, axis=1) <= _FARTHEST_PX * scale
    return centres_px, convincing & near


@dataclass(frozen=True)
class _Curve:
    """Constants of one curve and its K′ sample positions, as float32 arrays."""

    places: slice
    """Which of a ray's places they are."""
    middle: float
    """Their mean; distances from it keep sums exact."""
    radii: Array
    """Candidates of the first radius [M]."""
    spread: Array
    """Weight of an edge at each position of a ray for each of these radii [M, K]."""
    squares: Array
    """The squared distance of each place from a curve, in powers of the curve's [K′, 3]."""
    steps_within: Array
    """Steps of each position within an end, in powers of the end's distance [K′, 2]."""
    moments: Array
    """Weights of the sums over positions of an edge and of its distance from the middle [2, K′]."""


@dataclass(frozen=True)
class _Model:
    """Constants of the fit, as float32 arrays of one library on one device.

    Its state is x, y, pupil radius, iris radius, e₁, e₂, all in pixels of an image 55 pixels wide,
    x and y from where the rays begin.
    """

    pupil: _Curve
    limbus: _Curve
    slopes: Array
    """Jacobian of an edge's distance along each ray by each part of the state [2·R, 6]."""
    products: Array
    """Products of two slopes, each once, for normal equations [21, 2·R]."""
    product_of: Array
    """Which of them belongs to two unknowns, int64 [6, 6]."""
    across: Array
    """Distance of a centre from each ray [R, 2]."""
    ray_weights: Array
    """Weight of each ray [R, 1]."""
    observation_weights: Array
    """The same of both curves' observations [2·R, 1]."""
    pull: Array
    """_PULL [6, 1]."""
    stiffness: Array
    """_DAMPING and _PULL, where they stand among the products [21, 1]."""


@lru_cache
def _model(library: ModuleType, device: torch.device | str) -> _Model:
    """Compute the model once for each device, so that no fit waits for constants to arrive."""
    placed = partial(library.asarray, device=device)
    cos, sin = np.cos(ANGLES), np.sin(ANGLES)
    zero, one = np.zeros_like(ANGLES), np.ones_like(ANGLES)
    of_pupil = np.stack([cos, sin, one, zero, zero, zero], axis=1)
    of_limbus = np.stack([cos, sin, zero, one, np.cos(2 * ANGLES), np.sin(2 * ANGLES)], axis=1)
    slopes = np.concatenate([of_pupil, of_limbus])
    one_of_two, other_of_two = np.triu_indices(6)
    product_of = np.zeros((6, 6), np.int64)
    product_of[one_of_two, other_of_two] = product_of[other_of_two, one_of_two] = np.arange(21)
    return _Model(
        pupil=_curve(_PUPIL_PLACES, _PUPIL_PX, placed),
        limbus=_curve(_IRIS_PLACES, _IRIS_PX, placed),
        slopes=placed(slopes),
        products=placed(np.ascontiguousarray((slopes[:, one_of_two] * slopes[:, other_of_two]).T)),
        product_of=placed(product_of),
        across=placed(np.stack([sin, -cos], axis=1)),
        ray_weights=placed(RAY_WEIGHTS[:, None]),
        observation_weights=placed(np.concatenate([RAY_WEIGHTS, RAY_WEIGHTS])[:, None]),
        pull=placed(_PULL[:, None]),
        stiffness=placed(np.diag(_DAMPING + _PULL)[one_of_two, other_of_two, None]),
    )


def _curve(
    chosen: slice, radii_px: tuple[float, float], placed: Callable[[FloatArray], Array]
) -> _Curve:
    """Describe a curve that is looked for at the chosen places, with radii between two."""
    low, high = radii_px
    radii = RAY_PX[slice(*np.searchsorted(RAY_PX, (low, high + STEP_PX / 2)))]
    middle = RAY_PX[chosen].mean()
    places = RAY_PX[chosen] - middle
    one = np.ones_like(places)
    return _Curve(
        places=chosen,
        middle=float(middle),
        radii=placed(radii),
        # The start is off by a pixel or so, which spreads an edge over as many radii.
        spread=placed(np.exp(-0.5 * (radii[:, None] - RAY_PX) ** 2)),
        squares=placed(np.stack([places * places, -2 * places, one], axis=1)),
        steps_within=placed(np.stack([-places, one], axis=1) / STEP_PX),
        moments=placed(np.stack([one, places])),
    )


def _first_radii(model: _Model, edges: Array) -> tuple[Array, Array]:
    """Return the radii [N] of pupil and iris round the start, where rays agree best on an edge."""
    xp = library_of(edges)
    agreement = (edges * model.ray_weights[:, None]).sum(axis=0)
    pupil, iris = (
        curve.radii[xp.argmax(curve.spread @ agreement, axis=0)]
        for curve in (model.pupil, model.limbus)
    )
    return pupil, iris


def _settled(model: _Model, edges: Array, state: Array, windows: tuple[float, ...]) -> Array:
    """Return the state after a round in each window."""
    for window in windows:
        state = _moved(model, state, *_observe(model, edges, state, window))
    return state


def _observe(model: _Model, edges: Array, state: Array, window: float) -> tuple[Array, Array]:
    """Return how much of an edge each ray has near each curve, and its offset outward [2·R, N]."""
    xp, num_rays = library_of(edges), len(edges)
    along, across = model.slopes[:num_rays, :2] @ state[:2], model.across @ state[:2]
    ellipse = model.slopes[num_rays:, 3:] @ state[3:]
    # What is close to the limbus is not the pupil's edge.
    pupil_ends = along + (state[3] - 2).clip(max=_PUPIL_PX[1] + 1)
    shape = (2, 2, num_rays, state.shape[1])
    seen, offsets = xp.empty(shape, dtype=xp.float32, device=edges.device)
    curves = ((model.pupil, state[2], state[2]), (model.limbus, state[3], ellipse))
    for row, (curve, radius, outline) in enumerate(curves):
        # A centre off the rays' by across: the curve's distance, to second order.
        distance = outline + along - across * across / (2 * radius) - curve.middle
        # The window's exponent −(place − distance)² / 2 window², as a product of matrices: one
        # sweep over the places instead of three.
        powers = xp.stack([xp.ones_like(distance), distance, distance * distance], axis=1)
        near = (-0.5 / window**2 * curve.squares) @ powers
        xp.exp(near, out=near)
        near *= edges[:, curve.places]
        if curve is model.pupil:
            powers[:, 1] = pupil_ends - curve.middle
            inside = curve.steps_within @ powers[:, :2]
            near *= xp.clip(inside, 0, 1, out=inside)
        moments = curve.moments @ near
        seen[row] = moments[:, 0]
        offsets[row] = moments[:, 1] / (seen[row] + 1e-6) - distance
    return seen.reshape(2 * num_rays, -1), offsets.reshape(2 * num_rays, -1)


def _moved(model: _Model, state: Array, seen: Array, offsets: Array) -> Array:
    """Return the state after one robust least-squares step towards the observed edges."""
    weights = seen * model.observation_weights
    all_agree = _solved(model, weights, offsets, state)
    misfit = offsets - model.slopes @ all_agree
    step = _solved(model, weights / _disagreement(misfit), offsets, state)
    moved = state + step.clip(-1, 1)
    moved[2] = moved[2].clip(*_PUPIL_PX)
    moved[3] = moved[3].clip(*_IRIS_PX)
    return moved


def _disagreement(misfit: Array) -> Array:
    """Return the divisor of a ray's weight for an edge this far from the fit (robust weighting)."""
    misfit = misfit / _DISAGREEMENT_PX
    misfit *= misfit
    misfit += 1
    return misfit


def _solved(model: _Model, weights: Array, offsets: Array, state: Array) -> Array:
    """Return the steps [6, N] that explain the offsets [2·R, N] best."""
    xp, num_images = library_of(state), state.shape[1]
    equations = xp.empty((6, 7, num_images), dtype=xp.float32, device=state.device)
    products = model.products @ weights
    products += model.stiffness
    equations[:, :6] = products[model.product_of]
    equations[:, 6] = model.slopes.T @ (weights * offsets) - model.pull * state
    # Gauss and Jordan's elimination; damping and pull keep the pivots positive.
    for unknown in range(6):
        pivot = equations[unknown, unknown + 1 :] / equations[unknown, unknown]
        equations[:, unknown + 1 :] -= equations[:, unknown, None] * pivot
        equations[unknown, unknown + 1 :] = pivot
    return equations[:, 6]


def _is_convincing(model: _Model, seen: Array, offsets: Array) -> Array:
    """Return where both fitted curves lie on enough edge [N]."""
    agreeing = seen * model.observation_weights / _disagreement(offsets)
    return agreeing.sum(axis=0) >= float(_ENOUGH_EDGE * RAY_WEIGHTS.sum())
