"""Shape of the eye region: UnityEyes' shape model, and lids and lashes that follow the gaze.

Everything is in the face's frame, millimetres: Unity's, left-handed, x to the viewer's right seen
from behind the face, y up, z where the face looks, the origin at the eyeball's centre. It is the
head's camera-like frame (x right, y down, z into the scene) with all three signs turned. N scenes,
V = 229 vertices, K = 20 columns of a loop.

The rules of motion are those of UnityEyes2's scripts (EyeRegionController, DeformEyeLashes); the
width of the opening and the extra closing are ours.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simgan_core.simulator.unityeyes.eyeball import (
    CORNEA_CENTRE_MM,
    CORNEA_RADIUS_MM,
    SCLERA_RADIUS_MM,
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

Floats = NDArray[np.floating[Any]]

_MESH_BACK_MM = 0.5
"""UnityEyes moves the mesh of its shape model back by so much."""
_LID_HEIGHT_MM = 6.2
"""Way of the upper lid's middle over the whole range of gaze."""
_SKIN_MM = 2.5
"""Thickness of the upper lid's skin over the eyeball, at full strength."""
_WIDENING = np.array([1.0, 1.0, 1.0, 0.75, 0.45, 0.2])
"""Share of the widening that each loop follows [6]."""
_LASH_COLUMNS = 7
LASH_GRID = (13, 6)
"""Vertices of a strip of lashes: along the lid, from root to tip."""


@dataclass(frozen=True)
class LidPose:
    """Lid parameters of N scenes, beside the gaze."""

    close_upper_deg: Floats
    """Turn of the upper lid beyond what the gaze asks for [N], positive closes."""
    close_lower_deg: Floats
    """The same of the lower lid [N]."""
    widen_inner: Floats
    """Stretch of the opening on the nose's side [N], 1 for UnityEyes' own."""
    widen_outer: Floats
    """Stretch on the other side [N]."""


class EyeRegion(NamedTuple):
    """Control mesh of N scenes."""

    vertices: Floats
    """[N, V, 3]."""
    look_down: Floats
    """Weight of the texture of a lid that looks down [N], 0 to 1."""


def shape_vertices(mean: Floats, components: Floats, coefficients: Floats) -> Floats:
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
    return np.stack([x, y, z - _MESH_BACK_MM], axis=-1)


def pose_lids(shape: Floats, gaze: Floats, pose: LidPose) -> EyeRegion:
    """Move the lids of meshes [N, V, 3] to where eyes looking along gaze [N, 3] have them."""
    v = shape.copy()
    _widen(v, pose)
    # Down is positive.
    rotation = -np.degrees(np.arcsin(np.clip(gaze[:, 1], -1, 1)))
    gain = _angle_deg(v[:, UPPER_MIDDLE], v[:, UPPER_MIDDLE] - [0, _LID_HEIGHT_MM, 0]) / 20
    downness = 0.4 + 0.6 * np.clip((rotation + 20) / 40, 0, 1)
    by_gaze = (rotation * gain * downness)[:, None]
    turn = np.where(
        IS_UPPER,
        by_gaze + pose.close_upper_deg[:, None],
        by_gaze / 3 - pose.close_lower_deg[:, None],
    )
    moved = np.zeros((len(v), len(MIDDLENESS), 3))
    for loop, strength in zip(LOOPS[:4], LOOP_STRENGTH, strict=False):
        outer = loop[OUTER_COLUMN]
        v[:, outer] = _turn_about_z(v[:, outer], rotation * strength * 0.15 * downness)
        axis = (v[:, PIVOT] - v[:, outer])[:, None]
        pivot = v[:, None, PIVOT] * (1 - MIDDLENESS)[:, None]
        turned = _turned(v[:, loop], axis, pivot, turn * strength)
        moved = turned - v[:, loop]
        v[:, loop] = turned
    for loop in LOOPS[4:]:
        moved = moved * 0.5
        v[:, loop] += moved
    offsets = np.zeros_like(v)
    _wrap_on_eyeball(v, offsets, gaze)
    thickness = _SKIN_MM * np.clip(downness + pose.close_upper_deg / 60, 0.4, 1)
    for loop in LOOPS[2:5]:
        radius = np.linalg.norm(v[:, loop], axis=2, keepdims=True)
        least = surface_radius(v[:, loop] / radius, gaze)[..., None]
        least = least + thickness[:, None, None] * np.where(IS_UPPER, 1, 0.5)[:, None]
        wrapped = np.where(radius < least, v[:, loop] / radius * least, v[:, loop])
        offsets[:, loop], v[:, loop] = wrapped - v[:, loop], wrapped
    for loop, strength in zip(LOOPS[1:], LOOP_STRENGTH[1:], strict=True):
        v[:, loop] += offsets[:, LOOPS[0]] * strength
    look_down = np.clip((rotation + 0.8 * pose.close_upper_deg) / 30, 0, 1) ** 2
    return EyeRegion(v, look_down)


def lash_strip(
    vertices: Floats, gaze: Floats, length: Floats, *, upper: bool, layer: int
) -> Floats:
    """Return a strip of lashes as a grid of points [N, 13, 6, 3], root to tip in the last but one.

    Args:
        vertices: Control meshes [N, V, 3] with their lids in place.
        gaze: Optical axes [N, 3].
        length: Lengths in units of UnityEyes' [N].
        upper: The upper lid's lashes, or the lower's.
        layer: 0 or 1; the second is nearer to the margin and curls more.
    """
    first, angle, full_mm = (3, 35.0, 8.0) if upper else (11, 45.0, 5.0)
    curl = (-18.0, -20.0)[layer]
    # UnityEyes has 0.8 and 0.4 above, on a mesh that it does not subdivide here.
    height = ((0.55, 0.25) if upper else (0.2, 0.1))[layer]
    columns = first + np.arange(_LASH_COLUMNS)
    axis = vertices[:, LOOPS[1, columns - 1]] - vertices[:, LOOPS[1, columns + 1]]
    root, above = vertices[:, LOOPS[1, columns]], vertices[:, LOOPS[2, columns]]
    origin = np.zeros_like(root)
    outward = root / np.linalg.norm(root, axis=2, keepdims=True)
    direction = _turned(outward, axis, origin, np.full(root.shape[:2], angle))
    places = [root + (above - root) * height - direction * 0.1]
    num_segments = LASH_GRID[1] - 1
    step = (length * (full_mm / num_segments))[:, None, None]
    for _ in range(num_segments):
        tip = places[-1] + direction * step
        radius = np.linalg.norm(tip, axis=2, keepdims=True)
        least = surface_radius(tip / radius, gaze)[..., None] + 0.4
        places.append(np.where(radius < least, tip / radius * least, tip))
        direction = _turned(direction, axis, origin, np.full(root.shape[:2], curl))
    guides = np.stack(places, axis=2)
    place = np.linspace(0, _LASH_COLUMNS - 1, LASH_GRID[0])
    before = np.minimum(place.astype(int), _LASH_COLUMNS - 2)
    weight = (place - before)[:, None, None]
    grid = guides[:, before] * (1 - weight) + guides[:, before + 1] * weight
    grid[:, 1:-1] = grid[:, 1:-1] * 0.5 + grid[:, :-2] * 0.25 + grid[:, 2:] * 0.25
    return np.asarray(grid)


def _widen(v: Floats, pose: LidPose) -> None:
    """Stretch the opening sideways, about the eyeball's centre, the skin round it in part."""
    inside = np.setdiff1d(np.concatenate([MARGIN, CARUNCLE]), LOOPS[0])
    rings = [(inside, 1.0), *zip(LOOPS, _WIDENING, strict=True)]
    for ring, share in rings:
        x = v[:, ring, 0]
        # In the face's frame the nose of a left eye is at positive x.
        inner, outer = pose.widen_inner[:, None], pose.widen_outer[:, None]
        v[:, ring, 0] = x * (1 + share * (np.where(x > 0, inner, outer) - 1))


def _wrap_on_eyeball(v: Floats, offsets: Floats, gaze: Floats) -> None:
    """Cast the margin's vertices on the eyeball; the caruncle's follow."""
    direction = v[:, MARGIN] / np.linalg.norm(v[:, MARGIN], axis=2, keepdims=True)
    wrapped = direction * surface_radius(direction, gaze)[..., None]
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


def _cast_along_z(points: Floats, gaze: Floats) -> Floats:
    """Return where lines along z through points [N, 3] meet the front of the eyeball [N, 3]."""
    depths = []
    for centre, radius in (
        (np.zeros_like(gaze), SCLERA_RADIUS_MM),
        (gaze * CORNEA_CENTRE_MM, CORNEA_RADIUS_MM),
    ):
        across = ((points - centre)[:, :2] ** 2).sum(axis=1)
        depths.append(centre[:, 2] + np.sqrt(np.maximum(radius**2 - across, 0)))
    return np.stack([points[:, 0], points[:, 1], np.maximum(*depths)], axis=1)


def _turned(points: Floats, axis: Floats, pivot: Floats, angle_deg: Floats) -> Floats:
    """Turn points [N, K, 3] about axes through pivots by angles [N, K] (Rodrigues' formula)."""
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    unit = np.broadcast_to(axis / np.maximum(length, 1e-9), points.shape)
    arm = points - pivot
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    along = (unit * arm).sum(axis=-1) * (1 - cosine)
    turned = arm * cosine[..., None] + _cross(unit, arm) * sine[..., None]
    return np.asarray(pivot + turned + unit * along[..., None])


def _turn_about_z(points: Floats, angle_deg: Floats) -> Floats:
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack([x * cosine - y * sine, x * sine + y * cosine, z], axis=-1)


def _cross(a: Floats, b: Floats) -> Floats:
    ax, ay, az = np.moveaxis(a, -1, 0)
    bx, by, bz = np.moveaxis(b, -1, 0)
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def _angle_deg(a: Floats, b: Floats) -> Floats:
    cosine = (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
