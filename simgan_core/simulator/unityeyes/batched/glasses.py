"""Spectacles of the batched renderer: the formulas of `kernels`' glasses.

B images, of which G have glasses on; K samples of an image.
"""

import torch
from torch import Tensor

from simgan_core.simulator.unityeyes.batched.shading import (
    BACKGROUND,
    SKIN,
    Scene,
    mirrored_window,
    towards_samples,
)
from simgan_core.simulator.unityeyes.rows import choose
from simgan_core.simulator.unityeyes.scenes import Glasses


def draw_glasses(
    glasses: Glasses, scene: Scene, light: Tensor, shown: Tensor, depth: Tensor, level: Tensor
) -> None:
    """Draw the lens' reflections, its rim, bridge and temple over the light [B, H, W, 3]."""
    worn = glasses.worn.nonzero()[:, 0]
    if len(worn) == 0:
        return
    height, width = light.shape[1:3]
    g = choose(glasses, worn)
    spectacles = choose(scene.spectacles, worn)
    lens, axes, temple = spectacles.centre, spectacles.axes, spectacles.temple
    half_size, rim = g.half_size, g.rim[:, None]
    wide, high = half_size[:, :1], half_size[:, 1:]
    y, x = torch.meshgrid(
        torch.arange(height, device=light.device) + 0.5,
        torch.arange(width, device=light.device) + 0.5,
        indexing="ij",
    )
    x, y = x.flatten(), y.flatten()
    ray = towards_samples(scene, x, y)[worn]
    normal = axes[:, None, 2]
    t = (lens * axes[:, 2]).sum(dim=1)[:, None] / (ray * normal).sum(dim=-1)
    away = ray * t[..., None] - lens[:, None]
    u, v = (away * axes[:, None, 0]).sum(dim=-1), (away * axes[:, None, 1]).sum(dim=-1)
    exponent = g.exponent[:, None]
    near = (u.abs() < wide + 4) & (v.abs() < high + 4)
    ratio = (u.abs() / wide) ** exponent + (v.abs() / high) ** exponent
    edge = (ratio ** (1 / exponent) - 1) * torch.minimum(wide, high)
    inside = near & (edge < 0)
    half, bar = rim.clamp(min=0.3) / 2, rim.clamp(min=0.8) / 2
    solid = ((half - edge.abs()) * 6 + 0.5).clamp(0, 1) * torch.where(rim < 0.4, 0.5, 1)
    solid = torch.where(near, solid, 0)
    rounding = torch.where(near, edge / half, 0)
    # The bridge, arched over the nose.
    off = v + high * 0.35 - 0.012 * (u + wide + 12) ** 2
    strength = ((bar - off.abs()) * 6 + 0.5).clamp(0, 1) * ((u < -wide + 0.5) & (u > -wide - 24))
    solid, rounding = _over(solid, rounding, strength, off / bar)
    # The temple in the picture: from its hinge to behind the ear.
    hinge = lens + axes[:, 0] * wide - axes[:, 1] * high * 0.45
    ends = _projected_worn(scene, worn, torch.stack([hinge, temple], dim=1))
    start, way = ends[:, :1, :2], ends[:, 1:, :2] - ends[:, :1, :2]
    place = torch.stack([x, y], dim=1) - start
    along = (place * way).sum(dim=-1) / ((way * way).sum(dim=-1) + 1e-6)
    z = ends[:, :1, 2] + (ends[:, 1:, 2] - ends[:, :1, 2]) * along
    off = torch.linalg.norm(place - along[..., None] * way, dim=-1) * z / scene.focal[worn, None]
    strength = ((bar * 1.2 - off) * 6 + 0.5).clamp(0, 1)
    free = (along >= 0) & (along <= 1) & ~inside & (z < depth[worn].flatten(1) + 3)
    solid, rounding = _over(solid, rounding, strength * free, off / bar)
    seen = light[worn].flatten(1, 2)
    seen = torch.where(inside[..., None], _behind_lens(g, scene, worn, ray, axes, u, v, seen), seen)
    rounding = rounding.clamp(-1, 1)[..., None]
    gloss = (1 - (rounding + 0.4).abs()).clamp(min=0) ** 4 * g.gloss[:, None, None]
    colour = 3 * g.colour[:, None] * (1.1 - 0.4 * rounding)
    seen = torch.lerp(seen, level[worn, None, None] * (colour + gloss), solid[..., None])
    light[worn] = seen.view(len(worn), height, width, 3)
    covered = (solid > 0).view(len(worn), height, width) & (shown[worn] == BACKGROUND)
    shown[worn] = torch.where(covered, SKIN, shown[worn])


def _over(
    solid: Tensor, rounding: Tensor, strength: Tensor, other: Tensor
) -> tuple[Tensor, Tensor]:
    """Lay a bar of a frame over what is there where it is the stronger."""
    stronger = strength > solid
    return torch.where(stronger, strength, solid), torch.where(stronger, other, rounding)


def _projected_worn(scene: Scene, worn: Tensor, points: Tensor) -> Tensor:
    focal, centre = scene.focal[worn, None, None], scene.centre[worn, None]
    return torch.cat([centre + focal * points[..., :2] / points[..., 2:], points[..., 2:]], dim=2)


def _behind_lens(
    glasses: Glasses,
    scene: Scene,
    worn: Tensor,
    ray: Tensor,
    axes: Tensor,
    u: Tensor,
    v: Tensor,
    seen: Tensor,
) -> Tensor:
    """Return the light [G, K, 3] that a lens lets through and mirrors, as a curved pane."""
    pane = (
        axes[:, None, 2] - (axes[:, None, 0] * u[..., None] + axes[:, None, 1] * v[..., None]) / 110
    )
    mirror = ray - 2 * (ray * pane).sum(dim=-1, keepdim=True) * pane
    upness = 0.5 + 0.5 * (mirror * scene.up[worn, None]).sum(dim=-1, keepdim=True)
    sky = torch.lerp(scene.ground[worn, None], scene.sky[worn, None], upness)
    coating = glasses.coating[:, None, None]
    light: Tensor = seen * glasses.transmission[:, None, None] + sky * coating * 0.5
    image = worn.repeat_interleave(ray.shape[1])
    for k in range(scene.lamps.direction.shape[1]):
        window = mirrored_window(scene, image, k, mirror.reshape(-1, 3), 0.15)
        light = light + window.view_as(light) * coating
    return light
