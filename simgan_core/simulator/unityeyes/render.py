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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from simgan_core.simulator.unityeyes import eyeball, kernel_inputs
from simgan_core.simulator.unityeyes.assets import Assets, skirt
from simgan_core.simulator.unityeyes.config import UnityEyesConfig
from simgan_core.simulator.unityeyes.eyelids import (
    LASH_GRID,
    lash_strip,
    pose_lids,
    shape_vertices,
)
from simgan_core.simulator.unityeyes.rows import choose, join
from simgan_core.simulator.unityeyes.scenes import (
    BRIGHTEST_WINDOW,
    Scenes,
    ambient_directions,
    sample_scenes,
)
from simgan_core.simulator.unityeyes.views import (
    CROP_EYE_WIDTHS,
    Framing,
    View,
    corners_view,
    crop_view,
    frame_view,
)

Floats = NDArray[np.floating[Any]]

BLOCK = 16
"""Rows whose geometry is computed together. A block is always whole, whatever rows are asked for,
so that vectorised arithmetic meets the same numbers in the same places."""
_BUMP = 12 * 0.05 / 127
"""Slope of the skin for one step of a slope texture, at strength 1."""
_TEXELS_PER_SAMPLE = 1.6
"""A smaller texture is taken where a sample would cover more texels than this."""
_SKIN_TEXELS_PER_MM, _LASH_TEXELS_PER_MM = 7.5, 9.0
_TEMPLE_END_MM = np.array([34.0, -6.0, 70.0])
"""Where a temple of spectacles ends, from the hinge's height at the eyeball's centre."""
_REFRACTION_STEPS = 8
_MAP_CENTRE_MM = np.array([1.0, 0.0, -8.0])
"""Middle of what the lights' depth maps show, in the head's frame."""


class Picture(NamedTuple):
    """Format of rendered pictures."""

    framing: Framing
    height: int
    """In pixels."""
    width: int
    samples: int = 2
    """Samples of a pixel, each way."""
    eye_widths: float = CROP_EYE_WIDTHS
    """Width of a crop in widths of the eye, as the framing measures them."""


@dataclass(frozen=True)
class Labels:
    """Labels of N pictures; points in pixels, (0, 0) the top-left corner."""

    gaze: Floats
    """Optical axis, unit vectors [N, 3]: x right, y down, z into the scene."""
    visual_axis: Floats
    """Line of sight [N, 3]."""
    head_rotation: Floats
    """From the head's to the camera's frame [N, 3, 3]; the unit matrix faces the camera."""
    pupil_px: Floats
    """Pupil centre as seen through the cornea [N, 2], also where a lid hides it."""
    iris_px: Floats
    """The iris' contour [N, 32, 2]."""
    lid_px: Floats
    """The lids' margin [N, 16, 2]: from the inner corner over the upper to the outer and back."""
    caruncle_px: Floats
    """The caruncle [N, 7, 2]."""
    corners_px: Floats
    """Tip of the inner corner, and the outer corner [N, 2, 2]."""
    margin_corners_px: Floats
    """Border of sclera and caruncle, and outer corner [N, 2, 2]."""
    eyeball_px: Floats
    """Centre of the eyeball [N, 2]."""


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


@dataclass(frozen=True)
class _Geometry:
    """Everything in the camera's frame, of one block."""

    skin: Floats
    """[N, V, 3]."""
    lashes: Floats
    """[N, 4, 78, 3]."""
    eye: Floats
    """Centre of the eyeball [N, 3]."""
    axes: Floats
    """Rows: the eye's right, down and forward [N, 3, 3]."""
    look_down: Floats
    """Weight of the texture of a lid that looks down [N]."""


@dataclass(frozen=True)
class _Placed:
    """Rows ready to be rendered."""

    scenes: Scenes
    geometry: _Geometry
    focal_px: Floats
    centre_px: Floats
    labels: Labels


class Renderer:
    """Renders rows of one seed.

    Args:
        assets: The prepared assets.
        config: What is drawn, from where to where.
        seed: Seed of all rows.
        gaze_labels: Unit vectors [M, 3] to take gazes from, instead of drawing them.
    """

    def __init__(
        self,
        assets: Assets,
        config: UnityEyesConfig,
        seed: int,
        gaze_labels: Floats | None = None,
    ) -> None:
        self._assets, self._config, self._seed = assets, config, seed
        self._gaze_labels = gaze_labels
        grid = np.stack(
            np.meshgrid(*(np.linspace(0, 1, n) for n in LASH_GRID), indexing="ij"), axis=-1
        )
        self._lash_uv = grid.reshape(-1, 2).astype(np.float32)
        self._lash_triangles = _grid_triangles(*LASH_GRID)

    def labels(self, rows: range, picture: Picture) -> Labels:
        """Return the labels of neighbouring rows, without rendering them."""
        return join([self._placed(first, picture, rows).labels for first in _blocks(rows)])

    def render(
        self, rows: range, picture: Picture, *, threads: int = 1, masks: bool = False
    ) -> Rendered:
        """Render neighbouring rows in that many threads; raises InputError without numba."""
        kernels = _kernels()

        def block(first: int) -> Rendered:
            return self._render(self._placed(first, picture, rows), picture, kernels, masks)

        with ThreadPoolExecutor(threads) as pool:
            return join(list(pool.map(block, _blocks(rows))))

    def _placed(self, first: int, picture: Picture, wanted: range) -> _Placed:
        """Return those rows of the block that begins at `first` that are wanted."""
        rows = np.arange(first, first + BLOCK)
        assets = self._assets
        scenes = sample_scenes(
            self._config, self._seed, rows, num_skins=len(assets.skins),
            num_irises=len(assets.irises), brown_iris=assets.brown_iris,
            deviation=assets.deviation, gaze_labels=self._gaze_labels,
        )  # fmt: skip
        geometry = self._geometry(scenes)
        view = self._view(geometry, picture)
        labels = self._labels(geometry, scenes, view)
        return choose(
            _Placed(scenes, geometry, view.focal_px, view.centre_px, labels),
            slice(max(wanted.start - first, 0), min(wanted.stop - first, BLOCK)),
        )

    def _geometry(self, scenes: Scenes) -> _Geometry:
        """Shape the eye regions and place them before their cameras."""
        assets = self._assets
        shape = shape_vertices(assets.mean, assets.components, scenes.coefficients)
        gaze = -scenes.gaze_in_head
        region = pose_lids(shape, gaze, scenes.lids)
        rendered = (region.vertices[:, assets.sources] * assets.weights[..., None]).sum(axis=2)
        strips = np.stack(
            [
                lash_strip(region.vertices, gaze, scenes.lash_length[:, 1 - upper],
                           upper=bool(upper), layer=layer)
                for upper in (1, 0)
                for layer in (0, 1)
            ],
            axis=1,
        ).reshape(len(scenes), 4, -1, 3)  # fmt: skip
        eye = np.stack([np.zeros(len(scenes)), np.zeros(len(scenes)), scenes.distance_mm], axis=1)

        def to_camera(points: Floats) -> Floats:
            extra = (1,) * (points.ndim - 2)
            rotation = scenes.rotation.reshape(-1, *extra, 3, 3)
            turned = (rotation * points[..., None, :]).sum(axis=-1)
            return np.asarray(turned + eye.reshape(-1, *extra, 3))

        # From the face's frame to the head's all signs turn.
        skin = to_camera(skirt(-rendered, assets.rim))
        forward = scenes.gaze
        right = np.cross(scenes.rotation[:, :, 1], -forward)
        right /= np.linalg.norm(right, axis=1, keepdims=True)
        axes = np.stack([right, np.cross(-forward, right), forward], axis=1)
        return _Geometry(skin, to_camera(-strips), eye, axes, region.look_down)

    def _view(self, geometry: _Geometry, picture: Picture) -> View:
        height, width = picture.height, picture.width
        if picture.framing == "frame":
            return frame_view(geometry.eye[:, 2], height, width)
        if picture.framing == "corners":
            return corners_view(self._corners(geometry), height, width, picture.eye_widths)
        margin = geometry.skin[:, self._assets.margin]
        caruncle = geometry.skin[:, self._assets.caruncle_vertices]
        return crop_view(margin, caruncle, height, width, picture.eye_widths)

    def _corners(self, geometry: _Geometry) -> Floats:
        """Return the tip of the inner corner, and the outer corner [N, 2, 3]."""
        tip = geometry.skin[:, self._assets.canthus].mean(axis=1)
        return np.stack([tip, geometry.skin[:, self._assets.upper[-1]]], axis=1)

    def _labels(self, geometry: _Geometry, scenes: Scenes, view: View) -> Labels:
        assets, skin = self._assets, geometry.skin
        iris = geometry.eye[:, None] + eyeball.iris_ring(geometry.axes, scenes.iris_size)
        corners = self._corners(geometry)
        return Labels(
            gaze=scenes.gaze,
            visual_axis=scenes.visual_axis,
            head_rotation=scenes.rotation,
            pupil_px=_seen_pupil(geometry, scenes, view),
            iris_px=view.to_pixels(iris),
            lid_px=view.to_pixels(skin[:, assets.margin]),
            caruncle_px=view.to_pixels(skin[:, assets.caruncle_vertices]),
            corners_px=view.to_pixels(corners),
            margin_corners_px=view.to_pixels(skin[:, [assets.upper[0], assets.upper[-1]]]),
            eyeball_px=view.to_pixels(geometry.eye),
        )

    def _render(
        self, placed: _Placed, picture: Picture, kernels: ModuleType, masks: bool
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

    def _arguments(self, placed: _Placed, row: int, picture: Picture) -> tuple[Any, ...]:
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
        texture = assets.skins[s.skin[row]][_level(_SKIN_TEXELS_PER_MM / samples_per_mm)]
        skin_look = kernel_inputs.Skin(
            texture.colour, texture.look_down, texture.slope, texture.margin,
            float(geometry.look_down[row]), float(_BUMP * s.bump[row]), float(s.shine[row]),
            s.skin_tint[row], assets.caruncle[s.skin[row]] * s.skin_tint[row],
            float(s.liner[row]), s.eyeshadow[row],
            np.ascontiguousarray(rotation[:, 0]), np.ascontiguousarray(rotation[:, 1]),
        )  # fmt: skip
        eye_look = kernel_inputs.Eye(
            eye, np.ascontiguousarray(geometry.axes[row]),
            assets.irises[s.iris[row]][_level(_SKIN_TEXELS_PER_MM * 1.6 / samples_per_mm)],
            float(s.iris_size[row] * eyeball.IRIS_RADIUS_MM),
            float(pupil_radius(s.pupil_size[row])),
            float(s.refractive_index[row]), s.iris_tint[row], s.sclera_tint[row],
            float(s.lash_shade[row]),
        )  # fmt: skip
        lashes = kernel_inputs.Lashes(
            geometry.lashes[row], assets.lashes[_level(_LASH_TEXELS_PER_MM / samples_per_mm)],
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
            _glasses(s, row, eye),
            exposure,
        )


def pupil_radius(pupil_size: Floats) -> Floats:
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


def _level(texels: float) -> int:
    """Return which size of a texture to take where a sample is so many texels of the full one."""
    return int(np.clip(np.floor(np.log2(max(texels / _TEXELS_PER_SAMPLE, 1)) + 0.99), 0, 2))


def _seen_pupil(geometry: _Geometry, scenes: Scenes, view: View) -> Floats:
    """Return the pixels [N, 2] at which the pupil's centre is seen through the cornea."""
    axis = geometry.axes[:, 2]
    centre = geometry.eye + axis * eyeball.IRIS_DEPTH_MM
    aim = centre
    for _ in range(_REFRACTION_STEPS):
        direction = aim / np.linalg.norm(aim, axis=1, keepdims=True)
        met, enters = eyeball.refracted_to_iris(
            -geometry.eye, direction, axis, scenes.refractive_index
        )
        miss = met + geometry.eye - centre
        aim = np.where(enters[:, None], aim - 0.8 * miss, aim)
    return view.to_pixels(aim[:, None])[:, 0]


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
        -rotation[:, 1], eye + rotation @ _MAP_CENTRE_MM,
    )  # fmt: skip


def _glasses(s: Scenes, row: int, eye: Floats) -> kernel_inputs.Glasses:
    g, rotation = s.glasses, s.rotation[row]
    wrap, lean = g.tilt[row]
    turn = np.array(
        [
            [np.cos(wrap), 0, np.sin(wrap)],
            [np.sin(lean) * np.sin(wrap), np.cos(lean), -np.sin(lean) * np.cos(wrap)],
            [-np.cos(lean) * np.sin(wrap), np.sin(lean), np.cos(lean) * np.cos(wrap)],
        ]
    )
    centre = g.centre[row]
    hinge_y = centre[1] - 0.45 * g.half_size[row, 1]
    temple = _TEMPLE_END_MM + np.array([0, hinge_y, 0])
    return kernel_inputs.Glasses(
        bool(g.worn[row]), eye + rotation @ centre, turn @ rotation.T, g.half_size[row],
        float(g.exponent[row]), float(g.rim[row]), g.colour[row], float(g.gloss[row]),
        float(g.coating[row]), float(g.transmission[row]), eye + rotation @ temple,
    )  # fmt: skip


def _grid_triangles(rows: int, columns: int) -> NDArray[np.uint32]:
    """Return two triangles for every cell of a grid of points."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    first = np.stack([corner, corner + columns, corner + columns + 1], axis=1)
    second = np.stack([corner, corner + columns + 1, corner + 1], axis=1)
    return np.concatenate([first, second]).astype(np.uint32)
