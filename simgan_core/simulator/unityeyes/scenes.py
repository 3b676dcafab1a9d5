"""Scenes of the UnityEyes simulator: every random choice of an image, from (seed, row) alone.

Frames: the head's is x right, y down, z into the scene for a head that faces the camera, the origin
at the eyeball's centre, millimetres; the camera's has the same axes as the camera sees them. Eyes
are left ones: the nose is on the image's left. Arrays are numpy's; `rows.convert` makes tensors of
them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.compute.array_api import Array, constant, library_of
from simgan_core.simulator import scene_random
from simgan_core.simulator.unityeyes.config import Range, UnityEyesConfig
from simgan_core.simulator.unityeyes.eyelids import LidPose

Floats = NDArray[np.floating[Any]]

_MOST_PITCH_DEG, _MOST_YAW_DEG = 35.0, 45.0
"""Largest rotation of an eyeball in its head when gaze comes from a list of labels."""
_HEAD_TRIES = 8
_MATCHED_SPREAD_DEG = 1.5
"""Standard deviation round the label that a matched gaze was taken from."""
_WHITE = np.array([0.299, 0.587, 0.114])
NUM_AMBIENT = 10
"""Directions from which the sky's light is taken."""
MAX_LIGHTS = 4
BRIGHTEST_WINDOW = 25.0
"""A window's radiance is cut off here: beyond, a picture shows white."""


@dataclass(frozen=True)
class Lights:
    """Lamps or windows, and a sky over a ground; directions in the head's frame."""

    count: Array
    """Lamps in use [N]."""
    direction: Array
    """Unit vectors towards them [N, 4, 3]."""
    right: Array
    """Their horizontal edges' directions [N, 4, 3]."""
    half_size: Array
    """Half of their width and height [N, 4, 2], at unit distance."""
    bars: Array
    """Windows with cross bars [N, 4]."""
    colour: Array
    """Irradiance [N, 4, 3]."""
    sky: Array
    """Radiance from above [N, 3]."""
    ground: Array
    """Radiance from below [N, 3]."""
    side: Array
    """Gradient of the sky: how much brighter it is on the right than in the middle [N], −1 to 1."""
    spin: Array
    """Turn of the directions that stand for the sky, radians [N]."""


@dataclass(frozen=True)
class Glasses:
    """Spectacles in the head's frame; sizes in mm."""

    worn: Array
    """[N]."""
    centre: Array
    """Middle of the lens [N, 3]."""
    half_size: Array
    """Half of the lens' width and height [N, 2]."""
    exponent: Array
    """Shape of its outline, a superellipse [N]: 2 an ellipse, 5 nearly a rectangle."""
    rim: Array
    """Width of the rim [N]."""
    tilt: Array
    """Turn about the vertical and the horizontal axis, radians [N, 2]."""
    colour: Array
    """Albedo of the frame [N, 3]."""
    gloss: Array
    """Strength of the frame's highlight [N]."""
    coating: Array
    """Share of light that each lens reflects [N]."""
    transmission: Array
    """Share of light that a lens lets through [N]."""
    decentring: Array
    """Optical centre's place right of and below the eyeball's centre [N, 2]."""
    power_dpt: Array
    """Power of the lens in dioptres [N]."""


@dataclass(frozen=True)
class Scenes:
    """N scenes: labels that need no camera, and everything that pictures are made from."""

    rows: Array
    """[N]."""
    rotation: Array
    """From the head's to the camera's frame [N, 3, 3]."""
    gaze: Array
    """Optical axes in the camera's frame, unit vectors [N, 3]."""
    gaze_in_head: Array
    """The same in the head's frame [N, 3]."""
    visual_axis: Array
    """Visual axes in the camera's frame [N, 3]."""
    coefficients: Array
    """Of the shape model [N, C]."""
    lids: LidPose
    distance_mm: Array
    skin: Array
    """Number of the skin [N]."""
    iris: Array
    """Number of the iris' texture [N]."""
    iris_size: Array
    pupil_size: Array
    refractive_index: Array
    iris_tint: Array
    """Factor on the iris' colour [N, 3]."""
    sclera_tint: Array
    """[N, 3]."""
    skin_tint: Array
    """[N, 3]."""
    bump: Array
    """Strength of the displacement [N]."""
    shine: Array
    """Strength of the skin's highlight [N]."""
    lash_length: Array
    """Above and below [N, 2]."""
    lash_density: Array
    lash_tone: Array
    """Light that lashes reflect, of the skin's [N]."""
    lash_shade: Array
    """Shadow that the lashes cast on the eye, 0 to 1 [N]."""
    liner: Array
    """Opacity of the eyeliner [N]; 0 for none."""
    eyeshadow: Array
    """Opacity and colour of the eyeshadow [N, 4]."""
    brightness: Array
    """Grey level that the skin is exposed to [N]."""
    background: Array
    """Light beyond the face, of the skin's [N]."""
    lights: Lights
    glasses: Glasses

    def __len__(self) -> int:
        return len(self.rows)


def directions(pitch_deg: Floats, yaw_deg: Floats) -> Floats:
    """Return unit vectors [..., 3] of pitch and yaw in degrees: asin(−y) and atan2(−x, −z)."""
    pitch, yaw = np.radians(pitch_deg), np.radians(yaw_deg)
    return np.stack(
        [-np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)], axis=-1
    )


def sample_scenes(
    config: UnityEyesConfig,
    seed: int,
    rows: NDArray[np.int64],
    *,
    num_skins: int,
    num_irises: int,
    brown_iris: int,
    deviation: Floats,
    gaze_labels: Floats | None = None,
) -> Scenes:
    """Draw the scenes of these rows.

    Args:
        config: From where to where.
        seed: Row i of a seed is always the same scene.
        rows: Numbers of the rows [N], from 0.
        num_skins: Skins to choose from.
        num_irises: Iris textures to choose from.
        brown_iris: The texture of more than half of the eyes.
        deviation: Standard deviations of the shape model's coefficients [C].
        gaze_labels: Unit vectors [M, 3] in the camera's frame to take gazes from, instead of
            drawing them: labels, or estimates, of real images.
    """
    draw = _Draw(scene_random.derive_keys(seed, "unityeyes", rows))
    rotation, gaze = _directions_of(config, draw, gaze_labels)
    in_head = np.einsum("nji,nj->ni", rotation, gaze)
    visual = np.einsum("nij,nj->ni", rotation, _visual_axis(in_head, config))
    squints = draw("squints") < config.squint_share
    # A lid that looks down is already low.
    by_gaze = np.where(in_head[:, 1] > 0.1, 0.5, 1.0)
    least, most = config.closing_deg
    squint = max(most, 5.0) + (17 - max(most, 5.0)) * draw("close")
    close = by_gaze * np.where(squints, squint, draw.between("close", (least, most)))
    close_lower = np.where(squints, 3 * draw("close lower"), -1.5 + 3.5 * draw("close lower"))
    made_up = draw("makeup") < config.makeup_share
    tone = draw("lash tone")
    mascara = np.where(made_up, 1.4, 1.0)
    darkness = config.skin_tint * draw("skin dark") ** 2
    length = draw.between("lash length", config.lash_length)
    nearest, farthest = config.distance_mm
    return Scenes(
        rows=rows,
        rotation=rotation,
        gaze=gaze,
        gaze_in_head=in_head,
        visual_axis=visual,
        coefficients=_coefficients(config, draw, deviation),
        lids=LidPose(
            close,
            close_lower,
            draw.between("lid width inner", config.lid_width),
            draw.between("lid width outer", config.lid_width),
            draw.between("outer corner", config.outer_corner_mm),
        ),
        distance_mm=1 / draw.between("distance", (1 / farthest, 1 / nearest)),
        skin=draw.integer("skin", min(num_skins, config.num_skins or num_skins)),
        iris=np.where(draw("brown") < 0.5, brown_iris, draw.integer("iris", num_irises)),
        iris_size=draw.between("iris size", config.iris_size),
        pupil_size=draw.between("pupil size", config.pupil_size),
        refractive_index=draw.between("refraction", config.refractive_index),
        iris_tint=draw.hue("iris tint", 0.12) * draw.between("iris dark", (0.3, 1.1))[:, None],
        sclera_tint=draw.hue("sclera tint", 0.04)
        * draw.between("sclera dark", (0.4, 0.8))[:, None],
        # Melanin takes more of the blue than of the red.
        skin_tint=np.exp(-2.4 * darkness[:, None] * [0.75, 1.0, 1.2]) * draw.hue("skin hue", 0.05),
        bump=draw.between("bump", (0.35, 1.3)),
        shine=draw.between("shine", (0.3, 1.7)),
        lash_length=np.stack([length, length * draw.between("lower lashes", (0.5, 1.0))], axis=1),
        lash_density=draw.between("lash density", (0.9, 2.2)) * mascara,
        lash_tone=(0.01 + 0.05 * tone) / mascara,
        lash_shade=draw.between("lash shade", (0.2, 0.6)),
        liner=np.where(made_up & (draw("liner") < 0.75), 0.3 + 0.6 * draw("liner opacity"), 0),
        eyeshadow=_eyeshadow(draw, made_up),
        brightness=draw.between("brightness", config.brightness),
        background=draw.between("background", (0.1, 1.2)),
        lights=_lights(config, draw),
        glasses=_glasses(config, draw),
    )  # fmt: skip


class _Draw:
    """Named random numbers of N scenes."""

    def __init__(self, keys: scene_random.Keys) -> None:
        self._keys = keys

    def __call__(self, name: str) -> Floats:
        """Return uniform numbers in [0, 1) [N]."""
        return scene_random.uniform(self._keys, name).astype(np.float64)

    def normal(self, name: str, limit: float) -> Floats:
        """Return standard normal numbers cut off at ± limit [N]."""
        return np.clip(scene_random.normal(self._keys, name).astype(np.float64), -limit, limit)

    def between(self, name: str, limits: Range) -> Floats:
        """Return uniform numbers between limits [N]."""
        return limits[0] + (limits[1] - limits[0]) * self(name)

    def integer(self, name: str, count: int) -> NDArray[np.int64]:
        """Return numbers 0 … count − 1 [N]."""
        return np.minimum((self(name) * count).astype(np.int64), count - 1)

    def hue(self, name: str, amount: float) -> Floats:
        """Return tints of luminance 1, departing from white by `amount` at most [N, 3]."""
        colour = 1 + amount * (2 * np.stack([self(f"{name} {c}") for c in "rgb"], axis=1) - 1)
        return np.asarray(colour / (colour * _WHITE).sum(axis=1, keepdims=True))

    def angle(self, name: str, centre: float, spread: float, distribution: str) -> Floats:
        """Return angles round a centre [N], in the unit of both."""
        if distribution == "uniform":
            return centre + spread * (2 * self(name) - 1)
        return centre + spread / 2 * self.normal(name, 2)


def _directions_of(
    config: UnityEyesConfig, draw: _Draw, gaze_labels: Floats | None
) -> tuple[Floats, Floats]:
    """Return head rotations [N, 3, 3] and gazes [N, 3], both in the camera's frame."""
    roll = np.radians(config.roll_deg * draw.normal("roll", 2))

    def head(number: int) -> Floats:
        suffix = f" {number}" if number else ""
        how = config.distribution
        pitch = draw.angle("head pitch" + suffix, config.camera_pitch_deg,
                           config.camera_pitch_range_deg, how)  # fmt: skip
        yaw = draw.angle("head yaw" + suffix, config.camera_yaw_deg,
                         config.camera_yaw_range_deg, how)  # fmt: skip
        return _rotation(pitch, yaw, roll)

    if gaze_labels is None:
        rotation = head(0)
        in_head = directions(
            draw.angle("eye pitch", config.eye_pitch_deg, config.eye_pitch_range_deg,
                       config.distribution),
            draw.angle("eye yaw", config.eye_yaw_deg, config.eye_yaw_range_deg,
                       config.distribution),
        )  # fmt: skip
        return rotation, np.einsum("nij,nj->ni", rotation, in_head)
    label = gaze_labels[draw.integer("label", len(gaze_labels))]
    pitch = np.degrees(np.arcsin(np.clip(-label[:, 1], -1, 1)))
    yaw = np.degrees(np.arctan2(-label[:, 0], -label[:, 2]))
    gaze = directions(
        pitch + _MATCHED_SPREAD_DEG * draw.normal("label pitch", 3),
        yaw + _MATCHED_SPREAD_DEG * draw.normal("label yaw", 3),
    )
    # The first of some head poses in which an eyeball can look there, else a head turned that way.
    rotation = _rotation(pitch * 0.6, yaw * 0.6, roll)
    for number in reversed(range(_HEAD_TRIES)):
        tried = head(number)
        in_head = np.einsum("nji,nj->ni", tried, gaze)
        eye_pitch = np.degrees(np.arcsin(np.clip(-in_head[:, 1], -1, 1)))
        eye_yaw = np.degrees(np.arctan2(-in_head[:, 0], -in_head[:, 2]))
        fits = (np.abs(eye_pitch) < _MOST_PITCH_DEG) & (np.abs(eye_yaw) < _MOST_YAW_DEG)
        rotation = np.where(fits[:, None, None], tried, rotation)
    return rotation, gaze


def _rotation(pitch_deg: Floats, yaw_deg: Floats, roll: Floats) -> Floats:
    """Return the rotations [N, 3, 3] of heads that face pitch and yaw: the camera goes round them.

    As UnityEyes' camera, it keeps the head upright: the head's vertical axis stays in the picture's
    vertical plane; then the picture is rolled.
    """
    # The camera's axes in the head's frame: it looks at the head from where the head faces it.
    forward = -directions(-pitch_deg, -yaw_deg)
    right = np.stack([forward[:, 2], np.zeros(len(roll)), -forward[:, 0]], axis=1)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    camera = np.stack([right, np.cross(forward, right), forward], axis=1)
    turn = np.zeros((len(roll), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(roll)
    turn[:, 1, 0] = np.sin(roll)
    turn[:, 0, 1] = -turn[:, 1, 0]
    turn[:, 2, 2] = 1
    return np.asarray(np.einsum("nij,njk->nik", turn, camera))


def _visual_axis(gaze: Floats, config: UnityEyesConfig) -> Floats:
    """Turn optical axes [N, 3] of left eyes in the head's frame by the angle kappa."""
    pitch = np.degrees(np.arcsin(np.clip(-gaze[:, 1], -1, 1)))
    yaw = np.degrees(np.arctan2(-gaze[:, 0], -gaze[:, 2]))
    return directions(pitch + config.kappa_pitch_deg, yaw + config.kappa_yaw_deg)


def _coefficients(config: UnityEyesConfig, draw: _Draw, deviation: Floats) -> Floats:
    drawn = [draw.normal(f"shape {c}", 2) for c in range(len(deviation))]
    return np.stack(drawn, axis=1) * (config.shape_spread * deviation)


def _eyeshadow(draw: _Draw, made_up: NDArray[np.bool_]) -> Floats:
    opacity = np.where(made_up & (draw("eyeshadow") < 0.6), 0.1 + 0.4 * draw("shadow opacity"), 0)
    colour = draw.hue("eyeshadow", 0.5) * (0.02 + 0.15 * draw("shadow dark"))[:, None]
    return np.concatenate([opacity[:, None], colour], axis=1)


def _lights(config: UnityEyesConfig, draw: _Draw) -> Lights:
    least, most = config.num_lights
    count = least + draw.integer("num lights", most - least + 1)
    elevation = [draw.between(f"light {k} up", (-10, 75)) for k in range(MAX_LIGHTS)]
    azimuth = [draw.between(f"light {k} around", (-85, 85)) for k in range(MAX_LIGHTS)]
    direction = directions(np.stack(elevation, axis=1), np.stack(azimuth, axis=1))
    right = np.stack(
        [direction[..., 2], np.zeros_like(direction[..., 0]), -direction[..., 0]], axis=-1
    )
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    size = [
        np.exp(draw.between(f"light {k} {side}", (np.log(0.05), np.log(0.45))))
        for k in range(MAX_LIGHTS)
        for side in ("width", "height")
    ]
    share = np.stack([draw.between(f"light {k} share", (0.25, 1)) for k in range(MAX_LIGHTS)], 1)
    share *= np.arange(MAX_LIGHTS) < count[:, None]
    strength = draw.between("light over ambient", config.light_over_ambient)
    share *= (strength / share.sum(axis=1))[:, None]
    hues = np.stack([draw.hue(f"light {k}", config.tint) for k in range(MAX_LIGHTS)], axis=1)
    return Lights(
        count=count,
        direction=direction,
        right=right,
        half_size=np.stack(size, axis=1).reshape(-1, MAX_LIGHTS, 2),
        bars=np.stack([draw(f"light {k} bars") < 0.4 for k in range(MAX_LIGHTS)], axis=1),
        colour=share[..., None] * hues,
        sky=draw.hue("sky", config.tint) * draw.between("sky level", (0.6, 1.4))[:, None],
        ground=draw.hue("ground", config.tint) * draw.between("ground level", (0.15, 0.8))[:, None],
        side=draw.between("side", (-0.6, 0.6)),
        spin=2 * np.pi * draw("spin"),
    )


def _glasses(config: UnityEyesConfig, draw: _Draw) -> Glasses:
    worn = draw("glasses") < config.glasses_share
    kind = draw("frame kind")
    half_height = draw.between("lens height", (14.0, 21.0))
    aspect = draw.between("lens aspect", (1.15, 1.6))
    # Rimless, of wire, of plastic.
    rim = np.where(kind < 0.15, 0.25, np.where(kind < 0.55, 0.9, 1.6 + 2.6 * draw("rim")))
    metal = (kind >= 0.15) & (kind < 0.55)
    grey = np.where(metal, 0.1 + 0.4 * draw("frame grey"), 0.01 + 0.12 * draw("frame grey") ** 2)
    return Glasses(
        worn=worn,
        centre=np.stack(
            [
                1.0 + 2.0 * draw.normal("lens x", 2),
                2.5 + 2.5 * draw.normal("lens y", 2),
                -draw.between("lens distance", (24.0, 30.0)),
            ],
            axis=1,
        ),
        half_size=np.stack([half_height * aspect, half_height], axis=1),
        exponent=draw.between("lens shape", (2.1, 5.0)),
        rim=rim,
        tilt=np.radians(
            np.stack([draw.between("lens wrap", (0, 6)), draw.between("lens lean", (3, 11))], 1)
        ),
        colour=grey[:, None] * draw.hue("frame", 0.35),
        gloss=np.where(metal, 1.0, 0.35),
        coating=draw.between("coating", (0.01, 0.06)),
        transmission=draw.between("transmission", (0.82, 0.97)),
        decentring=np.stack([1.0 * draw.normal(f"decentring {axis}", 2) for axis in "xy"], axis=1),
        power_dpt=draw.between("lens power", config.lens_power_dpt),
    )  # fmt: skip


def ambient_directions(lights: Lights) -> tuple[Array, Array]:
    """Return what stands for the sky: directions [N, A, 3] in the head's frame, colours [N, A, 3].

    They are even over the hemisphere in front of the face.
    """
    xp = library_of(lights.spin)
    place = constant((np.arange(NUM_AMBIENT) + 0.5) / NUM_AMBIENT, lights.spin)
    turns = constant(np.arange(NUM_AMBIENT) * 2.39996, lights.spin)
    around = turns + lights.spin[:, None]
    flat = xp.sqrt(1 - place**2)
    depth = xp.broadcast_to(-place, around.shape)
    found = xp.stack([flat * xp.cos(around), flat * xp.sin(around), depth], axis=-1)
    upness = (0.5 - 0.5 * found[..., 1])[..., None]
    radiance = lights.ground[:, None] * (1 - upness) + lights.sky[:, None] * upness
    aside = (1 + lights.side[:, None] * found[..., 0])[..., None]
    return found, radiance * aside * (2 / NUM_AMBIENT)
