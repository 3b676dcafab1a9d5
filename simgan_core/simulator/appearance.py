"""Appearance distributions of eyes, people, light and camera, for both built-in domains.

The gap between the domains is set here and nowhere else. Radiance is linear: 1 is a white surface
in full light. A light's direction points toward it: x right, y down, z **toward the camera**.
"""

from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from simgan_core.config import Config
from simgan_core.errors import InputError
from simgan_core.gaze import gaze_from_pitchyaw
from simgan_core.simulator import scene_random
from simgan_core.simulator.geometry import FloatArray, Traits

Keys = scene_random.Keys


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise InputError(f"a range needs low ≤ high, got {bounds}")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""Lowest and highest value of a number drawn uniformly."""


class Person(Config):
    """Distribution of the traits of a person; each field is a range to sample from."""

    eye_width_mm: Range = (24.5, 28.0)
    """From corner to corner of the lids."""
    inner_share: Range = (0.50, 0.54)
    """Share of the eye's width that lies on the nose's side of the eyeball's centre."""
    corner_height_mm: Range = (0.6, 1.8)
    """Inner corner below the eyeball's centre."""
    lid_tilt: Range = (-0.03, 0.12)
    """Slope from the inner up to the outer corner."""
    upper_lid_mm: Range = (3.6, 5.0)
    """Upper margin above the eyeball's centre at level gaze, at the middle of the arch."""
    lower_lid_mm: Range = (5.2, 6.2)
    """Lower margin below the eyeball's centre at level gaze."""
    upper_lid_peak: Range = (0.40, 0.50)
    """Place of the upper arch's top, from inner (0) to outer corner (1)."""
    lower_lid_peak: Range = (0.52, 0.62)
    """Place of the lower arch's bottom, from inner (0) to outer corner (1)."""
    iris_radius_mm: Range = (5.4, 6.0)
    """Radius of the iris."""
    iris_albedo: Range = (0.05, 0.2)
    """Reflectance of the iris: 0.02 is nearly black, 0.3 light blue or grey."""
    iris_contrast: Range = (0.25, 0.5)
    """Depth of the iris's fibres and of the pale collar round the pupil."""
    limbal_ring: Range = (0.1, 0.5)
    """Darkening of the iris toward its rim."""
    limbus_blur_mm: Range = (0.15, 0.35)
    """Width of the passage from iris to sclera."""
    pupil_albedo: Range = (0.005, 0.01)
    """Reflectance of the pupil."""
    sclera_albedo: Range = (0.75, 0.92)
    """Reflectance of the white of the eye."""
    skin_albedo: Range = (0.26, 0.52)
    """Reflectance of the skin."""
    skin_texture: Range = (0.0, 0.015)
    """Standard deviation of the skin's fine mottling, as a share of its reflectance."""
    crease_mm: Range = (2.0, 4.5)
    """Fold of the upper lid above its margin."""
    crease_depth: Range = (0.2, 0.5)
    """Darkness of that fold, 0 to 1."""
    socket_depth_mm: Range = (1.0, 3.0)
    """Hollow between the lid and the brow."""
    socket_shade: Range = (0.0, 0.0)
    """Darkness of deep-set eyes under light from above: a soft shade over lids and eyeball."""
    bag_depth: Range = (0.1, 0.35)
    """Depth of the furrow under the lower lid."""
    moist_edge: Range = (0.05, 0.25)
    """Brightness of the lower lid's moist edge over the skin's, as a share of it."""
    lash_mm: Range = (1.2, 2.2)
    """Reach of the upper lashes beyond the margin, as the camera sees it."""
    lid_edge_mm: Range = (0.5, 0.7)
    """Half thickness of the dark line along the upper margin."""
    lash_darkness: Range = (0.45, 0.75)
    """Share of light that upper lashes take at their roots; the lower ones take 40% of that."""
    brow_mm: Range = (14.0, 18.0)
    """Middle of the brow above the eyeball's centre."""
    brow_darkness: Range = (0.4, 0.7)
    """Share of light that the brow takes."""
    glasses_share: float = Field(default=0.0, ge=0, le=1)
    """Share of people who wear glasses."""
    rim_radiance: Range = (0.02, 0.5)
    """Brightness of the rim, from black plastic to bright metal."""
    rim_mm: Range = (0.7, 2.0)
    """Thickness of the rim."""
    lens_top_mm: Range = (8.5, 13.5)
    """Top of the rim above the eyeball's centre."""


class Shot(Config):
    """Distribution of the conditions of a shot; each field is a range to sample from."""

    head_x: Range = (-0.07, 0.07)
    """Turn of the head about x in radians; positive nods down."""
    head_y: Range = (-0.09, 0.09)
    """Turn of the head about y in radians."""
    head_z: Range = (-0.05, 0.05)
    """Turn of the head about z in radians."""
    openness: Range = (0.85, 1.1)
    """Factor of the upper lid's height: below 1 the eye is half closed."""
    pupil_radius_mm: Range = (1.5, 2.4)
    """Radius of the pupil."""
    ambient: Range = (0.3, 0.6)
    """Light from everywhere, as a share of all light."""
    light_azimuth_deg: Range = (-70.0, 70.0)
    """Side of the main light: negative from the image's left, 0 from the camera's side."""
    light_elevation_deg: Range = (-15.0, 60.0)
    """Height of the main light: negative from below."""
    lid_shadow: Range = (0.25, 0.45)
    """Darkening of the eyeball right under the upper lid."""
    corner_shadow: Range = (0.15, 0.3)
    """Darkening of the white toward the lower lid and into the corners."""
    side_shadow: Range = (0.0, 0.35)
    """Darkness of a soft-edged shadow over one side of the picture."""
    light_slope: Range = (-0.4, 0.4)
    """Change of illumination from the middle to a picture's edge, in powers of e."""
    glint: Range = (0.6, 1.5)
    """Radiance of the main light's image in the cornea; above 1 it saturates."""
    glint_size: Range = (0.05, 0.09)
    """Half side of that image, as a share of the corneal radius."""
    screen_veil: Range = (0.0, 0.015)
    """Radiance of a screen's or window's reflection that lies over iris and pupil."""
    lens_glare: Range = (0.0, 0.0)
    """Radiance of the reflection over part of a pair of glasses."""
    crop_jitter_px: float = Field(default=0.0, ge=0)
    """Standard deviation of a crop's place, on either axis, from badly found landmarks."""
    crop_jitter_scale: float = Field(default=0.0, ge=0)
    """Standard deviation of a crop's scale, as a share of it."""


class Camera(Config):
    """Distribution of the traits of a person's camera; each field is a range to sample from."""

    exposure: Range = (0.27, 0.33)
    """Mean radiance after the camera's automatic exposure."""
    gamma: Range = (2.1, 2.3)
    """Level = radiance to the power 1/gamma."""
    blur_px: Range = (0.0, 0.0)
    """Standard deviation of the camera's blur."""
    shot_noise: Range = (0.0, 0.0)
    """Standard deviation of the sensor's noise at radiance 1, growing with its root."""
    read_noise: Range = (0.0, 0.0)
    """Standard deviation of the sensor's noise in the dark."""
    resampling_blur_px: Range = (0.0, 0.0)
    """Standard deviation of the blur that rectification adds to the finished picture."""
    jpeg_quality: Range = (100.0, 100.0)
    """Quality of JPEG's luminance quantisation; 100 is no JPEG."""


class Labels(Config):
    """Distribution of gaze, as of a left eye; mirrored for a right one."""

    pitch_deg: Range = (-25.0, 10.0)
    """Positive upward."""
    yaw_deg: Range = (-28.0, 28.0)
    """Positive to the image's left."""


class Appearance(Config):
    """Appearance of a domain; the gap between synthetic and real is set here."""

    labels: Labels = Labels()
    """Which way eyes look."""
    person: Person = Person()
    """Distribution of a person's traits."""
    camera: Camera = Camera()
    """Distribution of the traits of a person's camera."""
    shot: Shot = Shot()
    """Distribution of a shot's conditions."""
    equalized: bool = False
    """Images end with an equalised histogram, as MPIIGaze's are."""


SYNTHETIC = Appearance()
"""A game engine's picture, as UnityEyes: clean, sharp, evenly lit, the whites of the eyes white."""

REAL = Appearance(
    labels=Labels(pitch_deg=(-23.0, 8.0), yaw_deg=(-26.0, 26.0)),
    person=Person(
        iris_albedo=(0.03, 0.15),
        sclera_albedo=(0.6, 0.85),
        skin_albedo=(0.2, 0.5),
        socket_shade=(0.4, 0.8),
        lash_darkness=(0.5, 0.85),
        glasses_share=0.08,
    ),
    camera=Camera(
        exposure=(0.15, 0.35),
        gamma=(1.9, 2.5),
        blur_px=(0.2, 1.0),
        shot_noise=(0.001, 0.005),
        read_noise=(0.0003, 0.0012),
        jpeg_quality=(94.0, 99.0),
    ),
    shot=Shot(
        lid_shadow=(0.25, 0.45),
        side_shadow=(0.0, 0.6),
        light_slope=(-0.8, 0.8),
        glint=(0.3, 1.5),
        screen_veil=(0.0, 0.03),
        lens_glare=(0.0, 0.08),
        crop_jitter_px=0.3,
        crop_jitter_scale=0.01,
    ),
    equalized=True,
)
"""People before their laptops, as varied as MPIIGaze's: deep-set eyes in the shade, light from a
side, shadows, skin and irises of many shades, each person's camera with its own exposure, blur,
noise and JPEG, some glasses.

Its gap to SYNTHETIC is above all one of light, smooth from place to place: a refiner can close it
without moving an edge, one tone curve for the whole image cannot.
"""


def draw_traits(appearance: Appearance, people: Keys, shots: Keys) -> dict[str, FloatArray]:
    """Draw the numbers of N scenes, each float32 [N], from their people's and their own keys."""
    traits = _draw(appearance.person, people) | _draw(appearance.camera, people)
    traits |= _draw(appearance.shot, shots)
    traits |= _draw_gaze(appearance.labels, shots)
    return traits | _draw_light(traits) | _draw_details(appearance, people, shots)


def _draw(ranges: Config, keys: Keys) -> dict[str, FloatArray]:
    """Draw every field of `ranges` that is a range."""
    return {
        name: _draw_between(value, keys, name) for name, value in ranges if isinstance(value, tuple)
    }


def _draw_between(bounds: tuple[float, float], keys: Keys, name: str) -> FloatArray:
    low, high = bounds
    return np.asarray(low + (high - low) * scene_random.uniform(keys, name), np.float32)


def _draw_gaze(labels: Labels, shots: Keys) -> dict[str, FloatArray]:
    """Draw the gaze's three components, as a left eye has them."""
    pitchyaw = [
        np.radians(_draw_between(bounds, shots, name))
        for bounds, name in ((labels.pitch_deg, "pitch"), (labels.yaw_deg, "yaw"))
    ]
    gaze = gaze_from_pitchyaw(np.stack(pitchyaw, axis=-1))
    return {f"gaze_{axis}": gaze[:, i].astype(np.float32) for i, axis in enumerate("xyz")}


def _draw_light(traits: Traits) -> dict[str, FloatArray]:
    """Return the direction of the main light, and of the normal that mirrors it to the camera."""
    azimuth = np.radians(traits["light_azimuth_deg"])
    elevation = np.radians(traits["light_elevation_deg"])
    light_x = np.sin(azimuth) * np.cos(elevation)
    light_y = -np.sin(elevation)
    light_z = np.cos(azimuth) * np.cos(elevation)
    half_length = np.sqrt(2 + 2 * light_z)
    return {
        "light_x": light_x,
        "light_y": light_y,
        "light_z": light_z,
        "half_x": light_x / half_length,
        "half_y": light_y / half_length,
    }


def _draw_details(appearance: Appearance, people: Keys, shots: Keys) -> dict[str, FloatArray]:
    """Draw the traits with the same range in every domain, and whether glasses are worn."""
    turn = (0.0, 2 * np.pi)
    wears = scene_random.uniform(people, "has_glasses") < appearance.person.glasses_share
    return {
        "has_glasses": wears.astype(np.float32),
        "fibre_phase": _draw_between(turn, people, "fibre_phase"),
        "lash_phase": _draw_between(turn, people, "lash_phase"),
        "light_slope_x": _draw_between(appearance.shot.light_slope, shots, "light_slope_x"),
        "light_slope_y": _draw_between(appearance.shot.light_slope, shots, "light_slope_y"),
        "shadow_angle": _draw_between(turn, shots, "shadow_angle"),
        "shadow_edge_mm": _draw_between((-6.0, 16.0), shots, "shadow_edge_mm"),
        "shadow_blur_mm": _draw_between((2.5, 7.0), shots, "shadow_blur_mm"),
        "glare_angle": _draw_between(turn, shots, "glare_angle"),
        "glare_edge_mm": _draw_between((-4.0, 14.0), shots, "glare_edge_mm"),
        "glare_blur_mm": _draw_between((0.7, 6.0), shots, "glare_blur_mm"),
        "screen_x": _draw_between((-0.3, 0.3), shots, "screen_x"),
    }
