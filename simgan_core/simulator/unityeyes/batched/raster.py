"""Batched rasterisation of triangle meshes in torch, on any device.

L layers (an image, or a light's view of one) of the same T triangles with places of their own.
Every triangle is tested on the samples of its bounding box, all triangles of all layers at once;
the nearest one of a sample is found by a minimum that does not depend on the order of its terms, so
that results have the same bits in every run.
"""

from typing import NamedTuple

import torch
from torch import Tensor

FAR = 1e9
_TOLERANCE = 1e-5
"""Of barycentric coordinates: samples on an edge belong to both triangles."""
_LEAST_AREA = 1e-7
_LOW_BITS = 32
"""Bits of a key below the depth's: the triangle's number."""


class Rasterised(NamedTuple):
    """The nearest triangle of every sample."""

    owner: Tensor
    """Triangle, int64 [L, H, W]; −1 for none."""
    depth: Tensor
    """float32 [L, H, W]; FAR for none."""


class _Hits(NamedTuple):
    """Pairs of a triangle and a sample that it covers."""

    place: Tensor
    """Sample, counted through all layers [P]."""
    triangle: Tensor
    """[P]."""
    depth: Tensor
    """[P]."""


def rasterise(places: Tensor, triangles: Tensor, height: int, width: int) -> Rasterised:
    """Find the nearest triangle of every sample.

    Args:
        places: x and y in samples and a depth above 0, float32 [L, V, 3].
        triangles: Corners, int64 [T, 3].
        height: Samples.
        width: Samples.
    """
    hits = _hits(places, triangles, height, width)
    # Depths above 0 are in the order of their bits.
    key = hits.depth.view(torch.int32).to(torch.int64) << _LOW_BITS | hits.triangle
    none = torch.iinfo(torch.int64).max
    keys = torch.full((len(places) * height * width,), none, device=places.device)
    keys.scatter_reduce_(0, hits.place, key, "amin")
    keys = keys.view(len(places), height, width)
    covered = keys != none
    owner = torch.where(covered, keys & ((1 << _LOW_BITS) - 1), -1)
    depth = (keys >> _LOW_BITS).to(torch.int32).view(torch.float32)
    return Rasterised(owner, torch.where(covered, depth, FAR))


def depth_maps(places: Tensor, triangles: Tensor, side: int) -> Tensor:
    """Return the nearest depth of every texel, float32 [L, side, side]; FAR where there is none.

    `places` [L, V, 3] are x and y in texels and depths of any sign.
    """
    hits = _hits(places, triangles, side, side)
    depth = torch.full((len(places) * side * side,), FAR, device=places.device)
    depth.scatter_reduce_(0, hits.place, hits.depth, "amin")
    return depth.view(len(places), side, side)


def barycentric(corners: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the weights [P, 3] of triangles' corners [P, 3, 2 or more] at x and y [P]."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    u = ((b[:, 0] - x) * (c[:, 1] - y) - (b[:, 1] - y) * (c[:, 0] - x)) / area
    v = ((c[:, 0] - x) * (a[:, 1] - y) - (c[:, 1] - y) * (a[:, 0] - x)) / area
    return torch.stack([u, v, 1 - u - v], dim=1)


def _hits(places: Tensor, triangles: Tensor, height: int, width: int) -> _Hits:
    corners = places[:, triangles]
    xy, z = corners[..., :2], corners[..., 2]
    a, b, c = xy.unbind(dim=2)
    area = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1])
    area = area - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
    limits = torch.tensor([width - 1, height - 1], device=places.device)
    first = torch.ceil(xy.amin(dim=2) - 0.5).clamp(min=0, max=1e6).to(torch.int64)
    last = torch.floor(xy.amax(dim=2) - 0.5).clamp(min=-1, max=1e6).to(torch.int64)
    size = (torch.minimum(last, limits) - first + 1).clamp(min=0)
    size = size * (area.abs() > _LEAST_AREA)[..., None]
    count = size.prod(dim=2).flatten()
    pair = torch.repeat_interleave(count)
    number = torch.arange(len(pair), device=places.device) - (count.cumsum(0) - count)[pair]
    first, size = first.flatten(0, 1)[pair], size.flatten(0, 1)[pair]
    column = first[:, 0] + number % size[:, 0]
    row = first[:, 1] + torch.div(number, size[:, 0], rounding_mode="floor")
    weights = barycentric(xy.flatten(0, 1)[pair], column + 0.5, row + 0.5)
    inside = (weights >= -_TOLERANCE).all(dim=1)
    depth = (weights * z.flatten(0, 1)[pair]).sum(dim=1)
    layer, triangle = torch.div(pair, len(triangles), rounding_mode="floor"), pair % len(triangles)
    place = (layer * height + row) * width + column
    return _Hits(place[inside], triangle[inside], depth[inside])
