"""Built-in eye simulator: rendered eyes whose labels are true by construction.

It stands in for a rendering engine ("synthetic") and, with another look, for a laptop's camera
("real", which is rendered too). Scenes come first and are only numbers; rendering turns them into
pictures:

    scenes = sample_scenes("synthetic", count=6000, seed=1)
    rendered = render(scenes[:100], framing="frame")

Scene i depends on domain, seed and i alone, and an image on its scene alone: any part of a set can
be made anywhere, again, with the same bits. The cornea does not refract: pupil and iris lie where
the disc is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simgan_core.data.preprocess import equalize
from simgan_core.errors import InputError
from simgan_core.simulator import camera, geometry, scene_random, shading
from simgan_core.simulator.appearance import REAL, SYNTHETIC, Appearance, draw_traits

FloatArray = NDArray[np.floating[Any]]
Domain = Literal["synthetic", "real"]
Framing = Literal["frame", "crop"]

APPEARANCES: dict[Domain, Appearance] = {"synthetic": SYNTHETIC, "real": REAL}
NUM_REAL_PEOPLE = 15

_BLOCK = 16
"""Scenes rendered at once: the arrays of so many stay in a core's cache."""
_COARSE = 4
"""Pixels of a frame for each sample of the skin far from the eye."""
_WINDOW_MM = (29.0, 20.5)
"""Half width and half height of what is rendered in full around the middle of a frame."""


@dataclass(frozen=True)
class Scenes:
    """N scenes: the labels known before any camera, and the numbers that pictures are made from."""

    appearance: Appearance
    """The look that the traits were drawn from."""
    key: NDArray[np.uint64]
    """Key of the scene's random numbers [N]."""
    person: NDArray[np.int64]
    """Number of the person [N]: in turn in the real domain, everyone a new person in the synthetic
    one."""
    is_right: NDArray[np.bool_]
    """Right eye rather than left [N]: mirrored, the inner corner on the image's right."""
    gaze: FloatArray
    """Unit vectors [N, 3]: x right, y down, z into the scene."""
    head_pose: FloatArray
    """Rotation vectors [N, 3], axis times radians, same frame; 0 for a head facing the camera."""
    traits: dict[str, FloatArray]
    """Every number of shape and look [N], of the eye seen as a left one."""

    def __len__(self) -> int:
        return len(self.key)

    def __getitem__(self, chosen: slice | NDArray[np.intp] | NDArray[np.bool_]) -> "Scenes":
        """Return the chosen scenes, with the same numbers as before."""
        return Scenes(
            appearance=self.appearance,
            key=self.key[chosen],
            person=self.person[chosen],
            is_right=self.is_right[chosen],
            gaze=self.gaze[chosen],
            head_pose=self.head_pose[chosen],
            traits={name: values[chosen] for name, values in self.traits.items()},
        )


@dataclass(frozen=True)
class Rendered:
    """N pictures and their labels; points in pixels, (0, 0) the top-left corner."""

    images: NDArray[np.uint8]
    """[N, H, W, 1], as a person would view them."""
    pupil_px: FloatArray
    """Pupil centre [N, 2] as x, y; also where a lid hides it."""
    iris_px: FloatArray
    """The iris's contour [N, 32, 2]."""
    lid_px: FloatArray
    """The lid margins [N, 16, 2]: inner to outer corner above, and back below."""
    caruncle_px: FloatArray
    """Six points round the caruncle, in the inner corner [N, 6, 2]."""
    pupil_visible: FloatArray
    """Share of the pupil between the lids [N], 0 to 1."""


def sample_scenes(
    domain: Domain,
    count: int,
    seed: int,
    start: int = 0,
    appearance: Appearance | None = None,
    num_people: int = NUM_REAL_PEOPLE,
) -> Scenes:
    """Draw scenes start, start + 1, …, start + count − 1 of a domain and seed.

    Synthetic scenes are left eyes, as UnityEyes makes them, each of a person of its own. Real ones
    come in pairs, a left and a right eye of one person (not one shot), the `num_people` in turn.
    `appearance` replaces the domain's own look, for instance by one without glints.

    Raises InputError where count or num_people is below 1, or seed or start below 0.
    """
    if count < 1 or num_people < 1 or seed < 0 or start < 0:
        raise InputError(
            "scenes need count ≥ 1, num_people ≥ 1, seed ≥ 0 and start ≥ 0, got "
            f"{count}, {num_people}, {seed} and {start}"
        )
    look = appearance or APPEARANCES[domain]
    index = np.arange(start, start + count)
    person = index // 2 % num_people if domain == "real" else index
    is_right = (index % 2 == 1) if domain == "real" else np.zeros(count, np.bool_)
    people = scene_random.derive_keys(seed, f"{domain} person", person)
    shots = scene_random.derive_keys(seed, f"{domain} shot", index)
    traits = draw_traits(look, people, shots)
    mirror = np.where(is_right, -1, 1).astype(np.float32)
    gaze = np.stack([mirror * traits["gaze_x"], traits["gaze_y"], traits["gaze_z"]], axis=-1)
    # A mirror keeps a turn about its own axis and reverses the other two.
    head_pose = np.stack(
        [traits["head_x"], mirror * traits["head_y"], mirror * traits["head_z"]], axis=-1
    )
    return Scenes(look, shots, person, is_right, gaze, head_pose, traits)


def render(
    scenes: Scenes, framing: Framing, height: int | None = None, width: int | None = None
) -> Rendered:
    """Render scenes as UnityEyes frames ("frame", 120×160) or MPIIGaze's crops ("crop", 36×60).

    A frame has the eyeball's centre in its middle, so that the mean of the iris's contour is
    (W/2, H/2) + 0.1343 · H · (gaze x, gaze y). A crop is centred on the lid margins and scaled by
    the eye's width (`geometry.crop_view`), both a little off where the appearance says so.
    """
    default_height, default_width = (120, 160) if framing == "frame" else (36, 60)
    size = (height or default_height, width or default_width)
    blocks = [_render_block(block, framing, *size) for block in _blocks(scenes)]
    return Rendered(
        **{
            field.name: np.concatenate([getattr(block, field.name) for block in blocks])
            for field in fields(Rendered)
        }
    )


def _blocks(scenes: Scenes) -> Iterator[Scenes]:
    for first in range(0, len(scenes), _BLOCK):
        yield scenes[first : first + _BLOCK]


def _render_block(scenes: Scenes, framing: Framing, height: int, width: int) -> Rendered:
    shape = {name: values[:, None] for name, values in scenes.traits.items()}
    gaze = np.stack([scenes.traits[f"gaze_{axis}"] for axis in "xyz"], axis=-1)
    lids, caruncle = geometry.lid_points(shape), geometry.caruncle_points(shape)
    if framing == "frame":
        view = geometry.frame_view(len(scenes), height, width)
        radiance = _frame_radiance(scenes, view, height, width)
    else:
        view = _jittered(geometry.crop_view(lids, caruncle, height, width), scenes, height, width)
        radiance = _crop_radiance(scenes, view, _pixel_centres(0, height), _pixel_centres(0, width))
    images = _photograph(scenes, radiance)
    pupil = (geometry.IRIS_DEPTH_MM * gaze)[:, None, :]
    points = {
        "pupil_px": pupil,
        "iris_px": geometry.iris_points(gaze, scenes.traits["iris_radius_mm"]),
        "lid_px": lids,
        "caruncle_px": caruncle,
    }
    pixels = {
        name: _mirrored_points(view.to_pixels(place), scenes.is_right, width)
        for name, place in points.items()
    }
    pixels["pupil_px"] = pixels["pupil_px"][:, 0]
    images[scenes.is_right] = images[scenes.is_right][:, :, ::-1]
    visible = geometry.visible_share(shape, gaze, scenes.traits["pupil_radius_mm"])
    return Rendered(images=images[..., None], pupil_visible=visible, **pixels)


def _jittered(view: geometry.View, scenes: Scenes, height: int, width: int) -> geometry.View:
    """Return the view with crop jitter, as misplaced landmarks cause it."""
    shot = scenes.appearance.shot
    scale = 1 + shot.crop_jitter_scale * scene_random.normal(scenes.key, "crop_scale")
    shift_x = shot.crop_jitter_px * scene_random.normal(scenes.key, "crop_x")
    shift_y = shot.crop_jitter_px * scene_random.normal(scenes.key, "crop_y")
    return geometry.View(
        scale=view.scale * scale,
        origin_x=width / 2 + (view.origin_x - width / 2) * scale + shift_x,
        origin_y=height / 2 + (view.origin_y - height / 2) * scale + shift_y,
    )


def _crop_radiance(
    scenes: Scenes, view: geometry.View, rows: FloatArray, columns: FloatArray
) -> FloatArray:
    """Return the radiance [N, H, W] at pixel positions, shaded in full."""
    patch = shading.place_patch(scenes.traits, view, rows, columns)
    mottling = scene_random.noise_field(scenes.key, "skin", len(rows), len(columns))
    return shading.shade_eye(patch, mottling)


def _frame_radiance(scenes: Scenes, view: geometry.View, height: int, width: int) -> FloatArray:
    """Return the radiance [N, H, W] of frames: in full round the eye, skin alone beyond."""
    frame = _distant_skin(scenes, view, height, width)
    half_width, half_height = (round(mm * float(view.scale[0])) for mm in _WINDOW_MM)
    top, bottom = max(height // 2 - half_height, 0), min(height // 2 + half_height, height)
    left, right = max(width // 2 - half_width, 0), min(width // 2 + half_width, width)
    window = _crop_radiance(scenes, view, _pixel_centres(top, bottom), _pixel_centres(left, right))
    fade = np.minimum.outer(_ramp(bottom - top), _ramp(right - left))
    outside = frame[:, top:bottom, left:right]
    frame[:, top:bottom, left:right] = outside + fade * (window - outside)
    return frame


def _distant_skin(scenes: Scenes, view: geometry.View, height: int, width: int) -> FloatArray:
    """Return skin and brow [N, H, W], shaded on a coarse grid and interpolated."""
    rows, columns = (_COARSE * _pixel_centres(0, -(-size // _COARSE)) for size in (height, width))
    patch = shading.place_patch(scenes.traits, view, rows, columns)
    skin = shading.shade_skin(patch) * shading.illumination(patch)
    return _interpolated(_interpolated(skin, height, axis=1), width, axis=2)


def _photograph(scenes: Scenes, radiance: FloatArray) -> NDArray[np.uint8]:
    """Apply the domain's camera model to a radiance: grey levels [N, H, W]."""
    traits = scenes.traits
    seen = camera.expose(radiance, traits["exposure"])
    seen = camera.blur(seen, traits["blur_px"])
    seen = camera.add_noise(seen, scenes.key, traits["shot_noise"], traits["read_noise"])
    levels = camera.to_levels(seen, traits["gamma"])
    offsets = [scene_random.uniform(scenes.key, f"jpeg_{axis}") for axis in ("row", "column")]
    offsets_px = (np.stack(offsets, axis=-1) * 8).astype(np.intp)
    levels = camera.jpeg(levels, traits["jpeg_quality"], offsets_px)
    levels = camera.blur(levels, traits["resampling_blur_px"])
    images = np.rint(levels.clip(0, 255)).astype(np.uint8)
    return equalize(images[..., None])[..., 0] if scenes.appearance.equalized else images


def _pixel_centres(first: int, end: int) -> FloatArray:
    """Return the positions of the centres of pixels first to end − 1, in pixels."""
    return np.arange(first, end, dtype=np.float32) + np.float32(0.5)


def _mirrored_points(points: FloatArray, mirrored: NDArray[np.bool_], width: int) -> FloatArray:
    x = np.where(mirrored[:, None], width - points[..., 0], points[..., 0])
    return np.stack([x, points[..., 1]], axis=-1)


def _ramp(size: int, fade_px: int = 4) -> FloatArray:
    """Return weights [size] that rise from 0 at both ends to 1 within fade_px."""
    place = np.arange(size, dtype=np.float32) + 0.5
    return np.asarray(np.minimum(np.minimum(place, size - place) / fade_px, 1))


def _interpolated(coarse: FloatArray, size: int, axis: int) -> FloatArray:
    """Return `size` pixels along an axis, linearly between the coarse samples' centres."""
    place = ((np.arange(size, dtype=np.float32) + 0.5) / _COARSE - 0.5).clip(0)
    before = place.astype(np.intp)
    after = np.minimum(before + 1, coarse.shape[axis] - 1)
    weight = (place - before).reshape(-1, 1) if axis == 1 else place - before
    first, second = coarse.take(before, axis), coarse.take(after, axis)
    return np.asarray(first + weight * (second - first))
