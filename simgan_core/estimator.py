"""The gaze estimator: an image of an eye in, the direction of gaze out.

Shapes: N images, C channels, H × W pixels.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError

_KIND = "simgan estimator 1"
"""What a file says that it is, with the version of its layout."""


class Estimator(nn.Module):
    """Images [N, C, H, W] in [−1, 1] to gaze, float32 unit vectors [N, 3] in the camera's frame.

    The last layer gives a vector of any length, as the paper's does; its direction is the answer.
    There are no normalisation layers: train and eval mode compute the same, and so do an image
    alone and in a batch.
    """

    def __init__(self, config: EstimatorConfig, height: int, width: int, channels: int) -> None:
        super().__init__()
        self.config = config
        self.image_shape = (height, width, channels)
        """H, W, C of the images that the last layers fit."""
        layers = {"compact": _compact_layers, "paper": _paper_layers}[config.architecture]
        self.features, num_hidden = layers(channels)
        num_features = _flattened_size(self.features, height, width, channels)
        self.head = nn.Sequential(
            nn.Linear(num_features, num_hidden), nn.ReLU(inplace=True), nn.Linear(num_hidden, 3)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Estimate the gaze [N, 3] in images [N, C, H, W]."""
        vectors = self.head(self.features(images).flatten(1)).float()
        return nn.functional.normalize(vectors, dim=1)


def build_estimator(config: EstimatorConfig, height: int, width: int, channels: int) -> Estimator:
    """Make an estimator for images of this size, its weights from torch's generator.

    Raises InputError where the images are too small for the layers.
    """
    return Estimator(config, height, width, channels)


def save_estimator(path: Path, estimator: Estimator) -> None:
    """Write the weights and all that using them needs; `path` holds the old or the new whole."""
    content = {
        "kind": _KIND,
        "config": estimator.config.model_dump_json(),
        "image_shape": json.dumps(estimator.image_shape),
        "weights": {name: value.cpu() for name, value in estimator.state_dict().items()},
    }
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    partial.replace(path)


def load_estimator(path: Path) -> Estimator:
    """Read an estimator, on the CPU and in eval mode; nothing in the file is run.

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
    return estimator.eval()


def _compact_layers(channels: int) -> tuple[nn.Sequential, int]:
    """Return the convolutions for CPUs and the width of the layer after them.

    Three strides and no pooling: 1.5 M multiplications an image of 35 × 55, a seventieth of the
    paper's; where an edge is survives the strides in the values of the maps.
    """
    return nn.Sequential(
        *(nn.Conv2d(channels, 16, kernel_size=5, stride=2, padding=2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1), nn.ReLU(inplace=True)),
    ), 128


def _paper_layers(channels: int) -> tuple[nn.Sequential, int]:
    """Return the paper's layers (SimGAN, §3.1): 9600 values of an image of 35 × 55, then 1000."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, kernel_size=3), nn.ReLU(inplace=True)),
        *(nn.Conv2d(32, 32, kernel_size=3), nn.ReLU(inplace=True)),
        *(nn.Conv2d(32, 64, kernel_size=3), nn.ReLU(inplace=True)),
        nn.MaxPool2d(kernel_size=3, stride=2),
        *(nn.Conv2d(64, 80, kernel_size=3), nn.ReLU(inplace=True)),
        *(nn.Conv2d(80, 192, kernel_size=3), nn.ReLU(inplace=True)),
        nn.MaxPool2d(kernel_size=2, stride=2),
    ), 1000


def _flattened_size(features: nn.Sequential, height: int, width: int, channels: int) -> int:
    try:
        with torch.no_grad():
            return int(features(torch.zeros(1, channels, height, width)).numel())
    except RuntimeError as error:
        raise InputError(
            f"images of {height}×{width} pixels are too small for this estimator: {error}"
        ) from error
