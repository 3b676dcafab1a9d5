"""Assets and scenes as tensors: what the batched renderer reads, on its device.

B images; angles and lengths as in `kernel_inputs`, with a leading axis of images.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.simulator.unityeyes.assets import Assets


class Atlas(NamedTuple):
    """Textures of all kinds and sizes, one after the other."""

    texels: Tensor
    """[M, C] or [M]."""
    start: Tensor
    """First texel of texture k at size s, int64 [K, S]."""
    side: Tensor
    """Side, or height and width, in texels of each size [S, 2]."""

    def at(self, which: Tensor, level: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return texels [P, C], as float32, at rows and columns [P] of textures [P]."""
        index = self.start[which, level] + row * self.side[level, 1] + column
        return self.texels[index].to(torch.float32)

    def bilinear(self, which: Tensor, level: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return levels [P, C] between texels at u right and v down, 0 to 1 each [P]."""
        height, width = self.side[level].unbind(dim=1)
        x = torch.minimum((u * width - 0.5).clamp(min=0), width - 1.001)
        y = torch.minimum((v * height - 0.5).clamp(min=0), height - 1.001)
        column, row = x.to(torch.int64), y.to(torch.int64)
        right, down = x - column, y - row
        if self.texels.ndim > 1:
            right, down = right[:, None], down[:, None]
        above = torch.lerp(
            self.at(which, level, row, column), self.at(which, level, row, column + 1), right
        )
        below = torch.lerp(
            self.at(which, level, row + 1, column),
            self.at(which, level, row + 1, column + 1),
            right,
        )
        return torch.lerp(above, below, down)


@dataclass(frozen=True)
class DeviceAssets:
    """Assets on a device."""

    colour: Atlas
    look_down: Atlas
    slope: Atlas
    margin: Atlas
    irises: Atlas
    lashes: Atlas
    """Opacity of four strips."""
    triangles: Tensor
    """Of the skin's mesh, int64 [T, 3]."""
    incident: Tensor
    """Triangles at each vertex, int64 [V, most]; T where there are fewer."""
    uv: Tensor
    """[V, 2]."""
    make_up: Tensor
    """Eyeliner and eyeshadow of each vertex [V, 2]."""
    upper: Tensor
    """Vertices of the opening's edge above, int64."""
    lower: Tensor
    caruncle: Tensor
    """Colour of each skin's wet parts [S, 3]."""
    skin_level: Tensor
    """Mean albedo of each skin [S]."""


def to_device(assets: Assets, device: torch.device) -> DeviceAssets:
    """Copy what rendering reads to a device."""

    def tensor(array: NDArray[Any], dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype, device=device)

    def skins(of: str) -> Atlas:
        levels: list[list[NDArray[Any]]] = [
            [getattr(level, of) for level in skin] for skin in assets.skins
        ]
        return _atlas(levels, device)

    lashes = [[level[strip] for level in assets.lashes] for strip in range(4)]
    return DeviceAssets(
        colour=skins("colour"),
        look_down=skins("look_down"),
        slope=skins("slope"),
        margin=skins("margin"),
        irises=_atlas(assets.irises, device),
        lashes=_atlas(lashes, device),
        triangles=tensor(assets.triangles.astype(np.int64), torch.int64),
        incident=tensor(_incident(assets.triangles, len(assets.uv)), torch.int64),
        uv=tensor(assets.uv, torch.float32),
        make_up=tensor(np.stack([assets.liner, assets.eyeshadow], axis=1), torch.float32),
        upper=tensor(assets.upper, torch.int64),
        lower=tensor(assets.lower, torch.int64),
        caruncle=tensor(assets.caruncle, torch.float32),
        skin_level=tensor(assets.skin_level, torch.float32),
    )


def _atlas(textures: list[list[NDArray[Any]]], device: torch.device) -> Atlas:
    """Join textures, each of several sizes: the same sizes for all."""
    flat = [level.reshape(-1, *level.shape[2:]) for texture in textures for level in texture]
    lengths = [len(level) for level in flat]
    start = np.concatenate([[0], np.cumsum(lengths)[:-1]]).reshape(len(textures), -1)
    side = [level.shape[:2] for level in textures[0]]
    return Atlas(
        torch.as_tensor(np.concatenate(flat), device=device),
        torch.as_tensor(start, dtype=torch.int64, device=device),
        torch.as_tensor(side, dtype=torch.int64, device=device),
    )


def _incident(triangles: NDArray[np.uint32], num_vertices: int) -> NDArray[np.int64]:
    """Return the triangles at each vertex [V, most], filled up with T."""
    found: list[list[int]] = [[] for _ in range(num_vertices)]
    for number, triangle in enumerate(triangles.tolist()):
        for vertex in triangle:
            found[vertex].append(number)
    most = max(len(beside) for beside in found)
    return np.array([beside + [len(triangles)] * (most - len(beside)) for beside in found])
