"""UnityEyes without Unity: images of eyes and their labels, row by row.

    renderer = Renderer(assets, UnityEyesConfig(), seed=1)
    rendered = renderer.render(range(0, 64), Picture("crop", 35, 55))

Row i depends on assets, configuration, seed and i alone: any rows can be rendered anywhere, in any
order, by any number of threads or processes, with the same bits on one kind of machine. Rendering
needs numba (`pip install simgan[unityeyes]`); labels do not.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.compute.array_api import Array
from simgan_core.errors import InputError
from simgan_core.simulator.unityeyes import eyeball, kernel_inputs
from simgan_core.simulator.unityeyes.assets import Assets
from simgan_core.simulator.unityeyes.config import UnityEyesConfig
from simgan_core.simulator.unityeyes.eyelids import LASH_GRID
from simgan_core.simulator.unityeyes.placement import Labels, Picture, Placed, place
from simgan_core.simulator.unityeyes.rows import choose, join
from simgan_core.simulator.unityeyes.scenes import (
    BRIGHTEST_WINDOW,
    Scenes,
    ambient_directions,
    sample_scenes,
)

Floats = NDArray[np.floating[Any]]

BLOCK = 16
"""Rows whose geometry is computed together. A block is always whole, whatever rows are asked for,
so that vectorised arithmetic meets the same numbers in the same places."""
BUMP = 12 * 0.05 / 127
"""Slope of the skin for one step of a slope texture, at strength 1."""
_TEXELS_PER_SAMPLE = 1.6
"""A smaller texture is taken where a sample would cover more texels than this."""
SKIN_TEXELS_PER_MM, LASH_TEXELS_PER_MM = 7.5, 9.0
MAP_CENTRE_MM = np.array([1.0, 0.0, -8.0])
"""Middle of what the lights' depth maps show, in the head's frame."""


@dataclass(frozen=True)
class Rendered:
    """N pictures, their labels and scenes."""

    images: NDArray[np.uint8]
    """[N, H, W, 3]."""
    labels: Labels
    iris_visible: Floats
    """Share of the iris that lids do not hide, of what is in the picture [N]."""
    scenes: Scenes
    shown: NDArray[np.uint8]
    """Class of each sample [N, H · s, W · s] (`kernels.SKIN` …), where requested."""


class Renderer:
    """Renders rows of one seed.

    Args:
        assets: The prepared assets.
        config: What is drawn, from where to where.
        seed: Seed of all rows.
        gaze_labels: Unit vectors [M, 3] to take gazes from, instead of drawing them.
        threads: How many render; images do not depend on it.
    """

    def __init__(
        self,
        assets: Assets,
        config: UnityEyesConfig,
        seed: int,
        gaze_labels: Floats | None = None,
        *,
        threads: int = 1,
    ) -> None:
        self._assets, self._config, self._seed = assets, config, seed
        self._gaze_labels, self._threads = gaze_labels, threads
        self._lash_uv, self._lash_triangles = lash_mesh()

    def labels(self, rows: range, picture: Picture) -> Labels:
        """Return the labels of neighbouring rows, without rendering them."""
        return join([self._placed(first, picture, rows).labels for first in _blocks(rows)])

    def render(self, rows: range, picture: Picture, *, masks: bool = False) -> Rendered:
        """Render neighbouring rows; raises InputError without numba."""
        kernels = _kernels()

        def block(first: int) -> Rendered:
            return self._render(self._placed(first, picture, rows), picture, kernels, masks)

        with ThreadPoolExecutor(self._threads) as pool:
            return join(list(pool.map(block, _blocks(rows))))

    def _placed(self, first: int, picture: Picture, wanted: range) -> Placed:
        """Return those rows of the block that begins at `first` that are wanted."""
        rows = np.arange(first, first + BLOCK)
        assets = self._assets
        scenes = sample_scenes(
            self._config, self._seed, rows, num_skins=len(assets.skins),
            num_irises=len(assets.irises), brown_iris=assets.brown_iris,
            deviation=assets.deviation, gaze_labels=self._gaze_labels,
        )  # fmt: skip
        return choose(
            place(assets, scenes, picture),
            slice(max(wanted.start - first, 0), min(wanted.stop - first, BLOCK)),
        )

    def _render(
        self, placed: Placed, picture: Picture, kernels: ModuleType, masks: bool
    ) -> Rendered:
        drawn = [
            kernels.draw(*self._arguments(placed, row, picture))
            for row in range(len(placed.scenes))
        ]
        images, shown, whole, visible = zip(*drawn, strict=True)
        return Rendered(
            images=np.stack(images),
            labels=placed.labels,
            iris_visible=np.array(visible) / np.maximum(whole, 1),
            scenes=placed.scenes,
            shown=np.stack(shown) if masks else np.zeros((len(shown), 0, 0), np.uint8),
        )

    def _arguments(self, placed: Placed, row: int, picture: Picture) -> tuple[Any, ...]:
        """Return one row as the kernel takes it."""
        s, geometry, assets = placed.scenes, placed.geometry, self._assets
        rotation, eye = s.rotation[row], geometry.eye[row]
        samples_per_mm = placed.focal_px[row] * picture.samples / eye[2]
        camera = kernel_inputs.Camera(
            picture.height * picture.samples,
            picture.width * picture.samples,
            float(placed.focal_px[row] * picture.samples),
            *(placed.centre_px[row] * picture.samples).tolist(),
        )
        skin = np.ascontiguousarray(geometry.skin[row])
        mesh = kernel_inputs.Mesh(
            skin, assets.triangles, assets.uv, assets.liner, assets.eyeshadow,
            skin[assets.upper], skin[assets.lower],
        )  # fmt: skip
        texture = assets.skins[s.skin[row]][texture_level(SKIN_TEXELS_PER_MM / samples_per_mm)]
        skin_look = kernel_inputs.Skin(
            texture.colour, texture.look_down, texture.slope, texture.margin,
            float(geometry.look_down[row]), float(BUMP * s.bump[row]), float(s.shine[row]),
            s.skin_tint[row], assets.caruncle[s.skin[row]] * s.skin_tint[row],
            float(s.liner[row]), s.eyeshadow[row],
            np.ascontiguousarray(rotation[:, 0]), np.ascontiguousarray(rotation[:, 1]),
        )  # fmt: skip
        eye_look = kernel_inputs.Eye(
            eye, np.ascontiguousarray(geometry.axes[row]),
            np.ascontiguousarray(geometry.temple[row]), float(s.lids.outer_corner_mm[row]),
            assets.irises[s.iris[row]][texture_level(SKIN_TEXELS_PER_MM * 1.6 / samples_per_mm)],
            float(s.iris_size[row] * eyeball.IRIS_RADIUS_MM),
            float(pupil_radius(s.pupil_size[row])),
            float(s.refractive_index[row]), s.iris_tint[row], s.sclera_tint[row],
            float(s.lash_shade[row]),
        )  # fmt: skip
        lashes = kernel_inputs.Lashes(
            geometry.lashes[row], assets.lashes[texture_level(LASH_TEXELS_PER_MM / samples_per_mm)],
            self._lash_triangles, self._lash_uv,
            s.lash_density[row] * np.array([1, 1, 0.7, 0.7]), float(s.lash_tone[row]),
        )  # fmt: skip
        tinted = float(assets.skin_level[s.skin[row]] * s.skin_tint[row].mean())
        exposure = kernel_inputs.Exposure(
            float(s.brightness[row] ** 2), tinted / float(assets.skin_level.mean()),
            float(s.background[row]), picture.samples,
        )  # fmt: skip
        lights = _lights(s, row, eye)
        return (
            camera,
            mesh,
            skin_look,
            eye_look,
            lights,
            lashes,
            _glasses(placed, row),
            exposure,
        )


def pupil_radius(pupil_size: Array) -> Array:
    """Return a pupil's radius in mm for UnityEyes' scale."""
    return 1.1 + 2.4 * pupil_size


def _blocks(rows: range) -> range:
    """Return the first rows of the blocks that hold rows."""
    return range(rows.start // BLOCK * BLOCK, rows.stop, BLOCK)


def _kernels() -> ModuleType:
    """Return the compiled loops; raises InputError where numba is not installed."""
    try:
        from simgan_core.simulator.unityeyes import kernels  # noqa: PLC0415  an optional extra
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise InputError(
            "the UnityEyes simulator needs numba, which is not installed; install the extra: "
            "pip install 'simgan[unityeyes]'"
        ) from None
    return kernels


def texture_level(texels: Floats) -> NDArray[np.int64]:
    """Return the mip level of a texture for samples of this many texels of the full one."""
    ratio = np.maximum(texels / _TEXELS_PER_SAMPLE, 1)
    return np.asarray(np.clip(np.floor(np.log2(ratio) + 0.99), 0, 2), np.int64)


def lash_mesh() -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Return texture coordinates [78, 2] and triangles of a strip of lashes."""
    places = np.meshgrid(*(np.linspace(0, 1, n) for n in LASH_GRID), indexing="ij")
    uv = np.stack(places, axis=-1).reshape(-1, 2).astype(np.float32)
    return uv, _grid_triangles(*LASH_GRID)


def _lights(s: Scenes, row: int, eye: Floats) -> kernel_inputs.Lights:
    rotation, lights = s.rotation[row], s.lights
    count = int(lights.count[row])
    direction, right = (lights.direction[row, :count], lights.right[row, :count])
    colour, half_size = lights.colour[row, :count], lights.half_size[row, :count]
    area = 4 * half_size.prod(axis=1, keepdims=True)
    ambient, ambient_colour = ambient_directions(choose(lights, slice(row, row + 1)))
    return kernel_inputs.Lights(
        direction @ rotation.T, right @ rotation.T, np.cross(direction, right) @ rotation.T,
        half_size, lights.bars[row, :count], colour,
        np.minimum(colour * np.pi / area, BRIGHTEST_WINDOW),
        ambient[0] @ rotation.T, ambient_colour[0], lights.sky[row] * 0.9, lights.ground[row] * 0.5,
        -rotation[:, 1], eye + rotation @ MAP_CENTRE_MM,
    )  # fmt: skip


def _glasses(placed: Placed, row: int) -> kernel_inputs.Glasses:
    g, lens = placed.scenes.glasses, placed.geometry.spectacles
    centre, axes, temple, optical_centre = (
        np.ascontiguousarray(array[row])
        for array in (lens.centre, lens.axes, lens.temple, lens.optical_centre)
    )
    return kernel_inputs.Glasses(
        bool(g.worn[row]), centre, axes, g.half_size[row], float(g.exponent[row]),
        float(g.rim[row]), g.colour[row], float(g.gloss[row]), float(g.coating[row]),
        float(g.transmission[row]), temple, optical_centre, float(lens.power[row]),
    )  # fmt: skip


def _grid_triangles(rows: int, columns: int) -> NDArray[np.uint32]:
    """Return two triangles for every cell of a grid of points."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    first = np.stack([corner, corner + columns, corner + columns + 1], axis=1)
    second = np.stack([corner, corner + columns + 1, corner + 1], axis=1)
    return np.concatenate([first, second]).astype(np.uint32)
