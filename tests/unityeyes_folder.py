"""A tiny folder of UnityEyes2's layout: skins of noise and a mesh of rings round an eye."""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simgan_core.simulator.unityeyes.topology import LOOPS, MARGIN, NUM_VERTICES

SKINS, IRISES = ("f01", "f02", "m01"), ("brown", "grey")
NUM_COMPONENTS = 3
_SIDE = 64
# Half width and half height of each loop, in mm.
_LOOP_MM = ((12.0, 5.0), (13.0, 6.2), (15.0, 9.0), (18.0, 12.0), (24.0, 18.0), (32.0, 27.0))
_CORNER = (0, 28, 30, 33, 32, 25, 13, 12)
"""The edge of the inner corner, round its middle, vertex 27."""


def write_assets(folder: Path, seed: int = 0) -> Path:
    """Write everything that `load_assets` reads into folder/Assets; returns the folder."""
    rng = np.random.default_rng(seed)
    assets = folder / "Assets"
    resources = assets / "Resources"
    for name in ("SkinTextures", "IrisTextures", "ShapePCA", "SubdivData"):
        (resources / name).mkdir(parents=True)
    for name in ("Lashes", "Skin Shading"):
        (assets / name).mkdir()
    for name in SKINS:
        for kind in ("color", "color_look_down", "disp"):
            skin = _noise(rng, 150 if kind == "disp" else 190)
            _save(resources / "SkinTextures" / f"{name}_{kind}.png", skin)
    for name, level in zip(IRISES, (60, 130), strict=True):
        _save(resources / "IrisTextures" / f"eyeball_{name}.png", _iris(level))
    for name in ("top_1", "top_2", "bottom_1", "bottom_2"):
        _save(assets / "Lashes" / f"lashes_{name}.png", _lashes(rng))
    _save(assets / "Skin Shading" / "margin_mask_color_2.png", np.zeros((_SIDE, _SIDE, 4)))
    vertices = _vertices()
    np.savetxt(resources / "ShapePCA" / "mesh_mean.txt", _blender(vertices))
    components = rng.normal(size=(3 * NUM_VERTICES, NUM_COMPONENTS)) * 0.02
    np.savetxt(resources / "ShapePCA" / "pca_components.txt", components)
    np.savetxt(resources / "ShapePCA" / "transformed_std.txt", np.full(NUM_COMPONENTS, 0.005))
    subdivision = resources / "SubdivData"
    own = np.arange(NUM_VERTICES)[:, None]
    np.savetxt(subdivision / "new_v_idxs_eye_region.txt", own * np.ones(9, int), "%d", ",")
    weights = np.tile([1.0] + [0.0] * 8, (NUM_VERTICES, 1))
    np.savetxt(subdivision / "new_v_weights_eye_region.txt", weights, delimiter=",")
    np.savetxt(subdivision / "new_tris_eye_region.txt", _triangles().ravel(), "%d")
    (assets / "eye_region.3ds").write_bytes(_mesh_file(0.5 + vertices[:, :2] * [1, -1] / 75))
    return folder


def _vertices() -> NDArray[Any]:
    """Return the mesh [229, 3] in mm: x right, y down, z into the scene."""
    vertices = np.tile([-9.5, 0.5, -8.0], (NUM_VERTICES, 1))
    angle = np.pi - np.arange(20) * (2 * np.pi / 20)
    for loop, (wide, high) in zip(LOOPS, _LOOP_MM, strict=True):
        vertices[loop, 0], vertices[loop, 1] = wide * np.cos(angle), -high * np.sin(angle)
        squared = (vertices[loop, :2] ** 2).sum(axis=1)
        vertices[loop, 2] = -np.sqrt(np.maximum(14.0**2 - squared, 60))
    vertices[MARGIN[0]] = [-8.5, 0.3, -9.0]
    return vertices


def _blender(vertices: NDArray[Any]) -> NDArray[Any]:
    """Return a mesh in the assets' axes, in metres."""
    return np.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], axis=1) / 1000


def _triangles() -> NDArray[Any]:
    found = []
    for inner, outer in pairwise(LOOPS):
        a, b, c, d = inner, np.roll(inner, -1), outer, np.roll(outer, -1)
        found += [np.stack([a, c, d], axis=1), np.stack([a, d, b], axis=1)]
    corner = np.array(_CORNER)
    fan = np.stack([np.full(len(corner), 27), corner, np.roll(corner, -1)], axis=1)
    return np.concatenate([*found, fan])


def _noise(rng: np.random.Generator, level: int) -> NDArray[Any]:
    return level + rng.integers(-12, 13, (_SIDE, _SIDE, 1)) * np.ones(3, int)


def _iris(level: int) -> NDArray[Any]:
    """Return a white eye with a grey iris and a black pupil, radii as UnityEyes' textures have."""
    side = 512
    place = (np.arange(side) + 0.5) / side - 0.5
    radius_mm = np.hypot(place, place[:, None]) / 0.0235929
    grey = np.where(radius_mm < 2.85, 4, np.where(radius_mm < 5.87, level, 235))
    return grey[..., None] * np.ones(3)


def _lashes(rng: np.random.Generator) -> NDArray[Any]:
    picture = np.zeros((2 * _SIDE, 2 * _SIDE, 4))
    picture[_SIDE:, ::8, 3] = 255
    picture[_SIDE + rng.integers(10, _SIDE) :, :, 3] = 0
    return picture


def _save(path: Path, picture: NDArray[Any]) -> None:
    Image.fromarray(picture.astype(np.uint8)).save(path)


def _mesh_file(uv: NDArray[Any]) -> bytes:
    """Return a 3D Studio file of one mesh with nothing but texture coordinates."""
    coordinates = struct.pack("<H", len(uv)) + uv.astype("<f4").tobytes()
    mesh = _chunk(0x4100, _chunk(0x4140, coordinates))
    return _chunk(0x4D4D, _chunk(0x3D3D, _chunk(0x4000, b"eye_region\0" + mesh)))


def _chunk(kind: int, body: bytes) -> bytes:
    return struct.pack("<HI", kind, 6 + len(body)) + body
