"""Gaze estimator: eye image in, gaze direction out.

Shapes: N images, C channels, H × W pixels.
"""

import json
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from simgan_core.atomic_file import atomic_write
from simgan_core.config import EstimatorConfig
from simgan_core.data.images import to_network
from simgan_core.errors import InputError

_KIND = "simgan estimator 2"
"""Kind of file, with the version of its layout."""
_NUM_POSE_ANGLES = 2


class Estimator(nn.Module):
    """Images [N, C, H, W] in [−1, 1] to gaze, float32 unit vectors [N, 3] in the camera's frame.

    The last layer gives a vector of any length, as the paper's does; its direction is the answer.
    In eval mode an image alone and in a batch give the same.
    """

    def __init__(self, config: EstimatorConfig, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.config = config
        self.image_shape = (height, width, channels)
        """H, W, C of the images that the last layers fit."""
        self.validation_error_deg = float("nan")
        """Mean error on the part of the training set that was kept out; NaN where none was."""
        self.normalization_is_fixed = False
        """True where training leaves batch normalisation as it is, for a few images."""
        layers = {
            "pooled": _pooled_layers,
            "compact": _compact_layers,
            "paper": _paper_layers,
            "resnet": _resnet_layers,
        }
        if config.architecture not in layers:
            raise InputError(
                f"architecture {config.architecture} estimates joints, not gaze: use one of "
                f"{', '.join(layers)}"
            )
        self.features, num_hidden = layers[config.architecture](channels)
        num_features = _flattened_size(self.features, height, width, channels)
        self.hidden = nn.Sequential(
            *([nn.Linear(num_features, num_hidden), nn.ReLU(inplace=True)] if num_hidden else [])
        )
        num_pose = _NUM_POSE_ANGLES if config.head_pose else 0
        self.head = nn.Linear((num_hidden or num_features) + num_pose, 3)

    @override
    def train(self, mode: bool = True) -> Self:
        """Go to training mode, with or without batch normalisation, or (False) to eval mode."""
        super().train(mode)
        if mode and self.normalization_is_fixed:
            for layer in self.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self

    def forward(self, images: Tensor, head_pose: Tensor | None = None) -> Tensor:
        """Estimate the gaze [N, 3] in images [N, C, H, W].

        An estimator with `head_pose` in its configuration takes the head's pitch, yaw (and roll,
        which it ignores: images are normalised to none) [N, 2 or 3] in radians too.
        """
        described = self.hidden(self.features(images).flatten(1))
        if self.config.head_pose:
            assert head_pose is not None
            described = torch.cat([described, head_pose[:, :_NUM_POSE_ANGLES]], dim=1)
        return nn.functional.normalize(self.head(described).float(), dim=1)


class UInt8Estimator(nn.Module):
    """Pixels uint8 or uint16 [N, H, W, C] to gaze [N, 3]: an estimator without preprocessing."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, images: Tensor) -> Tensor:
        """Estimate the gaze [N, 3] in images uint8 or uint16 [N, H, W, C], as it was trained on."""
        gaze: Tensor = self.estimator(to_network(images))
        return gaze


def build_estimator(config: EstimatorConfig, height: int, width: int, channels: int) -> Estimator:
    """Make an estimator for images of this size, its weights from torch's generator.

    Raises InputError where the images are too small for the layers, or the layers find no gaze.
    """
    return Estimator(config, height, width, channels)


def save_estimator(path: Path, estimator: Estimator) -> None:
    """Write the weights, configuration and image shape atomically."""
    content = {
        "kind": _KIND,
        "config": estimator.config.model_dump_json(),
        "image_shape": json.dumps(estimator.image_shape),
        "validation_error_deg": estimator.validation_error_deg,
        "weights": {name: value.cpu() for name, value in estimator.state_dict().items()},
    }
    with atomic_write(path) as file:
        torch.save(content, file)


def load_estimator(path: Path) -> Estimator:
    """Read an estimator, on the CPU and in eval mode, without unpickling code.

    Raises InputError where the file is missing, damaged or something else.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        return _rebuilt(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # damaged bytes fail anywhere in the reader
        raise InputError(f"{path} is not a whole estimator: {error}") from error


def _rebuilt(content: dict[str, Any]) -> Estimator:
    if content["kind"] != _KIND:
        raise InputError(f"expected a file of the kind '{_KIND}', found '{content['kind']}'")
    config = EstimatorConfig.model_validate_json(content["config"])
    estimator = build_estimator(config, *json.loads(content["image_shape"]))
    estimator.load_state_dict(content["weights"])
    estimator.validation_error_deg = content["validation_error_deg"]
    return estimator.eval()


def _pooled_layers(channels: int) -> tuple[nn.Sequential, int]:
    """Return convolutions with batch normalisation and pooling, and the width of the layer after.

    6 M multiplications an image of 35 × 55. What pooling and normalisation take away, the exact
    place and strength of an edge, is what differs between domains: an estimator without them errs
    by a bias on images of another domain. The largest value of each 2 × 2 goes on before it is
    normalised, which costs a quarter of the other order and differs only where a gain is negative.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 32, kernel_size=5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, kernel_size=3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, kernel_size=3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
    ), 128


def _compact_layers(channels: int) -> tuple[nn.Sequential, int]:
    """Return the fastest convolutions and the width of the layer after them.

    Three strides and no pooling: 1.5 M multiplications an image of 35 × 55, a seventieth of the
    paper's; where an edge is survives the strides in the values of the maps.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=5, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
        nn.ReLU(inplace=True),
    ), 128


def _paper_layers(channels: int) -> tuple[nn.Sequential, int]:
    """Return the paper's layers (SimGAN, §3.1): 9600 values of an image of 35 × 55, then 1000."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, kernel_size=3),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, kernel_size=3),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, kernel_size=3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(64, 80, kernel_size=3),
        nn.ReLU(inplace=True),
        nn.Conv2d(80, 192, kernel_size=3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=2, stride=2),
    ), 1000


def _resnet_layers(channels: int) -> tuple[nn.Sequential, int]:
    """Return a pre-activation ResNet (He et al., ECCV 2016) of three stages, without a layer after.

    One block a stage, 16, 32 and 64 maps, batch normalisation and an average over places: the
    eight layers that public MPIIGaze code uses.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=3, padding=1, bias=False),
        _PreactivationBlock(16, 16, stride=1),
        _PreactivationBlock(16, 32, stride=2),
        _PreactivationBlock(32, 64, stride=2),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
    ), 0


class _PreactivationBlock(nn.Module):
    """Two 3×3 convolutions, each after normalisation and ReLU, around a shortcut."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(num_in), nn.BatchNorm2d(num_out)
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        changes = stride != 1 or num_in != num_out
        self.shortcut = (
            nn.Conv2d(num_in, num_out, 1, stride=stride, bias=False) if changes else nn.Identity()
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Transform maps [N, C, H, W] to [N, C', H/stride, W/stride]."""
        activated = nn.functional.relu(self.norm1(maps))
        # Where the shape changes, the shortcut takes what is normalised, as the authors' code does.
        kept = maps if isinstance(self.shortcut, nn.Identity) else self.shortcut(activated)
        inner = nn.functional.relu(self.norm2(self.conv1(activated)))
        return torch.add(kept, self.conv2(inner))


def _flattened_size(features: nn.Sequential, height: int, width: int, channels: int) -> int:
    try:
        with torch.no_grad():
            return int(features.eval()(torch.zeros(1, channels, height, width)).numel())
    except RuntimeError as error:
        raise InputError(
            f"images of {height}×{width} pixels are too small for this estimator: {error}"
        ) from error
    finally:
        features.train()
