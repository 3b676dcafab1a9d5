"""UnityEyes' assets as arrays, made ready for rendering.

`RawAssets` is what the files hold; `prepare` derives what rendering needs: smaller versions of the
textures, slopes of the displacement maps, the outline of the opening in the rendered mesh, and a
skirt of skin beyond the mesh's edge.
"""

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.compute.array_api import Array, constant, library_of
from simgan_core.errors import InputError
from simgan_core.simulator.unityeyes.topology import (
    CANTHUS,
    CARUNCLE,
    INNER_CORNER,
    LOOPS,
    MARGIN,
    NUM_VERTICES,
)

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]

TEXTURE_PX = 512
"""Side of the textures, in pixels, at full size."""
LASH_TEXTURE_PX = (128, 256)
"""Size of the lashes' textures: from root to tip, along the lid."""
_LEVELS = 3
"""Sizes of every texture: full, a half, a quarter."""
_SLOPE_LIMIT = 0.05
"""Steepest slope kept of a displacement map, in full scales a texel."""
_SKIRT_RINGS = 3


@dataclass(frozen=True)
class RawAssets:
    """Asset files' content: S skins, I irises, T triangles of a rendered mesh of R vertices."""

    skin_names: tuple[str, ...]
    """S names, such as f01."""
    skins: list[tuple[Bytes, Bytes, Bytes]]
    """For each: colour and colour looking down [512, 512, 3], displacement [512, 512]."""
    iris_names: tuple[str, ...]
    """I names, such as brown."""
    irises: list[Bytes]
    """[512, 512, 3]."""
    lashes: list[Bytes]
    """Opacity of two layers above, then of two below [128, 256]; row 0 is at the roots."""
    margin: Bytes
    """Mask of wet and pink skin [512, 512]."""
    mean: Floats
    """Mean of the shape model [229, 3]."""
    components: Floats
    """Its components [687, C]."""
    deviation: Floats
    """Standard deviation of each coefficient [C]."""
    uv: Floats
    """Texture coordinates of the 229 vertices [229, 2]."""
    sources: Indices
    """Vertices that each rendered one is a mean of [R, 9]."""
    weights: Floats
    """Their weights [R, 9]."""
    triangles: Indices
    """Corners in the rendered mesh [T, 3]."""


@dataclass(frozen=True)
class SkinLevel:
    """One skin at one size."""

    colour: Bytes
    """[P, P, 3]."""
    look_down: Bytes
    """[P, P, 3]."""
    slope: NDArray[np.int8]
    """Slope of the displacement [P, P, 2], 127 for the steepest."""
    margin: Bytes
    """[P, P]."""


@dataclass(frozen=True)
class Assets:
    """Everything that rendering reads, the same for all images."""

    skin_names: tuple[str, ...]
    iris_names: tuple[str, ...]
    skins: list[list[SkinLevel]]
    """By skin, then by size, the full one first."""
    skin_level: Floats
    """Mean albedo of each skin, linear, 0 to 1 [S]."""
    caruncle: Floats
    """Colour of each skin's wet parts, linear [S, 3]."""
    irises: list[list[Bytes]]
    """By iris, then by size [P, P, 3]."""
    brown_iris: int
    """The brown one's number; the first where none is named so."""
    lashes: list[Bytes]
    """By size: opacity [4, h, w] of two layers above and two below."""
    mean: Floats
    components: Floats
    deviation: Floats
    sources: NDArray[np.int32]
    """[R, 9]."""
    weights: Floats
    """[R, 9]."""
    triangles: NDArray[np.uint32]
    """Of the rendered mesh and its skirt [T, 3]."""
    uv: NDArray[np.float32]
    """Texture coordinates of the mesh's and the skirt's vertices [R + skirt, 2]."""
    rim: NDArray[np.int32]
    """The mesh's outer edge, in order: the skirt's rings begin there."""
    liner: NDArray[np.float32]
    """Eyeliner of a vertex, 0 to 1."""
    eyeshadow: NDArray[np.float32]
    """The same of an eyeshadow."""
    upper: NDArray[np.int32]
    """The opening's edge above, from the inner to the outer corner: rendered vertices."""
    lower: NDArray[np.int32]
    """The same below, from the outer to the inner corner."""
    margin: NDArray[np.int32]
    """The rendered vertices of the 16 points of the lids' margin."""
    caruncle_vertices: NDArray[np.int32]
    """Of the 7 points of the caruncle."""
    canthus: NDArray[np.int32]
    """The two between which the inner corner's tip lies."""


def prepare(raw: RawAssets) -> Assets:
    """Derive what rendering needs; raises InputError where the mesh has no opening or no edge."""
    num_rendered = len(raw.sources)
    control = np.zeros((num_rendered, NUM_VERTICES))
    np.add.at(control, (np.arange(num_rendered)[:, None], raw.sources), raw.weights)
    nearest = control.argmax(axis=0)
    opening, rim = _edges(raw.triangles, int(nearest[INNER_CORNER]))
    opening = _from_inner_corner(opening, control.argmax(axis=1))
    shape = control @ raw.mean
    # Blender's x runs from the nose of a left eye to the temple.
    outer = int(shape[opening, 0].argmax())
    uv = control @ raw.uv
    rim, skirt_triangles = _skirt_triangles(rim, num_rendered, raw.triangles)
    triangles = np.concatenate([raw.triangles, *skirt_triangles])
    skirt_uv = [0.5 + (uv[rim] - 0.5) * inset for inset in (0.97, 0.94, 0.91)]
    skins = [_skin_levels(*skin, raw.margin) for skin in raw.skins]
    face = slice(TEXTURE_PX * 3 // 10, TEXTURE_PX * 7 // 10, 3)
    return Assets(
        skin_names=raw.skin_names,
        iris_names=raw.iris_names,
        skins=skins,
        skin_level=np.array([_linear(skin[0][face, face]).mean() for skin in raw.skins]),
        # The corner of every skin's texture is filled with its own mean colour.
        caruncle=np.array(
            [
                0.6 * _linear(skin[0][-1, 0]) + 0.4 * _linear(np.array([172, 89, 89]))
                for skin in raw.skins
            ]
        ),
        irises=[_levels(iris) for iris in raw.irises],
        brown_iris=raw.iris_names.index("brown") if "brown" in raw.iris_names else 0,
        lashes=[np.stack(lashes) for lashes in zip(*map(_levels, raw.lashes), strict=True)],
        mean=raw.mean,
        components=raw.components,
        deviation=raw.deviation,
        sources=raw.sources.astype(np.int32),
        weights=raw.weights,
        triangles=np.ascontiguousarray(triangles, np.uint32),
        uv=np.concatenate([uv, *skirt_uv]).astype(np.float32),
        rim=rim.astype(np.int32),
        liner=_borne(control, [1.0, 0.8, 0.1, 0, 0, 0], [0.7, 0.35, 0, 0, 0, 0], len(rim)),
        eyeshadow=_borne(control, [0.5, 1, 1, 0.9, 0.4, 0], [0, 0, 0, 0, 0, 0], len(rim)),
        upper=opening[: outer + 1].astype(np.int32),
        lower=np.append(opening[outer:], opening[0]).astype(np.int32),
        margin=nearest[MARGIN].astype(np.int32),
        caruncle_vertices=nearest[CARUNCLE].astype(np.int32),
        canthus=nearest[list(CANTHUS)].astype(np.int32),
    )


def skirt(vertices: Array, rim: NDArray[np.int32]) -> Array:
    """Extend meshes [N, R, 3] in mm by rings of skin beyond their edge.

    The frame is the head's: x right, y down, z into the scene, the nose at negative x.
    """
    xp = library_of(vertices)
    edge = vertices[:, rim]
    across = edge * constant(np.array([1, 1, 0]), edge)
    outward = across / xp.clip(xp.linalg.norm(across, axis=2, keepdims=True), min=1e-6)
    nose = xp.clip(-edge[..., :1] / 25, 0, 1) ** 2
    temple = xp.clip(edge[..., :1] / 25, 0, 1) ** 2
    into_scene = constant(np.array([0, 0, 1]), edge)
    rings = [vertices]
    for way, depth in ((5, 1.0), (11, 3.5), (16, 9.0)):
        # The nose's other side and the temple fall away, brow and cheek go on.
        back = depth * (0.5 + 2.2 * nose + 1.6 * temple)
        rings.append(edge + outward * (way * (1 - 0.35 * nose)) + back * into_scene)
    return xp.concat(rings, axis=1)


def _edges(triangles: Indices, inner_corner: int) -> tuple[Indices, Indices]:
    """Return the closed edges of a mesh: the opening, which holds a vertex, and the outer rim."""
    count = Counter(
        (min(a, b), max(a, b))
        for triangle in triangles.tolist()
        for a, b in zip(triangle, [*triangle[1:], triangle[0]], strict=True)
    )
    beside: dict[int, list[int]] = {}
    for (a, b), number in count.items():
        if number == 1:
            beside.setdefault(a, []).append(b)
            beside.setdefault(b, []).append(a)
    loops: list[list[int]] = []
    left = set(beside)
    while left:
        start = inner_corner if inner_corner in left else min(left)
        loop = [start, beside[start][0]]
        while loop[-1] != start and len(loop) <= len(beside):
            loop.append(next((v for v in beside[loop[-1]] if v != loop[-2]), start))
        loops.append(loop[:-1])
        left -= set(loop)
    if len(loops) < 2 or inner_corner not in loops[0]:
        raise InputError(
            "the eye region's triangles should leave an opening for the eye, with the inner corner "
            f"(vertex {INNER_CORNER}) on its edge, and an outer edge; found {len(loops)} closed "
            "edges; take the assets' own SubdivData"
        )
    return np.array(loops[0]), np.array(max(loops[1:], key=len))


def _from_inner_corner(opening: Indices, control: Indices) -> Indices:
    """Return the opening's edge from the inner corner, over the upper lid first."""
    upper = set(MARGIN[1:4].tolist())
    quarter = max(len(opening) // 5, 1)
    ahead = sum(int(control[vertex]) in upper for vertex in opening[1 : quarter + 1])
    behind = sum(int(control[vertex]) in upper for vertex in opening[-quarter:])
    return opening if ahead >= behind else np.append(opening[:1], opening[:0:-1])


def _skirt_triangles(
    rim: Indices, num_rendered: int, triangles: Indices
) -> tuple[Indices, list[Indices]]:
    """Return the rim in the sense in which triangles run along it, and the skirt's triangles."""
    edges = {
        (a, b) for t in triangles.tolist() for a, b in ((t[0], t[1]), (t[1], t[2]), (t[2], t[0]))
    }
    if (int(rim[0]), int(rim[1])) not in edges:
        rim = rim[::-1]
    rings = [rim, *(num_rendered + len(rim) * ring + np.arange(len(rim))
                    for ring in range(_SKIRT_RINGS))]  # fmt: skip
    found = []
    for inner, outer in itertools.pairwise(rings):
        inner_next, outer_next = np.roll(inner, -1), np.roll(outer, -1)
        found.append(np.stack([inner_next, inner, outer], axis=1))
        found.append(np.stack([inner_next, outer, outer_next], axis=1))
    return rim, found


def _borne(
    control: Floats, upper: list[float], lower: list[float], num_rim: int
) -> NDArray[np.float32]:
    """Spread weights of the loops (above, below) over the rendered vertices; the skirt has none."""
    weights = np.zeros(NUM_VERTICES)
    for loop, above, below in zip(LOOPS, upper, lower, strict=True):
        weights[loop[1:10]], weights[loop[11:18]], weights[loop[10]] = above, below, above
    weights[MARGIN[1:9]], weights[MARGIN[9:]] = upper[0], lower[0]
    return np.append(control @ weights, np.zeros(_SKIRT_RINGS * num_rim)).astype(np.float32)


def _skin_levels(
    colour: Bytes, look_down: Bytes, displacement: Bytes, margin: Bytes
) -> list[SkinLevel]:
    height = displacement.astype(np.float32) / 255
    slopes = np.stack([np.gradient(height, axis=1), np.gradient(height, axis=0)], axis=-1)
    slope = np.rint(np.clip(slopes / _SLOPE_LIMIT, -1, 1) * 127).astype(np.int8)
    stacks = [_levels(array) for array in (colour, look_down, slope, margin)]
    return [SkinLevel(*arrays) for arrays in zip(*stacks, strict=True)]


def _levels(texture: NDArray[Any]) -> list[NDArray[Any]]:
    """Return a texture [H, W, ...] at full size, a half and a quarter: means of 2 × 2."""
    # Copies, since numba compiles anew for arrays that may not be written to.
    levels = [np.array(texture)]
    for _ in range(_LEVELS - 1):
        last = levels[-1].astype(np.float32)
        quarters = [last[y::2, x::2] for y in (0, 1) for x in (0, 1)]
        levels.append(np.rint(sum(quarters) / 4).astype(texture.dtype))
    return levels


def _linear(levels: NDArray[Any]) -> Floats:
    """Return the light [...] of grey levels: a display's gamma taken as 2."""
    return np.asarray((levels / 255.0) ** 2)
