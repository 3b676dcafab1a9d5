"""Checkpoints of weights: written atomically, loaded without unpickling code.

A file holds tensors, numbers, text and plain containers only; `torch.load` with `weights_only`
refuses everything else, so a file from a stranger is as harmless as a picture.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simgan_core.atomic_file import atomic_write
from simgan_core.config import TrainingConfig
from simgan_core.errors import InputError
from simgan_core.models.families import new_refiner
from simgan_core.models.refiner import Refiner

_TRAINING, _REFINER = "simgan training 1", "simgan refiner 1"
"""Kinds of files, with the version of their layout."""


@dataclass(frozen=True)
class LoadedRefiner:
    """Refiner loaded from a file, with its metadata."""

    refiner: Refiner
    """In eval mode, on the CPU."""
    config: TrainingConfig
    """Training configuration."""
    channels: int
    image_height: int
    image_width: int
    preprocess: str
    """Preprocessing of the training images."""
    pixels: str
    """Pixel type of the training images: uint8 or uint16."""
    metadata: dict[str, Any]
    """Metadata as given to `save_refiner`, the four above included."""
    weights_digest: str


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a training checkpoint atomically (`atomic_write`)."""
    _save(path, _TRAINING, content)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a training checkpoint, tensors on the CPU; `InputError` for any other file."""
    return _load(path, _TRAINING)


def save_refiner(
    path: Path, refiner: Refiner, config: TrainingConfig, metadata: Mapping[str, Any]
) -> None:
    """Write a refiner's weights with its configuration and metadata.

    `metadata` is anything that JSON can hold, and among it `image_height` and `image_width` in
    pixels, `preprocess` and `pixels` (their type), those of the training images; `InputError` where
    one is missing.
    """
    _require_described(path, metadata)
    content = {
        "config": config.model_dump_json(),
        "channels": refiner.channels,
        "metadata": json.dumps(metadata),
        "weights": {name: tensor.cpu() for name, tensor in refiner.state_dict().items()},
        "weights_digest": weights_digest(refiner),
    }
    _save(path, _REFINER, content)


def load_refiner(path: Path) -> LoadedRefiner:
    """Read a refiner; `InputError` where the file is another or damaged."""
    content = _load(path, _REFINER)
    try:
        config = TrainingConfig.model_validate_json(content["config"])
        metadata = json.loads(content["metadata"])
        refiner = _rebuild(config, content["channels"], content["weights"])
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole refiner: {_first_line(error)}") from error
    digest = weights_digest(refiner)
    if digest != content.get("weights_digest"):
        raise InputError(f"{path} is damaged: its weights are not the ones that were saved")
    _require_described(path, metadata)
    return LoadedRefiner(
        refiner=refiner,
        config=config,
        channels=refiner.channels,
        image_height=metadata["image_height"],
        image_width=metadata["image_width"],
        preprocess=metadata["preprocess"],
        pixels=metadata["pixels"],
        metadata=metadata,
        weights_digest=digest,
    )


def save_weights(path: Path, kind: str, network: nn.Module) -> None:
    """Write the weights of a network of a kind ("simgan landmarks 1"), which loading asks for."""
    weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    _save(path, kind, {"weights": weights, "weights_digest": tensors_digest(weights)})


def load_weights(path: Path, kind: str, network: nn.Module) -> None:
    """Load weights of a kind into their network; `InputError` for another or a damaged file."""
    content = _load(path, kind)
    try:
        network.load_state_dict(content["weights"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} does not fit the network: {_first_line(error)}") from error
    if tensors_digest(network.state_dict()) != content.get("weights_digest"):
        raise InputError(f"{path} is damaged: its weights are not the ones that were saved")


def weights_digest(refiner: Refiner) -> str:
    """Return the digest of a refiner's weights."""
    return tensors_digest(refiner.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of names, types, shapes and values in row-major order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _rebuild(config: TrainingConfig, channels: int, weights: dict[str, Tensor]) -> Refiner:
    """Build the refiner of these weights; `ValueError` where they are another network's."""
    # On "meta" nothing is allocated: a file cannot make a huge network before it is checked.
    with torch.device("meta"):
        refiner = new_refiner(config, channels)
    expected = {name: (value.shape, value.dtype) for name, value in refiner.state_dict().items()}
    found = {name: (value.shape, value.dtype) for name, value in weights.items()}
    if found != expected:
        raise ValueError("the weights do not fit the network that the file describes")
    refiner.load_state_dict(
        {name: value.contiguous() for name, value in weights.items()}, assign=True
    )
    return refiner.eval()


def _require_described(path: Path, metadata: Mapping[str, Any]) -> None:
    kinds = {"image_height": int, "image_width": int, "preprocess": str, "pixels": str}
    for name, kind in kinds.items():
        if not isinstance(metadata.get(name), kind):
            raise InputError(
                f"refiner {path}: metadata {name!r} should be of type {kind.__name__}, "
                f"found {metadata.get(name)!r}"
            )


def _save(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        torch.save({"kind": kind, **content}, file)


def _load(path: Path, kind: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes fail anywhere in the reader
        raise InputError(
            f"{path} is damaged or holds more than weights; nothing in it was run "
            f"({_first_line(error)})"
        ) from error
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise InputError(f"{path} is not a file of the kind '{kind}'")
    return content


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
