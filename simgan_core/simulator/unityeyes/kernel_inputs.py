"""Inputs of the compiled kernels: camera, meshes, textures, lights and exposure of one picture.

Points and lengths are in mm in the camera's frame, x right, y down, z into the scene.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class Camera(NamedTuple):
    """Camera; a sample's direction is ((x + 0.5 − cx) / f, (y + 0.5 − cy) / f, 1)."""

    height: int
    width: int
    focal: float
    cx: float
    cy: float


class Mesh(NamedTuple):
    """Skin mesh."""

    vertices: Floats
    """[V, 3]."""
    triangles: NDArray[np.uint32]
    uv: NDArray[np.float32]
    liner: NDArray[np.float32]
    eyeshadow: NDArray[np.float32]
    upper: Floats
    """The opening's edge above [U, 3], inner to outer corner."""
    lower: Floats
    """Below [L, 3]."""


class Skin(NamedTuple):
    """Textures of the skin and how they are used."""

    colour: NDArray[np.uint8]
    look_down: NDArray[np.uint8]
    slope: NDArray[np.int8]
    margin: NDArray[np.uint8]
    look: float
    """Weight of the second texture."""
    bump: float
    shine: float
    tint: Floats
    caruncle: Floats
    liner: float
    eyeshadow: Floats
    """Opacity and colour [4]."""
    right: Floats
    """The textures' horizontal direction [3]."""
    down: Floats


class Eye(NamedTuple):
    """Eyeball."""

    centre: Floats
    axes: Floats
    """Rows: right, down, forward [3, 3]."""
    temple: Floats
    """Way of the conjunctiva, a unit vector [3]."""
    conjunctiva: float
    """Its length."""
    texture: NDArray[np.uint8]
    iris_radius: float
    pupil_radius: float
    refractive_index: float
    iris_tint: Floats
    sclera_tint: Floats
    lash_shade: float


class Lights(NamedTuple):
    """Lamps or windows [L], and directions that stand for the sky [A]."""

    direction: Floats
    right: Floats
    """Horizontal edges' directions [L, 3]."""
    down: Floats
    """The other edges' [L, 3]."""
    half_size: Floats
    bars: NDArray[np.bool_]
    colour: Floats
    radiance: Floats
    """Of a window as a mirror shows it [L, 3]."""
    ambient_direction: Floats
    ambient_colour: Floats
    sky: Floats
    ground: Floats
    up: Floats
    origin: Floats
    """Middle of the depth maps [3]."""


class Lashes(NamedTuple):
    """Four strips of lashes."""

    points: Floats
    """[4, 78, 3]."""
    textures: NDArray[np.uint8]
    """Opacity [4, h, w]."""
    triangles: NDArray[np.uint32]
    uv: NDArray[np.float32]
    density: Floats
    """[4]."""
    tone: float


class Glasses(NamedTuple):
    """Spectacles, if worn."""

    worn: bool
    centre: Floats
    axes: Floats
    """Rows: right, down and into the scene [3, 3]."""
    half_size: Floats
    exponent: float
    rim: float
    colour: Floats
    gloss: float
    coating: float
    transmission: float
    temple: Floats
    """End of the temple behind the ear [3]."""
    optical_centre: Floats
    power: float
    """In 1/mm; 0 bends nothing."""


class Exposure(NamedTuple):
    """Exposure: map of light to grey levels."""

    target: float
    """Light that the skin's level becomes, 1 the brightest."""
    albedo: float
    """Of this skin, in units of the mean skin's."""
    background: float
    samples: int
    """Samples for a pixel, each way."""
