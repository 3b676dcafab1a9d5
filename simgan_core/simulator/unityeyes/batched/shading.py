"""Batched shading of skin and eye in torch: the formulas of `kernels`, for all samples at once.

P samples of B images: `image` [P] says which image a sample belongs to. Light is linear. Two things
differ from `kernels`: every sample has its own shadows (there, one of four), and the grid of the
sky's light on the eye begins at the picture's corner.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.simulator.unityeyes.batched.raster import FAR, depth_maps
from simgan_core.simulator.unityeyes.batched.scene import DeviceAssets
from simgan_core.simulator.unityeyes.eyeball import (
    CORNEA_CENTRE_MM,
    CORNEA_EDGE_DEPTH_MM,
    CORNEA_EDGE_MM,
    CORNEA_RADIUS_MM,
    IRIS_DEPTH_MM,
    SCLERA_RADIUS_MM,
    TEXTURE_IRIS_MM,
    TEXTURE_PER_MM,
    TEXTURE_PUPIL_MM,
)
from simgan_core.simulator.unityeyes.spectacles import Spectacles

SHADOW_PX, AMBIENT_PX = 96, 48
"""Side of a lamp's depth map and of a sky direction's, in texels."""
_SHADOW_MM = 32.0
_COARSE = 4
"""Samples between the places at which the eye's ambient light is computed."""
_CLEAR_MM = 7.2
SKIN, SCLERA, IRIS, PUPIL, BACKGROUND = 0, 1, 2, 3, 255


@dataclass(frozen=True)
class Lamps:
    """Directions of light and depth maps of the skin as seen along them: L of an image."""

    direction: Tensor
    """[B, L, 3]."""
    colour: Tensor
    """[B, L, 3]."""
    basis: Tensor
    """Axes of the depth maps [B, L, 3, 3]."""
    maps: Tensor
    """[B, L, side, side]."""


@dataclass(frozen=True)
class Scene:
    """B images: parameters and everything that samples are shaded from."""

    assets: DeviceAssets
    focal: Tensor
    """In samples [B]."""
    centre: Tensor
    """In samples [B, 2]."""
    vertices: Tensor
    """[B, V, 3]."""
    normals: Tensor
    """[B, V, 3]."""
    ambient: Tensor
    """Light of the sky at each vertex [B, V, 3]."""
    origin: Tensor
    """Middle of the depth maps [B, 3]."""
    lamps: Lamps
    window_right: Tensor
    """[B, L, 3]."""
    window_down: Tensor
    window_half: Tensor
    """[B, L, 2]."""
    window_bars: Tensor
    """bool [B, L]."""
    window_radiance: Tensor
    """[B, L, 3]."""
    sky_lamps: Lamps
    sky: Tensor
    """[B, 3]."""
    ground: Tensor
    up: Tensor
    """[B, 3]."""
    eye: Tensor
    """Centre of the eyeball [B, 3]."""
    axes: Tensor
    """[B, 3, 3]."""
    temple: Tensor
    """[B, 3]."""
    conjunctiva: Tensor
    """[B]."""
    iris: Tensor
    """Texture's number, int64 [B]."""
    iris_level: Tensor
    iris_radius: Tensor
    pupil_radius: Tensor
    refractive_index: Tensor
    iris_tint: Tensor
    """[B, 3]."""
    sclera_tint: Tensor
    lash_shade: Tensor
    skin: Tensor
    """Texture's number, int64 [B]."""
    skin_level: Tensor
    look_down: Tensor
    bump: Tensor
    shine: Tensor
    skin_tint: Tensor
    """[B, 3]."""
    liner: Tensor
    eyeshadow: Tensor
    """[B, 4]."""
    right: Tensor
    """The textures' horizontal direction [B, 3]."""
    down: Tensor
    spectacles: Spectacles


class Rays(NamedTuple):
    """Rays of samples, those through a lens that bends light from there on; [B, K] of them."""

    direction: Tensor
    """Unit vectors [B, K, 3]."""
    origin: Tensor
    """[B, K, 3]; the camera where there is no lens."""
    through: Tensor
    """True for rays that pass a lens that bends light, bool [B, K]."""


@dataclass(frozen=True)
class EyeHits:
    """Points at which rays meet the eye; [..., K] rays."""

    distance: Tensor
    """From the ray's origin; FAR where it misses the eye."""
    point: Tensor
    """[..., K, 3]."""
    normal: Tensor
    spot: Tensor
    """Point seen there, in mm along the eye's right and down axes [..., K, 2]."""


def rays(scene: Scene, x: Tensor, y: Tensor) -> Rays:
    """Return the rays of samples at x and y [K], bent by the lens of glasses."""
    origin, direction, through = scene.spectacles.bent(towards_samples(scene, x, y))
    return Rays(direction, origin, through)


def towards_samples(scene: Scene, x: Tensor, y: Tensor) -> Tensor:
    """Return unit directions [B, K, 3] from the camera to samples at x and y [K]."""
    focal = scene.focal[:, None]
    aside = (x - scene.centre[:, :1]) / focal
    down = (y - scene.centre[:, 1:]) / focal
    return functional.normalize(torch.stack([aside, down, torch.ones_like(aside)], dim=2), dim=2)


def vertex_normals(vertices: Tensor, assets: DeviceAssets) -> Tensor:
    """Return unit normals [B, V, 3] that face the camera side of the skin."""
    a, b, c = vertices[:, assets.triangles].unbind(dim=2)
    faces = functional.pad(torch.linalg.cross(b - a, c - a), (0, 0, 0, 1))
    normals = functional.normalize(faces[:, assets.incident].sum(dim=2), dim=2, eps=1e-12)
    away = (normals[..., 2] >= 0).sum(dim=1) * 2 > normals.shape[1]
    return torch.where(away[:, None, None], -normals, normals)


def lamps(
    vertices: Tensor,
    triangles: Tensor,
    origin: Tensor,
    direction: Tensor,
    colour: Tensor,
    used: Tensor,
    side: int,
) -> Lamps:
    """Render the depth maps of far lights; those not `used` [B, L] shade nothing."""
    # Any direction that no light has.
    right = functional.normalize(
        torch.stack(
            [
                direction[..., 2] - 0.2 * direction[..., 1],
                0.2 * direction[..., 0] - 0.3 * direction[..., 2],
                0.3 * direction[..., 1] - direction[..., 0],
            ],
            dim=-1,
        ),
        dim=-1,
    )
    basis = torch.stack([right, torch.linalg.cross(direction, right), direction], dim=2)
    places = (vertices - origin[:, None])[:, None] @ basis.transpose(2, 3)
    scale = side / (2 * _SHADOW_MM)
    texels = torch.cat([places[..., :2] * scale + side / 2, -places[..., 2:]], dim=3)
    maps = torch.full((*used.shape, side, side), FAR, device=vertices.device)
    maps[used] = depth_maps(texels[used], triangles, side)
    return Lamps(direction, colour, basis, maps)


def lit(
    of: Lamps, image: Tensor, k: int, point: Tensor, bias: Tensor | float, spread: Tensor | None
) -> Tensor:
    """Return the share [P] of light k that reaches points [P, 3] relative to the maps' origin.

    Between four texels (percentage-closer filtering); of an area light, the mean of four places
    `spread` [P] mm apart.
    """
    side = of.maps.shape[-1]
    scale = side / (2 * _SHADOW_MM)
    place = (of.basis[image, k] * point[:, None]).sum(dim=-1)
    a, b = place[:, 0] * scale + side / 2 - 0.5, place[:, 1] * scale + side / 2 - 0.5
    depth = -place[:, 2] - bias
    start = (image * of.maps.shape[1] + k) * side * side
    maps = of.maps.view(-1)
    if spread is None:
        return _seen(maps, start, side, a, b, depth)
    step = spread * scale
    shares = [
        _seen(maps, start, side, a + step * x, b + step * y, depth)
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    return torch.stack(shares).mean(dim=0)


def vertex_ambient(vertices: Tensor, normals: Tensor, origin: Tensor, sky_lamps: Lamps) -> Tensor:
    """Return the sky's light at the skin's vertices [B, V, 3], with what the skin itself hides."""
    num_images, num_vertices = vertices.shape[:2]
    image = torch.arange(num_images, device=vertices.device).repeat_interleave(num_vertices)
    normal = normals.reshape(-1, 3)
    point = (vertices - origin[:, None]).reshape(-1, 3) + 0.6 * normal
    light = torch.zeros_like(point)
    for k in range(sky_lamps.direction.shape[1]):
        cosine = ((_dot(normal, sky_lamps.direction[image, k]) + 0.18) / 1.18).clamp(min=0)
        share = 0.5 * lit(sky_lamps, image, k, point, 0.7, None)
        share = (share + 0.5 * lit(sky_lamps, image, k, point, 1.6, None)) * cosine
        light += sky_lamps.colour[image, k] * share[:, None]
    return light.view(num_images, num_vertices, 3)


def meet_eye(scene: Scene, rays: Rays) -> EyeHits:
    """Follow rays to the eyeball or the conjunctiva."""
    ray = rays.direction
    # From the rays' origins.
    eye, axes = scene.eye[:, None] - rays.origin, scene.axes[:, None]
    gaze, temple = axes[..., 2, :], scene.temple[:, None]
    length = scene.conjunctiva[:, None]
    sclera = _meet_sphere(ray, eye, SCLERA_RADIUS_MM)
    bulge = eye + gaze * CORNEA_CENTRE_MM
    cornea = _meet_sphere(ray, bulge, CORNEA_RADIUS_MM)
    front = _dot(ray * cornea[..., None] - eye, gaze)
    cornea = torch.where(front > CORNEA_EDGE_DEPTH_MM, cornea, FAR)
    on_cornea = cornea <= sclera
    distance = torch.minimum(sclera, cornea)
    missed = distance > FAR / 10
    point = ray * distance[..., None]
    away = point - eye
    depth = _dot(away, gaze)
    radius = ((away * away).sum(dim=-1) - depth * depth).clamp(min=0).sqrt()
    # The limbus is rounded: the normal goes over from one sphere's to the other's.
    k = ((CORNEA_EDGE_MM + 0.7 - radius) / 1.4).clamp(0, 1)
    k = torch.where(depth > 0, k * k * (3 - 2 * k), 0)[..., None]
    normal = away / SCLERA_RADIUS_MM * (1 - k) + (point - bulge) / CORNEA_RADIUS_MM * k
    normal = functional.normalize(normal, dim=-1)
    over, along = _meet_conjunctiva(ray, eye, temple, length)
    beside = (_dot(away, temple) > 0) & ((depth < 0) | (radius > _CLEAR_MM))
    white = (over < FAR / 10) & (length > 0) & (missed | beside)
    distance = torch.where(white, over, distance)
    point = torch.where(white[..., None], ray * over[..., None], point)
    flank = (ray * over[..., None] - eye - temple * along[..., None]) / SCLERA_RADIUS_MM
    normal = torch.where(white[..., None], flank, normal)
    spot = _spot(scene, ray, point - eye, normal, on_cornea & ~white)
    spot_radius = torch.linalg.norm(spot, dim=-1).clamp(min=1e-6)
    cleared = spot * (_CLEAR_MM / spot_radius).clamp(min=1)[..., None]
    spot = torch.where(white[..., None], cleared, spot)
    return EyeHits(distance, rays.origin + point, normal, spot)


def eye_surroundings(scene: Scene, height: int, width: int) -> Tensor:
    """Return the eye's ambient light, share of the sky, and distances to its lids.

    On a coarse grid over pictures of height × width samples [B, 6, rows, columns].
    """
    rows, columns = (height - 1) // _COARSE + 2, (width - 1) // _COARSE + 2
    y, x = torch.meshgrid(
        torch.arange(rows, device=scene.eye.device) * _COARSE + 0.5,
        torch.arange(columns, device=scene.eye.device) * _COARSE + 0.5,
        indexing="ij",
    )
    hits = meet_eye(scene, rays(scene, x.flatten(), y.flatten()))
    num_images, num_places = hits.distance.shape
    image = torch.arange(num_images, device=scene.eye.device).repeat_interleave(num_places)
    met = (hits.distance < FAR / 10).flatten()[:, None]
    point, normal = hits.point.reshape(-1, 3), hits.normal.reshape(-1, 3)
    point = torch.where(met, point, scene.eye[image])
    place = point - scene.origin[image]
    light = torch.zeros_like(point)
    seen, total = torch.zeros_like(point[:, 0]), torch.full_like(point[:, 0], 1e-6)
    of = scene.sky_lamps
    for k in range(of.direction.shape[1]):
        cosine = ((_dot(normal, of.direction[image, k]) + 0.1) / 1.1).clamp(min=0)
        share = lit(of, image, k, place, 0.5, None) * cosine
        total, seen = total + cosine, seen + share
        light += of.colour[image, k] * share[:, None]
    by_image = point.view(num_images, num_places, 3)
    lids = [
        _distance(by_image, scene.vertices[:, line]).flatten()
        for line in (scene.assets.upper, scene.assets.lower)
    ]
    found = torch.cat([light, torch.stack([seen / total, *lids], dim=1)], dim=1) * met
    return found.view(num_images, rows, columns, 6).permute(0, 3, 1, 2).contiguous()


def at_samples(grid: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return what a coarse grid [B, 6, rows, columns] has at samples [P, 6], bilinear."""
    y, x = row / _COARSE, column / _COARSE
    top, left = y.to(torch.int64), x.to(torch.int64)
    down, right = (y - top)[:, None], (x - left)[:, None]
    above = torch.lerp(grid[image, :, top, left], grid[image, :, top, left + 1], right)
    below = torch.lerp(grid[image, :, top + 1, left], grid[image, :, top + 1, left + 1], right)
    return torch.lerp(above, below, down)


def shade_skin(
    scene: Scene, image: Tensor, triangle: Tensor, weights: Tensor, ray: Tensor
) -> Tensor:
    """Return the light [P, 3] that skin sends along rays.

    Args:
        scene: The images.
        image: [P].
        triangle: [P].
        weights: Barycentric weights [P, 3].
        ray: Unit directions [P, 3].
    """
    assets = scene.assets
    corner = assets.triangles[triangle]
    which, level = scene.skin[image], scene.skin_level[image]

    def between(values: Tensor) -> Tensor:
        """Interpolate values of vertices [B, V, C]."""
        return (values[image[:, None], corner] * weights[..., None]).sum(dim=1)

    point = between(scene.vertices) - scene.origin[image]
    normal = between(scene.normals)
    u, v = (assets.uv[corner] * weights[..., None]).sum(dim=1).unbind(dim=1)
    v = 1 - v
    colour = assets.colour.bilinear(which, level, u, v) / 255
    down = assets.look_down.bilinear(which, level, u, v) / 255
    look = scene.look_down[image][:, None]
    colour = torch.where(look > 0.01, torch.lerp(colour, down, look), colour)
    side = assets.colour.side[level, 0]
    column = torch.minimum((u * side).clamp(min=0), side - 1.0).to(torch.int64)
    row = torch.minimum((v * side).clamp(min=0), side - 1.0).to(torch.int64)
    wet = assets.margin.at(which, level, row, column)[:, None] / 255
    make_up = (assets.make_up[corner] * weights[..., None]).sum(dim=1)
    liner = make_up[:, :1] * scene.liner[image][:, None] * (1 - 0.7 * wet)
    eyeshadow = scene.eyeshadow[image]
    albedo = colour * colour * scene.skin_tint[image]
    albedo = torch.lerp(albedo, eyeshadow[:, 1:], make_up[:, 1:] * eyeshadow[:, :1] * (1 - wet))
    caruncle = assets.caruncle[which] * scene.skin_tint[image]
    albedo = albedo * (1 - wet) + caruncle * wet * 0.8
    colour = albedo + (0.012 - albedo) * liner
    slope = assets.slope.at(which, level, row, column) * scene.bump[image][:, None] * (1 - wet)
    normal = normal - scene.right[image] * slope[:, :1] - scene.down[image] * slope[:, 1:]
    normal = functional.normalize(normal, dim=1)
    light = between(scene.ambient)
    shone = torch.zeros_like(light)
    shine = scene.shine[image][:, None]
    # Blinn–Phong, power 16 for skin and 64 where it is wet.
    dull, glossy = 0.09 * shine * (1 - wet), 0.5 * shine * wet
    for k in range(scene.lamps.direction.shape[1]):
        towards, strength = scene.lamps.direction[image, k], scene.lamps.colour[image, k]
        cosine = _dot(normal, towards)[:, None]
        # Light bleeds through skin beyond the edge of its shadow.
        wrapped = ((cosine + 0.18) / 1.18).clamp(min=0)
        spread = 0.5 + 3 * scene.window_half[image, k, 0]
        share = lit(scene.lamps, image, k, point, 0.9 + spread * 0.7, spread)[:, None]
        light = light + strength * wrapped * share
        half = _dot(normal, functional.normalize(towards - ray, dim=1))[:, None].clamp(min=0) ** 16
        shone = shone + strength * (half * dull + half**4 * glossy) * cosine.clamp(min=0) * share
    return shone + colour * light


def shade_eye(
    scene: Scene, image: Tensor, hits: EyeHits, ray: Tensor, near: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the light [P, 3] that the eye sends along rays, and what each shows, uint8 [P].

    `hits` [P] are where rays [P, 3] meet it, `near` [P, 6] what is around (`eye_surroundings`).
    """
    axes, normal, spot = scene.axes[image], hits.normal, hits.spot
    point = hits.point - scene.origin[image]
    radius = torch.linalg.norm(spot, dim=1)
    iris_radius, pupil_radius = scene.iris_radius[image], scene.pupil_radius[image]
    stretch = _stretch(radius, iris_radius, pupil_radius)
    shown = torch.where(radius < pupil_radius, PUPIL, IRIS)
    shown = torch.where(radius < iris_radius, shown, SCLERA).to(torch.uint8)
    u, v = (0.5 + spot * (TEXTURE_PER_MM * stretch)[:, None]).unbind(dim=1)
    colour = scene.assets.irises.bilinear(scene.iris[image], scene.iris_level[image], u, v) / 255
    white = ((radius * stretch - 5.5) / 0.8).clamp(0, 1)[:, None]
    tint = scene.iris_tint[image] * (1 - white) + scene.sclera_tint[image] * white
    colour = colour * colour * tint
    # The iris is a shallow bowl.
    bowl = 0.22 / iris_radius[:, None] * (1 - white)
    across = axes[:, 0] * spot[:, :1] + axes[:, 1] * spot[:, 1:]
    inner = functional.normalize(normal * white + axes[:, 2] * (1 - white) - across * bowl, dim=1)
    facing = -_dot(ray, normal)[:, None]
    fresnel = (0.025 + 0.975 * (1 - facing.clamp(min=0)) ** 5).clamp(max=0.35)
    mirror = ray + 2 * facing * normal
    light = near[:, :3]
    upper, lower = near[:, 4:5], near[:, 5:]
    shade = (1 - scene.lash_shade[image][:, None] * torch.exp(-upper * upper * 0.31)) * (
        1 - 0.45 * torch.exp(-upper * 2.9)
    )
    shade = shade * (1 - 0.25 * torch.exp(-lower * 2.9))
    upness = 0.5 + 0.5 * _dot(mirror, scene.up[image])[:, None]
    upness = upness * upness * (3 - 2 * upness)
    sky = torch.lerp(scene.ground[image], scene.sky[image], upness)
    # The tear line along the lower lid.
    wet = 1 + 2.5 * torch.exp(-lower * lower * 20)
    mirrored = torch.zeros_like(light)
    for k in range(scene.lamps.direction.shape[1]):
        cosine = ((_dot(inner, scene.lamps.direction[image, k]) + 0.1) / 1.1).clamp(min=0)
        spread = 0.4 + 2.5 * scene.window_half[image, k, 0]
        share = lit(scene.lamps, image, k, point, 0.5 + 0.5 * spread, spread) * cosine
        light = light + scene.lamps.colour[image, k] * share[:, None]
        window = mirrored_window(scene, image, k, mirror, 0.25 + 0.5 * white[:, 0])
        share = lit(scene.lamps, image, k, point, 0.5, None)[:, None]
        mirrored = mirrored + window * share * fresnel * (1 - 0.5 * white)
    colour = colour * light + sky * fresnel * near[:, 3:4] * wet
    return (mirrored + colour) * shade, shown


def mirrored_window(
    scene: Scene, image: Tensor, k: int, mirror: Tensor, blur: Tensor | float
) -> Tensor:
    """Return the light [P, 3] of window k that a mirror shows in directions [P, 3]."""
    front = _dot(mirror, scene.lamps.direction[image, k])
    half = scene.window_half[image, k]
    ahead = front.clamp(min=0.05)
    a = _dot(mirror, scene.window_right[image, k]).abs() / ahead / half[:, 0]
    b = _dot(mirror, scene.window_down[image, k]).abs() / ahead / half[:, 1]
    share = ((1 + blur - torch.maximum(a, b)) / (2 * blur)).clamp(0, 1)
    bars = scene.window_bars[image, k] & ((a < 0.1) | (b < 0.08))
    share = torch.where(bars, 0.35 * share, share) * (front > 0.05)
    return scene.window_radiance[image, k] * share[:, None]


def _seen(maps: Tensor, start: Tensor, side: int, a: Tensor, b: Tensor, depth: Tensor) -> Tensor:
    """Return the share [P] of four texels round a place of a map that depths are not behind."""
    inside = (a >= 0) & (b >= 0) & (a < side - 1) & (b < side - 1)
    column, row = a.clamp(0, side - 2).to(torch.int64), b.clamp(0, side - 2).to(torch.int64)
    right, down = a - column, b - row
    index = start + row * side + column

    def free(offset: int) -> Tensor:
        return (depth <= maps[index + offset]).to(torch.float32)

    near = torch.lerp(free(0), free(1), right)
    far = torch.lerp(free(side), free(side + 1), right)
    return torch.where(inside, torch.lerp(near, far, down), 1)


def _meet_sphere(ray: Tensor, centre: Tensor, radius: float) -> Tensor:
    """Return the distances [..., K] at which rays meet a sphere, FAR where they miss."""
    along = _dot(ray, centre)
    # By the distance of the centre from the ray: squares of distances would lose single precision.
    off = centre - along[..., None] * ray
    root = radius * radius - (off * off).sum(dim=-1)
    return torch.where(root > 0, along - root.clamp(min=0).sqrt(), FAR)


def _meet_conjunctiva(
    ray: Tensor, eye: Tensor, temple: Tensor, length: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the distances at which rays meet the conjunctiva beyond the eyeball, and how far."""
    slope, middle = _dot(ray, temple), _dot(eye, temple)
    across = ray - slope[..., None] * temple
    size = (across * across).sum(dim=-1).clamp(min=1e-9)
    off = eye - middle[..., None] * temple
    nearest = _dot(across, off) / size
    rest = off - nearest[..., None] * across
    root = (SCLERA_RADIUS_MM**2 - (rest * rest).sum(dim=-1)) / size
    distance = nearest - root.clamp(min=0).sqrt()
    along = distance * slope - middle
    beyond = (root <= 0) | (along > length)
    end = _meet_sphere(ray, eye + length[..., None] * temple, SCLERA_RADIUS_MM)
    along = torch.where(beyond, length.expand_as(along), along)
    return torch.where(along > 0, torch.where(beyond, end, distance), FAR), along


def _spot(scene: Scene, ray: Tensor, away: Tensor, normal: Tensor, on_cornea: Tensor) -> Tensor:
    """Return what rays show, in mm along the eye's right and down axes [B, K, 2].

    They meet the eye `away` [B, K, 3] from its centre.
    """
    axes = scene.axes[:, None]
    ratio = (1 / scene.refractive_index)[:, None]
    cosine = -_dot(ray, normal)
    root = 1 - ratio * ratio * (1 - cosine * cosine)
    bend = ratio * cosine - root.clamp(min=0).sqrt()
    bent = ray * ratio[..., None] + normal * bend[..., None]
    height = _dot(away, axes[..., 2, :]) - IRIS_DEPTH_MM
    fall = -_dot(bent, axes[..., 2, :])
    through = on_cornea & (root > 0) & (height > 0) & (fall > 0.05)
    met = away + bent * (height / fall.clamp(min=0.05))[..., None]
    away = torch.where(through[..., None], met, away)
    return torch.stack([_dot(away, axes[..., 0, :]), _dot(away, axes[..., 1, :])], dim=-1)


def _stretch(radius: Tensor, iris_radius: Tensor, pupil_radius: Tensor) -> Tensor:
    """Return the factor [P] that puts a texture's pupil and limbus where this eye has them."""
    safe = radius.clamp(min=1e-6)
    pupil = TEXTURE_PUPIL_MM / pupil_radius
    slope = (TEXTURE_IRIS_MM - TEXTURE_PUPIL_MM) / (iris_radius - pupil_radius)
    iris = (TEXTURE_PUPIL_MM + (radius - pupil_radius) * slope) / safe
    slope = (9 - TEXTURE_IRIS_MM) / (9 - iris_radius)
    white = (TEXTURE_IRIS_MM + (radius - iris_radius) * slope) / safe
    outside = torch.where(radius < 9, white, 1)
    return torch.where(
        radius < pupil_radius, pupil, torch.where(radius < iris_radius, iris, outside)
    )


def _distance(points: Tensor, line: Tensor) -> Tensor:
    """Return the distances [B, K] of points [B, K, 3] from polylines [B, n, 3]."""
    best = torch.full_like(points[..., 0], FAR)
    for i in range(line.shape[1] - 1):
        start = line[:, i, None]
        way = line[:, i + 1, None] - start
        off = points - start
        along = (_dot(off, way) / (_dot(way, way) + 1e-9)).clamp(0, 1)
        off = off - along[..., None] * way
        best = torch.minimum(best, (off * off).sum(dim=-1))
    return best.sqrt()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=-1)
