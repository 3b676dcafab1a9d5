"""Built-in hand simulator: depth images of jointed capsules, with joint positions.

It stands in for the paper's second data set (NYU Hand Pose): a hand in a cube of 300 mm, 14 joints
in the order of NYU's evaluation. Two domains: "synthetic" is clean depth, "real" is what a
structured-light camera makes of it, at distances that differ (see `structured_light`).

Shapes: N hands, J = 14 joints, K capsules, H × W pixels. Millimetres; x right, y down, z away from
the camera; the cube's middle is the origin. Projection is orthographic.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from simgan_core.simulator import scene_random
from simgan_core.simulator.structured_light import KINECT, sense

FloatArray = NDArray[np.floating[Any]]

JOINTS = (
    "little tip",
    "little middle",
    "ring tip",
    "ring middle",
    "middle tip",
    "middle middle",
    "index tip",
    "index middle",
    "thumb tip",
    "thumb middle",
    "thumb base",
    "wrist, little's side",
    "wrist, thumb's side",
    "palm",
)
CUBE_MM = 300.0
NUM_REAL_PEOPLE = 15
SYNTHETIC_DISTANCE_MM = 700.0
"""Distance of every synthetic hand."""
REAL_DISTANCE_MM = (600.0, 1000.0)
"""Range of the real hands' distances, uniform."""
WALL_MM = 1500.0
"""Distance of the wall behind the hands."""
_FINGERS = ("little", "ring", "middle", "index")
_KNUCKLE_MM = np.array([[-30, -24], [-11, -32], [9, -34], [28, -29]], np.float64)
"""Bases of the four fingers, x and y, from the palm's middle."""
_BONES_MM = np.array([[26, 19, 15], [32, 23, 17], [35, 25, 18], [31, 22, 17]], np.float64)
"""Lengths of the three bones of each finger."""
_FINGER_RADIUS_MM = np.array([7.0, 8.0, 8.5, 8.0])
_THUMB_BASE_MM = np.array([34.0, 14.0, 0.0])
_THUMB_BONES_MM = (34.0, 27.0)
_WRIST_MM = np.array([[-20.0, 50.0, 0.0], [20.0, 50.0, 0.0]])
_ELBOW_MM = np.array([0.0, 160.0, 0.0])


@dataclass(frozen=True)
class Hands:
    """N hands: depth images and joints."""

    images: NDArray[np.uint8]
    """[N, H, W, 1]: 0 at the cube's front, 254 at its back, 255 where nothing is."""
    joints_uvd: NDArray[np.float32]
    """[N, 14, 3]: u right and v down in pixels, (0, 0) the top-left corner; depth in mm from the
    cube's front."""
    person: NDArray[np.int64]
    """Number of the person [N]: 0 to 14 in the real domain, everyone another in the synthetic
    one."""


class HandShot(NamedTuple):
    """One hand as the camera has it, its cube cut out."""

    depth_mm: FloatArray
    """[S, S], pixels of the camera: distance; infinite where nothing is, NaN where the sensor has
    no depth."""
    joints_mm: FloatArray
    """[14, 3]: x, y and z from the cube's middle."""
    distance_mm: float
    """Of the cube's middle from the camera."""
    person: int
    """As of `Hands`."""


def render_hands(
    domain: Literal["synthetic", "real"], count: int, seed: int, height: int = 64, width: int = 64
) -> Hands:
    """Draw and render hands 0 … count − 1 of a domain and seed; each depends on these alone.

    Raises InputError where count is below 1 or seed below 0.
    """
    shots = list(shoot_hands(domain, count, seed))
    images = np.stack([_as_grey(_picked(shot, height, width)) for shot in shots])[..., None]
    joints_mm = np.stack([shot.joints_mm for shot in shots])
    scale = np.array([width / CUBE_MM, height / CUBE_MM, 1.0])
    uvd = ((joints_mm + CUBE_MM / 2) * scale).astype(np.float32)
    return Hands(images, uvd, np.array([shot.person for shot in shots], np.int64))


def shoot_hands(
    domain: Literal["synthetic", "real"], count: int, seed: int, start: int = 0
) -> Iterator[HandShot]:
    """Draw hands start … start + count − 1 of a domain and seed, and take a depth image of each.

    Raises InputError where count is below 1, or seed or start below 0.
    """
    if count < 1 or seed < 0 or start < 0:
        raise InputError(
            f"hands need count ≥ 1, seed ≥ 0 and start ≥ 0, got {count}, {seed} and {start}"
        )
    index = np.arange(start, start + count)
    person = index % NUM_REAL_PEOPLE if domain == "real" else index
    people = scene_random.derive_keys(seed, f"hand {domain} person", person)
    keys = scene_random.derive_keys(seed, f"hand {domain} shot", index)
    joints_mm, starts, ends, radii = _posed(people, keys)
    distance_mm = np.full(count, SYNTHETIC_DISTANCE_MM)
    if domain == "real":
        distance_mm = _uniform(keys, "distance", *REAL_DISTANCE_MM).astype(np.float64)
    return (
        HandShot(
            _depth_image(starts[row], ends[row], radii[row], distance_mm[row], keys[row], domain),
            joints_mm[row],
            float(distance_mm[row]),
            int(person[row]),
        )
        for row in range(count)
    )


def _depth_image(
    starts: FloatArray,
    ends: FloatArray,
    radii: FloatArray,
    distance_mm: float,
    key: np.uint64,
    domain: Literal["synthetic", "real"],
) -> FloatArray:
    """Return one hand's depth image [S, S], as of `HandShot`."""
    size = 2 * round(CUBE_MM * KINECT.focal_px / distance_mm / 2)
    depth_mm = distance_mm + depth_of_capsules(starts, ends, radii, size, size)
    if domain == "synthetic":
        return depth_mm
    measured = sense(np.minimum(depth_mm, WALL_MM), np.array([key]), KINECT)
    on_wall = measured > distance_mm + CUBE_MM / 2
    return np.where(on_wall, np.inf, measured)


def _picked(shot: HandShot, height: int, width: int) -> FloatArray:
    """Return the depths [H, W] at the middles of pixels, from the cube's middle."""
    size = len(shot.depth_mm)
    row, column = (
        np.floor((np.arange(length) + 0.5) * size / length).astype(np.intp)
        for length in (height, width)
    )
    return shot.depth_mm[row[:, None], column] - shot.distance_mm


def _posed(
    people: NDArray[np.uint64], shots: NDArray[np.uint64]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return joints [N, J, 3], the capsules' ends [N, K, 3] twice and their radii [N, K]."""
    count = len(shots)
    points: dict[str, FloatArray] = {}
    segments: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    size = 1 + 0.08 * scene_random.normal(people, "size")
    thick = size * (1 + 0.1 * scene_random.normal(people, "thickness"))
    palm = np.zeros((count, 3))
    fist = _uniform(shots, "fist", 0.0, 1.0)
    for number, finger in enumerate(_FINGERS):
        place = np.tile(np.append(_KNUCKLE_MM[number], 0.0), (count, 1))
        segments.append((palm, place, np.full(count, 13.0)))
        spread = np.radians(_uniform(shots, f"{finger} spread", -8, 8) + 6 * (number - 1.5))
        # Fingers bend together, each with a deviation of its own.
        own = _uniform(shots, f"{finger} curl", 0.0, 1.0)
        curl = np.radians(75 * (0.6 * fist + 0.4 * own))
        bend = np.zeros(count)
        for bone in range(3):
            bend = bend + curl
            forward = np.cos(bend)
            step = np.stack([np.sin(spread) * forward, -np.cos(spread) * forward, -np.sin(bend)], 1)
            end = place + _BONES_MM[number, bone] * step
            segments.append((place, end, np.full(count, _FINGER_RADIUS_MM[number])))
            place = end
            points[f"{finger} {('base', 'middle', 'tip')[bone]}"] = end
    points |= _thumb(shots, segments)
    knuckles = np.tile(np.pad(_KNUCKLE_MM, ((0, 0), (0, 1))), (count, 1, 1))
    segments.append((knuckles[:, 0], knuckles[:, 3], np.full(count, 11.0)))
    wrist = np.tile(_WRIST_MM, (count, 1, 1))
    segments.append((wrist[:, 0], wrist[:, 1], np.full(count, 13.0)))
    segments += [(palm, wrist[:, side], np.full(count, 16.0)) for side in range(2)]
    elbow = np.tile(_ELBOW_MM, (count, 1))
    segments.append((wrist.mean(axis=1), elbow, np.full(count, 27.0)))
    points |= {"wrist, little's side": wrist[:, 0], "wrist, thumb's side": wrist[:, 1]}
    points["palm"] = palm
    turn = _rotation(shots)
    shift = np.stack([10 * scene_random.normal(shots, f"shift {axis}") for axis in "xyz"], axis=1)

    def moved(place: FloatArray) -> FloatArray:
        return np.asarray(size[:, None] * np.einsum("nij,nj->ni", turn, place) + shift)

    joints = np.stack([moved(points[name]) for name in JOINTS], axis=1)
    starts = np.stack([moved(start) for start, _, _ in segments], axis=1)
    ends = np.stack([moved(end) for _, end, _ in segments], axis=1)
    radii = np.stack([thick * radius for _, _, radius in segments], axis=1)
    return joints, starts, ends, radii


def _thumb(
    shots: NDArray[np.uint64], segments: list[tuple[FloatArray, FloatArray, FloatArray]]
) -> dict[str, FloatArray]:
    """Add the thumb's capsules to `segments` and return its joints."""
    count = len(shots)
    base = np.tile(_THUMB_BASE_MM, (count, 1))
    out = np.radians(_uniform(shots, "thumb out", 15, 60))
    across = np.radians(_uniform(shots, "thumb across", -10, 50))
    segments.append((np.zeros((count, 3)), base, np.full(count, 14.0)))
    points, place = {"thumb base": base}, base
    for bone, length in enumerate(_THUMB_BONES_MM):
        bend = across * (1 + bone)
        step = np.stack([np.sin(out) * np.cos(bend), -np.cos(out) * np.cos(bend), -np.sin(bend)], 1)
        end = place + length * step
        segments.append((place, end, np.full(count, 9.5)))
        points[f"thumb {('middle', 'tip')[bone]}"] = place = end
    return points


def _rotation(shots: NDArray[np.uint64]) -> FloatArray:
    """Return rotations [N, 3, 3]: about the image's normal last, half a right angle either way."""
    x, y, z = (
        np.radians(_uniform(shots, f"turn {axis}", -reach, reach))
        for axis, reach in (("x", 30), ("y", 40), ("z", 45))
    )
    one, nought = np.ones_like(x), np.zeros_like(x)
    about_x = [
        [one, nought, nought],
        [nought, np.cos(x), -np.sin(x)],
        [nought, np.sin(x), np.cos(x)],
    ]
    about_y = [
        [np.cos(y), nought, np.sin(y)],
        [nought, one, nought],
        [-np.sin(y), nought, np.cos(y)],
    ]
    about_z = [
        [np.cos(z), -np.sin(z), nought],
        [np.sin(z), np.cos(z), nought],
        [nought, nought, one],
    ]
    turns: list[FloatArray] = [
        np.moveaxis(np.array(turn), 2, 0) for turn in (about_z, about_y, about_x)
    ]
    return np.asarray(turns[0] @ turns[1] @ turns[2])


def depth_of_capsules(
    starts: FloatArray, ends: FloatArray, radii: FloatArray, height: int, width: int
) -> FloatArray:
    """Return the z of the nearest surface along each pixel's ray [H, W]; infinite if none.

    Capsules are given by their ends [K, 3] and radii [K], in millimetres.
    A ray meets a capsule on its cylinder or on the ball at one of its ends: the quadratic equation
    of each, solved for the front.
    """
    all_x = ((np.arange(width) + 0.5) / width - 0.5) * CUBE_MM
    all_y = ((np.arange(height) + 0.5) / height - 0.5) * CUBE_MM
    nearest = np.full((height, width), np.inf)
    for start, end, r in zip(starts, ends, radii, strict=True):
        low, high = np.minimum(start, end) - r, np.maximum(start, end) + r
        columns = slice(*np.searchsorted(all_x, (low[0], high[0])))
        rows = slice(*np.searchsorted(all_y, (low[1], high[1])))
        x, y, here = all_x[columns], all_y[rows, None], nearest[rows, columns]
        axis = end - start
        length = np.linalg.norm(axis)
        ux, uy, uz = axis / length
        dx, dy = x - start[0], y - start[1]
        across = max(1 - uz**2, 1e-9)
        along = dx * ux + dy * uy
        inside = along**2 * uz**2 - across * (dx**2 + dy**2 - along**2 - r**2)
        front = (along * uz - np.sqrt(np.maximum(inside, 0))) / across
        place = along + uz * front
        side = np.where((inside >= 0) & (place >= 0) & (place <= length), front, np.inf)
        np.minimum(here, side + start[2], out=here)
        for centre in (start, end):
            gap = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
            ball = np.where(gap <= r**2, -np.sqrt(np.maximum(r**2 - gap, 0)), np.inf)
            np.minimum(here, ball + centre[2], out=here)
    return nearest


def _as_grey(depth_mm: FloatArray) -> NDArray[np.uint8]:
    grey = (depth_mm + CUBE_MM / 2) * (254 / CUBE_MM)
    return np.where(np.isfinite(depth_mm), grey.clip(0, 254), 255).round().astype(np.uint8)


def _uniform(keys: NDArray[np.uint64], name: str, low: float, high: float) -> FloatArray:
    return low + (high - low) * scene_random.uniform(keys, name)
