"""Stacked hourglass estimator of hand joints: depth image in, one heat map a joint out.

A stacked hourglass (Newell, Yang and Deng, ECCV 2016) of two stacks, as the paper uses for NYU.

Shapes: N images, C channels, H × W pixels, J joints, F feature maps, heat maps of 64 × 64.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

MAP_SIZE = 64
NUM_STACKS = 2
_INPUT_SIZE = 2 * MAP_SIZE
_DEPTH = 4
"""Halvings inside an hourglass: 64 × 64 down to 4 × 4."""
_SD_CELLS = 1.5
"""Standard deviation of the peak that a heat map should show, in cells."""


class Hourglass(nn.Module):
    """Images [N, C, H, W] in [−1, 1] to heat maps [N, stacks, J, 64, 64], as logarithms.

    Images of any size are resized to 128 × 128: the stem halves once, where the authors' halves 256
    × 256 twice. Later stacks take the former one's heat maps as input; the last one's are the
    output.
    """

    def __init__(self, num_joints: int, channels: int, num_features: int) -> None:
        super().__init__()
        half = max(num_features // 2, 2)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, half, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            _Residual(half, num_features),
            _Residual(num_features, num_features),
        )
        self.stacks = nn.ModuleList(
            _Stack(num_features, num_joints, is_last=number == NUM_STACKS - 1)
            for number in range(NUM_STACKS)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the heat maps of every stack for images [N, C, H, W]."""
        size = (_INPUT_SIZE, _INPUT_SIZE)
        maps = self.stem(interpolate(images, size, mode="bilinear", antialias=True))
        answers = []
        for stack in self.stacks:
            maps, answer = stack(maps)
            answers.append(answer.float())
        return torch.stack(answers, dim=1)


def heat_maps(joints_uv: Tensor, height: int, width: int) -> Tensor:
    """Draw a Gaussian that sums to 1 for each joint [N, J, 2], pixels of an H × W image.

    The peak of a joint outside the image is at the border next to it.
    """
    place = torch.arange(MAP_SIZE, dtype=torch.float32, device=joints_uv.device) + 0.5
    size = torch.tensor([width, height], dtype=torch.float32, device=joints_uv.device)
    u, v = (joints_uv * (MAP_SIZE / size)).unbind(dim=2)
    across = torch.softmax(-0.5 * ((place - u[..., None]) / _SD_CELLS) ** 2, dim=2)
    down = torch.softmax(-0.5 * ((place - v[..., None]) / _SD_CELLS) ** 2, dim=2)
    return down[..., :, None] * across[..., None, :]


def heat_map_loss(logs: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of maps [N, stacks, J, 64, 64] against targets [N, J, 64, 64].

    A map is a distribution over its cells. The authors' squared error learns for long that nearly
    all of a map is empty: after 150 steps of 8 it had found no joint yet.
    """
    distribution = torch.log_softmax(logs.flatten(3), dim=3)
    return -(target.flatten(2)[:, None] * distribution).sum(dim=3).mean()


def joints_from_heat_maps(logs: Tensor, height: int, width: int) -> Tensor:
    """Return where each map [N, J, 64, 64] peaks, [N, J, 2] in pixels of an H × W image.

    The largest cell, moved by the logarithms' slope and curvature about it: exact for a Gaussian
    peak away from the borders (Zhang et al., CVPR 2020), where the authors' quarter of a cell
    towards the larger neighbour is not.
    """
    logs = logs.flatten(2)
    peak = logs.argmax(dim=2)
    row, column = peak // MAP_SIZE, peak % MAP_SIZE
    v = row + 0.5 + _offset(logs, row, column, down=True)
    u = column + 0.5 + _offset(logs, row, column, down=False)
    size = torch.tensor([width, height], dtype=torch.float32, device=logs.device)
    return torch.stack([u, v], dim=2) * (size / MAP_SIZE)


def _offset(logs: Tensor, row: Tensor, column: Tensor, *, down: bool) -> Tensor:
    """Return how far the peak is from its largest cell along one axis, within half a cell."""
    along = row if down else column
    middle = along.clamp(1, MAP_SIZE - 2)
    before, here, after = (
        torch.gather(
            logs,
            2,
            ((middle + step) * MAP_SIZE + column if down else row * MAP_SIZE + middle + step)[
                ..., None
            ],
        )[..., 0]
        for step in (-1, 0, 1)
    )
    curvature = before - 2 * here + after
    offset = (before - after) / (2 * torch.where(curvature < 0, curvature, -torch.inf))
    return torch.where(along == middle, offset.clamp(-0.5, 0.5), 0.0)


class _Residual(nn.Module):
    """Bottleneck residual block: 1×1, 3×3 and 1×1 convolutions, each after norm and ReLU."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        half = max(num_out // 2, 2)
        self.body = nn.Sequential(
            nn.BatchNorm2d(num_in),
            nn.ReLU(inplace=False),
            nn.Conv2d(num_in, half, kernel_size=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, num_out, kernel_size=1),
        )
        self.shortcut = (
            nn.Identity() if num_in == num_out else nn.Conv2d(num_in, num_out, kernel_size=1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Transform maps [N, F, H, W]."""
        return torch.add(self.shortcut(maps), self.body(maps))


class _Hourglass(nn.Module):
    """Hourglass module: downsampling, then upsampling, with a skip connection at each size."""

    def __init__(self, num_features: int, depth: int) -> None:
        super().__init__()
        self.side = _Residual(num_features, num_features)
        self.down = _Residual(num_features, num_features)
        self.inner = (
            _Hourglass(num_features, depth - 1)
            if depth > 1
            else _Residual(num_features, num_features)
        )
        self.up = _Residual(num_features, num_features)

    def forward(self, maps: Tensor) -> Tensor:
        """Transform maps [N, F, H, W] whose sides are divisible by 2^depth."""
        inner = self.up(self.inner(self.down(max_pool2d(maps, 2))))
        return torch.add(self.side(maps), interpolate(inner, scale_factor=2))


class _Stack(nn.Module):
    """One hourglass, its heat maps, and the features for the next one."""

    def __init__(self, num_features: int, num_joints: int, *, is_last: bool) -> None:
        super().__init__()
        self.hourglass = _Hourglass(num_features, _DEPTH)
        self.features = nn.Sequential(
            _Residual(num_features, num_features),
            nn.Conv2d(num_features, num_features, kernel_size=1, bias=False),
            nn.BatchNorm2d(num_features),
            nn.ReLU(inplace=True),
        )
        self.answer = nn.Conv2d(num_features, num_joints, kernel_size=1)
        self.remember = None
        if not is_last:
            self.remember = nn.ModuleList(
                [nn.Conv2d(num_features, num_features, 1), nn.Conv2d(num_joints, num_features, 1)]
            )

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next stack's maps [N, F, 64, 64] and this one's heat maps [N, J, 64, 64]."""
        features = self.features(self.hourglass(maps))
        answer = self.answer(features)
        if self.remember is not None:
            maps = maps + self.remember[0](features) + self.remember[1](answer)
        return maps, answer
