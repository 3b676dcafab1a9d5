"""Shape of the eye region: UnityEyes' shape model, and lids and lashes that follow the gaze.

Everything is in the face's frame, millimetres: Unity's, left-handed, x to the viewer's right seen
from behind the face, y up, z where the face looks, the origin at the eyeball's centre. It is the
head's camera-like frame (x right, y down, z into the scene) with all three signs turned. N scenes,
V = 229 vertices, K = 20 columns of a loop.

Arrays are numpy's or tensors, all of one library, in double precision.

The rules of motion are those of UnityEyes2's scripts (EyeRegionController, DeformEyeLashes); the
width of the opening, the place of the outer corner and the extra closing are ours.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simgan_core.compute.array_api import Array, constant, library_of
from simgan_core.simulator.unityeyes.eyeball import (
    CORNEA_CENTRE_MM,
    CORNEA_RADIUS_MM,
    SCLERA_RADIUS_MM,
    TEMPLE_WAY,
    surface_radius,
)
from simgan_core.simulator.unityeyes.topology import (
    CARUNCLE,
    IS_UPPER,
    LOOP_STRENGTH,
    LOOPS,
    MARGIN,
    MIDDLENESS,
    OUTER_COLUMN,
    PIVOT,
    UPPER_MIDDLE,
)

_MESH_BACK_MM = 0.5
"""UnityEyes moves the mesh of its shape model back by so much."""
_LID_HEIGHT_MM = 6.2
"""Way of the upper lid's middle over the whole range of gaze."""
_SKIN_MM = 2.5
"""Thickness of the upper lid's skin over the eyeball, at full strength."""
_WIDENING = np.array([1.0, 1.0, 1.0, 0.75, 0.45, 0.2])
"""Share of the widening, and of the outer corner's shift, that each loop follows [6]."""
_SHIFTED_FROM_MM = 11.0
"""Skin farther than this to the temple follows the outer corner's shift in full."""
_LASH_COLUMNS = 7
LASH_GRID = (13, 6)
"""Vertices of a strip of lashes: along the lid, from root to tip."""


@dataclass(frozen=True)
class LidPose:
    """Lid parameters of N scenes, beside the gaze."""

    close_upper_deg: Array
    """Turn of the upper lid beyond what the gaze asks for [N], positive closes."""
    close_lower_deg: Array
    """The same of the lower lid [N]."""
    widen_inner: Array
    """Stretch of the opening on the nose's side [N], 1 for UnityEyes' own."""
    widen_outer: Array
    """Stretch on the other side [N]."""
    outer_corner_mm: Array
    """Way of the outer corner beyond UnityEyes', along the conjunctiva [N]."""


class EyeRegion(NamedTuple):
    """Control mesh of N scenes."""

    vertices: Array
    """[N, V, 3]."""
    look_down: Array
    """Weight of the texture of a lid that looks down [N], 0 to 1."""


def shape_vertices(mean: Array, components: Array, coefficients: Array) -> Array:
    """Return the shape model's meshes [N, V, 3] for coefficients [N, C], in their own units.

    Args:
        mean: Mean mesh [V, 3], in metres and Blender's axes, as the assets have it.
        components: Principal components [3V, C].
        coefficients: In metres, as UnityEyes' files state them.
    """
    # A sum for each row by itself: a matrix product's bits may depend on how many rows there are.
    offsets = (components[None] * coefficients[:, None, :]).sum(axis=2).reshape(-1, len(mean), 3)
    blender = (mean + offsets) * 1000
    x, y, z = -blender[..., 0], blender[..., 2], -blender[..., 1]
    return library_of(blender).stack([x, y, z - _MESH_BACK_MM], axis=-1)


def pose_lids(shape: Array, gaze: Array, pose: LidPose) -> EyeRegion:
    """Move the lids of meshes [N, V, 3] to where eyes looking along gaze [N, 3] have them."""
    xp = library_of(shape)
    v = xp.asarray(shape, copy=True)
    _widen(v, pose)
    # Down is positive.
    rotation = -xp.rad2deg(xp.arcsin(xp.clip(gaze[:, 1], -1, 1)))
    raised = v[:, UPPER_MIDDLE] - constant(np.array([0, _LID_HEIGHT_MM, 0]), v)
    gain = _angle_deg(v[:, UPPER_MIDDLE], raised) / 20
    downness = 0.4 + 0.6 * xp.clip((rotation + 20) / 40, 0, 1)
    by_gaze = (rotation * gain * downness)[:, None]
    is_upper, middleness = constant(IS_UPPER, v), constant(MIDDLENESS, v)
    turn = xp.where(
        is_upper,
        by_gaze + pose.close_upper_deg[:, None],
        by_gaze / 3 - pose.close_lower_deg[:, None],
    )
    moved = xp.zeros_like(v[:, : len(MIDDLENESS)])
    for loop, strength in zip(LOOPS[:4], LOOP_STRENGTH, strict=False):
        outer = loop[OUTER_COLUMN]
        v[:, outer] = _turn_about_z(v[:, outer], rotation * strength * 0.15 * downness)
        axis = (v[:, PIVOT] - v[:, outer])[:, None]
        pivot = v[:, None, PIVOT] * (1 - middleness)[:, None]
        turned = _turned(v[:, loop], axis, pivot, turn * strength)
        moved = turned - v[:, loop]
        v[:, loop] = turned
    for loop in LOOPS[4:]:
        moved = moved * 0.5
        v[:, loop] += moved
    _shift_outer_corner(v, pose.outer_corner_mm)
    offsets = xp.zeros_like(v)
    _wrap_on_eyeball(v, offsets, gaze, pose.outer_corner_mm)
    thickness = _SKIN_MM * xp.clip(downness + pose.close_upper_deg / 60, 0.4, 1)
    for loop in LOOPS[2:5]:
        radius = xp.linalg.norm(v[:, loop], axis=2, keepdims=True)
        least = surface_radius(v[:, loop] / radius, gaze, pose.outer_corner_mm)[..., None]
        least = least + thickness[:, None, None] * xp.where(is_upper, 1.0, 0.5)[:, None]
        wrapped = xp.where(radius < least, v[:, loop] / radius * least, v[:, loop])
        offsets[:, loop], v[:, loop] = wrapped - v[:, loop], wrapped
    for loop, strength in zip(LOOPS[1:], LOOP_STRENGTH[1:], strict=True):
        v[:, loop] += offsets[:, LOOPS[0]] * strength
    look_down = xp.clip((rotation + 0.8 * pose.close_upper_deg) / 30, 0, 1) ** 2
    return EyeRegion(v, look_down)


def lash_strip(
    vertices: Array,
    gaze: Array,
    length: Array,
    conjunctiva_mm: Array,
    *,
    upper: bool,
    layer: int,
) -> Array:
    """Return a strip of lashes as a grid of points [N, 13, 6, 3], root to tip in the last but one.

    Args:
        vertices: Control meshes [N, V, 3] with their lids in place.
        gaze: Optical axes [N, 3].
        length: Lengths in units of UnityEyes' [N].
        conjunctiva_mm: Length of the conjunctiva's capsule [N].
        upper: The upper lid's lashes, or the lower's.
        layer: 0 or 1; the second is nearer to the margin and curls more.
    """
    first, angle, full_mm = (3, 35.0, 8.0) if upper else (11, 45.0, 5.0)
    curl = (-18.0, -20.0)[layer]
    # UnityEyes has 0.8 and 0.4 above, on a mesh that it does not subdivide here.
    height = ((0.55, 0.25) if upper else (0.2, 0.1))[layer]
    xp = library_of(vertices)
    columns = first + np.arange(_LASH_COLUMNS)
    axis = vertices[:, LOOPS[1, columns - 1]] - vertices[:, LOOPS[1, columns + 1]]
    root, above = vertices[:, LOOPS[1, columns]], vertices[:, LOOPS[2, columns]]
    origin = xp.zeros_like(root)
    outward = root / xp.linalg.norm(root, axis=2, keepdims=True)
    direction = _turned(outward, axis, origin, xp.full_like(root[..., 0], angle))
    places = [root + (above - root) * height - direction * 0.1]
    num_segments = LASH_GRID[1] - 1
    step = (length * (full_mm / num_segments))[:, None, None]
    for _ in range(num_segments):
        tip = places[-1] + direction * step
        radius = xp.linalg.norm(tip, axis=2, keepdims=True)
        least = surface_radius(tip / radius, gaze, conjunctiva_mm)[..., None] + 0.4
        places.append(xp.where(radius < least, tip / radius * least, tip))
        direction = _turned(direction, axis, origin, xp.full_like(root[..., 0], curl))
    guides = xp.stack(places, axis=2)
    place = np.linspace(0, _LASH_COLUMNS - 1, LASH_GRID[0])
    before = np.minimum(place.astype(int), _LASH_COLUMNS - 2)
    weight = constant(place - before, guides)[:, None, None]
    grid = guides[:, before] * (1 - weight) + guides[:, before + 1] * weight
    grid[:, 1:-1] = grid[:, 1:-1] * 0.5 + grid[:, :-2] * 0.25 + grid[:, 2:] * 0.25
    return grid


def _widen(v: Array, pose: LidPose) -> None:
    """Stretch the opening sideways, about the eyeball's centre, the skin round it in part."""
    xp = library_of(v)
    inside = np.setdiff1d(np.concatenate([MARGIN, CARUNCLE]), LOOPS[0])
    rings = [(inside, 1.0), *zip(LOOPS, _WIDENING, strict=True)]
    for ring, share in rings:
        x = v[:, ring, 0]
        # In the face's frame the nose of a left eye is at positive x.
        inner, outer = pose.widen_inner[:, None], pose.widen_outer[:, None]
        v[:, ring, 0] = x * (1 + share * (xp.where(x > 0, inner, outer) - 1))


def _shift_outer_corner(v: Array, shift_mm: Array) -> None:
    """Move the outer corner and the skin round it along the conjunctiva."""
    way = constant(TEMPLE_WAY, v)
    for loop, share in zip(LOOPS, _WIDENING, strict=True):
        follows = library_of(v).clip(-v[:, loop, 0] / _SHIFTED_FROM_MM, 0, 1) ** 1.5
        v[:, loop] += (share * shift_mm[:, None] * follows)[..., None] * way


def _wrap_on_eyeball(v: Array, offsets: Array, gaze: Array, conjunctiva_mm: Array) -> None:
    """Cast the margin's vertices on the eye; the caruncle's follow."""
    norm = library_of(v).linalg.norm(v[:, MARGIN], axis=2, keepdims=True)
    direction = v[:, MARGIN] / norm
    wrapped = direction * surface_radius(direction, gaze, conjunctiva_mm)[..., None]
    offsets[:, MARGIN], v[:, MARGIN] = wrapped - v[:, MARGIN], wrapped
    inner, first, last = MARGIN[0], MARGIN[1], MARGIN[-1]
    v[:, inner] = _cast_along_z((v[:, last] + v[:, first]) / 2, gaze)
    decay = 0.9
    o = offsets
    o[:, 27] = decay * o[:, inner]
    o[:, 25] = decay * (o[:, first] + o[:, inner]) / 2
    o[:, 28] = decay * (o[:, last] + o[:, inner]) / 2
    middle = decay * (o[:, 25] + o[:, 27] + o[:, 28]) / 3
    o[:, 31], o[:, 32], o[:, 30] = middle, middle, middle
    o[:, 33] = decay * middle
    v[:, CARUNCLE] += o[:, CARUNCLE]


def _cast_along_z(points: Array, gaze: Array) -> Array:
    """Return where lines along z through points [N, 3] meet the front of the eyeball [N, 3]."""
    xp = library_of(points)
    depths = []
    for centre, radius in (
        (xp.zeros_like(gaze), SCLERA_RADIUS_MM),
        (gaze * CORNEA_CENTRE_MM, CORNEA_RADIUS_MM),
    ):
        across = ((points - centre)[:, :2] ** 2).sum(axis=1)
        depths.append(centre[:, 2] + xp.sqrt(xp.clip(radius**2 - across, min=0)))
    return xp.stack([points[:, 0], points[:, 1], xp.maximum(*depths)], axis=1)


def _turned(points: Array, axis: Array, pivot: Array, angle_deg: Array) -> Array:
    """Turn points [N, K, 3] about axes through pivots by angles [N, K] (Rodrigues' formula)."""
    xp = library_of(points)
    length = xp.linalg.norm(axis, axis=-1, keepdims=True)
    unit = xp.broadcast_to(axis / xp.clip(length, min=1e-9), points.shape)
    arm = points - pivot
    cosine, sine = xp.cos(xp.deg2rad(angle_deg)), xp.sin(xp.deg2rad(angle_deg))
    along = (unit * arm).sum(axis=-1) * (1 - cosine)
    turned = arm * cosine[..., None] + _cross(unit, arm) * sine[..., None]
    return pivot + turned + unit * along[..., None]


def _turn_about_z(points: Array, angle_deg: Array) -> Array:
    xp = library_of(points)
    cosine, sine = xp.cos(xp.deg2rad(angle_deg)), xp.sin(xp.deg2rad(angle_deg))
    x, y, z = xp.moveaxis(points, -1, 0)
    return xp.stack([x * cosine - y * sine, x * sine + y * cosine, z], axis=-1)


def _cross(a: Array, b: Array) -> Array:
    xp = library_of(a)
    ax, ay, az = xp.moveaxis(a, -1, 0)
    bx, by, bz = xp.moveaxis(b, -1, 0)
    return xp.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def _angle_deg(a: Array, b: Array) -> Array:
    xp = library_of(a)
    cosine = (a * b).sum(axis=-1) / xp.linalg.norm(a, axis=-1) / xp.linalg.norm(b, axis=-1)
    return xp.rad2deg(xp.arccos(xp.clip(cosine, -1, 1)))
