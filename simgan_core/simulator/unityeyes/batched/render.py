"""Batched renderer in torch: UnityEyes' eyes by the hundred, on a GPU.

    renderer = BatchRenderer(assets, UnityEyesConfig(), seed=1, device=torch.device("cuda"))
    rendered = renderer.render(range(0, 1024), Picture("crop", 35, 55))

Scenes, geometry and labels are those of `render.Renderer`, shading follows `kernels` formula by
formula: images differ by a grey level or two, and by more at a few edges. Row i depends on assets,
configuration, seed and i alone; its bits are the same in every run on one kind of device.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.compute.array_api import Array, on_host
from simgan_core.simulator.unityeyes import eyeball
from simgan_core.simulator.unityeyes.assets import Assets
from simgan_core.simulator.unityeyes.batched.glasses import draw_glasses
from simgan_core.simulator.unityeyes.batched.raster import FAR, barycentric, rasterise
from simgan_core.simulator.unityeyes.batched.scene import to_device
from simgan_core.simulator.unityeyes.batched.shading import (
    AMBIENT_PX,
    BACKGROUND,
    SHADOW_PX,
    SKIN,
    Scene,
    at_samples,
    eye_surroundings,
    lamps,
    meet_eye,
    rays,
    shade_eye,
    shade_skin,
    vertex_ambient,
    vertex_normals,
)
from simgan_core.simulator.unityeyes.config import UnityEyesConfig
from simgan_core.simulator.unityeyes.placement import Picture, Placed, place
from simgan_core.simulator.unityeyes.render import (
    BUMP,
    LASH_TEXELS_PER_MM,
    MAP_CENTRE_MM,
    SKIN_TEXELS_PER_MM,
    Rendered,
    lash_mesh,
    pupil_radius,
    texture_level,
)
from simgan_core.simulator.unityeyes.rows import choose, convert, join
from simgan_core.simulator.unityeyes.scenes import (
    BRIGHTEST_WINDOW,
    Scenes,
    ambient_directions,
    sample_scenes,
)

_ROWS_AT_ONCE = {"cuda": 256}
"""Rows rendered together; a block is always whole, so that a row's bits do not depend on which rows
are asked for."""
_FEW_ROWS = 8
"""The same on other devices, whose caches are small."""
_LUMINANCE = (0.299, 0.587, 0.114)


class BatchRenderer:
    """Renders rows of one seed on a device.

    Args:
        assets: The prepared assets.
        config: What is drawn, from where to where.
        seed: Seed of all rows.
        gaze_labels: Unit vectors [M, 3] to take gazes from, instead of drawing them.
        device: Where pictures are computed.
    """

    def __init__(
        self,
        assets: Assets,
        config: UnityEyesConfig,
        seed: int,
        gaze_labels: NDArray[np.floating] | None = None,
        *,
        device: torch.device,
    ) -> None:
        self._assets, self._config, self._seed = assets, config, seed
        self._gaze_labels, self._device = gaze_labels, device
        self._on_device = to_device(assets, device)
        self._rows_at_once = _ROWS_AT_ONCE.get(device.type, _FEW_ROWS)
        uv, triangles = lash_mesh()
        self._lash_uv = torch.as_tensor(uv, device=device)
        self._lash_triangles = torch.as_tensor(triangles.astype(np.int64), device=device)

    @torch.no_grad()
    def render(self, rows: range, picture: Picture, *, masks: bool = False) -> Rendered:
        """Render neighbouring rows."""
        size = self._rows_at_once
        blocks = range(rows.start // size * size, rows.stop, size)
        return join([self._block(first, rows, picture, masks) for first in blocks])

    def _block(self, first: int, wanted: range, picture: Picture, masks: bool) -> Rendered:
        numbers = np.arange(first, first + self._rows_at_once)
        assets = self._assets
        scenes = sample_scenes(
            self._config, self._seed, numbers, num_skins=len(assets.skins),
            num_irises=len(assets.irises), brown_iris=assets.brown_iris,
            deviation=assets.deviation, gaze_labels=self._gaze_labels,
        )  # fmt: skip
        placed = place(assets, convert(scenes, self._tensor), picture)
        images, shown, whole, visible = self._draw(convert(placed, _single), picture)
        rendered = Rendered(
            images=images.cpu().numpy(),
            labels=convert(placed.labels, on_host),
            iris_visible=(visible / whole.clamp(min=1)).cpu().numpy(),
            scenes=scenes,
            shown=shown.cpu().numpy() if masks else np.zeros((len(images), 0, 0), np.uint8),
        )
        start, stop = max(wanted.start - first, 0), min(wanted.stop - first, len(numbers))
        return choose(rendered, slice(start, stop))

    def _tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(array, device=self._device)

    def _draw(self, placed: Placed, picture: Picture) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return images [B, H, W, 3], classes of samples, and samples of all and visible iris."""
        height, width = picture.height * picture.samples, picture.width * picture.samples
        scene = self._scene(placed, picture)
        y, x = torch.meshgrid(
            torch.arange(height, device=self._device) + 0.5,
            torch.arange(width, device=self._device) + 0.5,
            indexing="ij",
        )
        ray = rays(scene, x.flatten(), y.flatten())
        through = ray.through.view(-1, height, width)
        seen = _Seen(scene, scene.vertices, self._on_device.triangles, through)
        owner, depth = seen.mesh.owner.flatten(1), seen.mesh.depth.flatten(1)
        hits = meet_eye(scene, ray)
        met = hits.distance < FAR / 10
        eye_depth = torch.where(met, hits.point[..., 2], FAR)
        is_skin = (owner >= 0) & (depth <= eye_depth)
        is_eye = met & ~is_skin
        in_iris = met & ((hits.spot**2).sum(dim=-1) < scene.iris_radius[:, None] ** 2)
        light = torch.zeros_like(ray.direction)
        shown = torch.full_like(owner, BACKGROUND, dtype=torch.uint8)
        image, sample = is_skin.nonzero(as_tuple=True)
        weights = seen.weights(image, sample // width, sample % width)
        light[image, sample] = shade_skin(
            scene, image, owner[image, sample], weights, ray.direction[image, sample]
        )
        shown[image, sample] = SKIN
        image, sample = is_eye.nonzero(as_tuple=True)
        grid = eye_surroundings(scene, height, width)
        near = at_samples(grid, image, sample // width, sample % width)
        chosen = type(hits)(*(getattr(hits, name)[image, sample] for name in vars(hits)))
        light[image, sample], shown[image, sample] = shade_eye(
            scene, image, chosen, ray.direction[image, sample], near
        )
        depth = torch.where(is_eye, eye_depth, depth)
        size = (len(light), height, width)
        light, shown, depth = light.view(*size, 3), shown.view(size), depth.view(size)
        level = _skin_level(light, shown)
        self._draw_lashes(placed, scene, picture, through, light, shown, depth, level)
        background = placed.scenes.background * level
        _fill(light, shown, scene, background)
        draw_glasses(placed.scenes.glasses, scene, light, shown, depth, level)
        exposed = _exposed(light, self._gain(placed.scenes, level), picture.samples)
        return exposed, shown, in_iris.sum(dim=1), (in_iris & ~is_skin).sum(dim=1)

    def _scene(self, placed: Placed, picture: Picture) -> Scene:
        """Gather what shading reads."""
        s, geometry, assets = placed.scenes, placed.geometry, self._on_device
        rotation, eye = s.rotation, geometry.eye
        samples_per_mm = placed.focal_px * picture.samples / eye[:, 2]

        def level(texels_per_mm: float) -> Tensor:
            return self._tensor(texture_level(texels_per_mm / samples_per_mm.cpu().numpy()))

        lights = s.lights
        vertices = geometry.skin
        origin = eye + (rotation * _single(self._tensor(MAP_CENTRE_MM))).sum(dim=2)
        to_camera = rotation.transpose(1, 2)
        direction, right = lights.direction @ to_camera, lights.right @ to_camera
        used = torch.arange(direction.shape[1], device=self._device) < lights.count[:, None]
        most = int(lights.count.max())
        colour = torch.where(used[..., None], lights.colour, 0)
        area = 4 * lights.half_size.prod(dim=2, keepdim=True)
        lamp = lamps(
            vertices, assets.triangles, origin, direction[:, :most], colour[:, :most],
            used[:, :most], SHADOW_PX,
        )  # fmt: skip
        sky_direction, sky_colour = map(_single, ambient_directions(lights))
        sky_direction = sky_direction @ to_camera
        sky_lamps = lamps(
            vertices, assets.triangles, origin, sky_direction, sky_colour,
            torch.ones_like(sky_direction[..., 0], dtype=torch.bool), AMBIENT_PX,
        )  # fmt: skip
        normals = vertex_normals(vertices, assets)
        return Scene(
            assets=assets,
            focal=placed.focal_px * picture.samples,
            centre=placed.centre_px * picture.samples,
            vertices=vertices,
            normals=normals,
            ambient=vertex_ambient(vertices, normals, origin, sky_lamps),
            origin=origin,
            lamps=lamp,
            window_right=right,
            window_down=torch.linalg.cross(direction, right),
            window_half=lights.half_size,
            window_bars=lights.bars,
            window_radiance=(colour * torch.pi / area).clamp(max=BRIGHTEST_WINDOW),
            sky_lamps=sky_lamps,
            sky=lights.sky * 0.9,
            ground=lights.ground * 0.5,
            up=-rotation[:, :, 1],
            eye=eye,
            axes=geometry.axes,
            temple=geometry.temple,
            conjunctiva=s.lids.outer_corner_mm,
            iris=s.iris,
            iris_level=level(SKIN_TEXELS_PER_MM * 1.6),
            iris_radius=s.iris_size * eyeball.IRIS_RADIUS_MM,
            pupil_radius=pupil_radius(s.pupil_size),
            refractive_index=s.refractive_index,
            iris_tint=s.iris_tint,
            sclera_tint=s.sclera_tint,
            lash_shade=s.lash_shade,
            skin=s.skin,
            skin_level=level(SKIN_TEXELS_PER_MM),
            look_down=geometry.look_down,
            bump=BUMP * s.bump,
            shine=s.shine,
            skin_tint=s.skin_tint,
            liner=s.liner,
            eyeshadow=s.eyeshadow,
            right=rotation[:, :, 0],
            down=rotation[:, :, 1],
            spectacles=geometry.spectacles,
        )

    def _draw_lashes(
        self,
        placed: Placed,
        scene: Scene,
        picture: Picture,
        through: Tensor,
        light: Tensor,
        shown: Tensor,
        depth: Tensor,
        level: Tensor,
    ) -> None:
        """Blend the strips of lashes over the light [B, H, W, 3] by their textures' opacity."""
        samples_per_mm = placed.focal_px * picture.samples / placed.geometry.eye[:, 2]
        sizes = texture_level(LASH_TEXELS_PER_MM / samples_per_mm.cpu().numpy())
        size = self._tensor(sizes)
        tone = placed.scenes.lash_tone * level * 3
        hair = tone[:, None] * tone.new_tensor([1.1, 1.0, 0.9])
        strips = placed.geometry.lashes
        for strip, thinning in ((2, 0.7), (3, 0.7), (0, 1.0), (1, 1.0)):
            seen = _Seen(scene, strips[:, strip], self._lash_triangles, through)
            mesh = seen.mesh
            in_front = (mesh.owner >= 0) & (mesh.depth <= depth + 0.6) & (shown != BACKGROUND)
            image, row, column = in_front.nonzero(as_tuple=True)
            corner = self._lash_triangles[mesh.owner[image, row, column]]
            weights = seen.weights(image, row, column)
            u, v = (self._lash_uv[corner] * weights[..., None]).sum(dim=1).unbind(dim=1)
            which = torch.full_like(image, strip)
            opacity = self._on_device.lashes.bilinear(which, size[image], u, v) / 255
            density = placed.scenes.lash_density[image] * thinning
            opacity = (opacity * density).clamp(max=0.97)[:, None]
            light[image, row, column] = torch.lerp(light[image, row, column], hair[image], opacity)

    def _gain(self, scenes: Scenes, level: Tensor) -> Array:
        """Return the factor [B] from light to what a display of gamma 2 shows."""
        skin_level = self._on_device.skin_level
        tinted = skin_level[scenes.skin] * scenes.skin_tint.mean(dim=1)
        albedo = tinted / skin_level.mean()
        # Dark skin stays somewhat darker.
        return scenes.brightness**2 / (level * albedo**-0.6)


class _Seen:
    """A mesh with vertices [B, V, 3] as the camera sees it, `through` [B, H, W] a lens or not."""

    def __init__(self, scene: Scene, vertices: Tensor, triangles: Tensor, through: Tensor) -> None:
        height, width = through.shape[1:]
        self._triangles, self._through = triangles, through
        self._places = _projected(scene, vertices)
        self._images = self._places
        self.mesh = rasterise(self._places, triangles, height, width)
        worn = (scene.spectacles.power != 0).nonzero()[:, 0]
        if len(worn) == 0:
            return
        images = _projected(scene, scene.spectacles.images(vertices))
        # Depths are those of the points themselves.
        self._images = torch.cat([images[..., :2], vertices[..., 2:]], dim=2)
        shown = rasterise(self._images[worn], triangles, height, width)
        for whole, part in zip(self.mesh, shown, strict=True):
            whole[worn] = torch.where(through[worn], part, whole[worn])

    def weights(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return barycentric weights [P, 3] of samples in their triangles."""
        corner = (image[:, None], self._triangles[self.mesh.owner[image, row, column]])
        behind = self._through[image, row, column][:, None, None]
        corners = torch.where(behind, self._images[corner], self._places[corner])
        return barycentric(corners, column + 0.5, row + 0.5)


def _single(values: Array) -> Array:
    """Return numbers in single precision, whole ones as they are."""
    return values.float() if values.is_floating_point() else values


def _projected(scene: Scene, points: Tensor) -> Tensor:
    """Return x and y in samples, and depth, of points [B, V, 3]."""
    xy = scene.centre[:, None] + scene.focal[:, None, None] * points[..., :2] / points[..., 2:]
    return torch.cat([xy, points[..., 2:]], dim=2)


def _skin_level(light: Tensor, shown: Tensor) -> Tensor:
    """Return the mean luminance [B] of the skin, as a display's grey levels would average it."""
    root = (light[:, ::3, ::3] @ light.new_tensor(_LUMINANCE)).clamp(min=0).sqrt()
    is_skin = shown[:, ::3, ::3] == SKIN
    mean = (root * is_skin).sum(dim=(1, 2)) / is_skin.sum(dim=(1, 2)).clamp(min=1)
    return (mean * mean).clamp(min=1e-4)


def _fill(light: Tensor, shown: Tensor, scene: Scene, strength: Tensor) -> None:
    """Draw sky and ground where there is nothing else."""
    height = light.shape[1]
    upness = 1 - torch.arange(height, device=light.device)[None, :, None] / height
    sky = torch.lerp(scene.ground[:, None], scene.sky[:, None], upness) * strength[:, None, None]
    empty = (shown == BACKGROUND)[..., None]
    light.copy_(torch.where(empty, sky[:, :, None], light))


def _exposed(light: Tensor, gain: Tensor, samples: int) -> Tensor:
    """Average samples to pixels and turn light into grey levels, uint8 [B, H, W, 3]."""
    num_images, height, width, _ = light.shape
    blocks = light.view(num_images, height // samples, samples, width // samples, samples, 3)
    level = blocks.mean(dim=(2, 4)) * gain[:, None, None, None]
    level = torch.where(level > 0.7, 0.7 + 0.3 * torch.tanh((level - 0.7) / 0.3), level)
    return (level.clamp(min=0).sqrt() * 255 + 0.5).to(torch.uint8)
