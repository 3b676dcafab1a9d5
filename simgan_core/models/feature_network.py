"""Feature network for ψ: an exported program, or one of our own estimators.

An exported program takes images [N, C, H, W] in [−1, 1], N free, and gives maps [N, F, h, w] or a
tuple of such. Loading one runs no code of the file's as far as can be checked beforehand, but
PyTorch makes no promise for its format: take programs from people you trust.
"""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from simgan_core.errors import InputError
from simgan_core.models.estimator import load_estimator

# Names, numbers and operators; what is called is one of sympy's classes, which begin with a capital
# letter, as no function of Python does.
_HARMLESS_EXPRESSION = re.compile(
    r"(?:Symbol\('\w+'|[A-Z][A-Za-z]*\(|\w++(?!\()|[\s+\-*/%(),<>=])*+"
)


def load_feature_network(path: Path, device: torch.device) -> nn.Module:
    """Return the network in a .pt2 file, or an estimator's convolutions, frozen and on `device`.

    Raises InputError where the file is neither, or could run code.
    """
    network: nn.Module
    if path.suffix == ".pt2":
        program = load_exported_program(path)
        network = move_to_device_pass(program, device).module()
    else:
        network = load_estimator(path).features.eval().to(device)
    return network.requires_grad_(False)


def load_exported_program(path: Path) -> torch.export.ExportedProgram:
    """Read what `torch.export.save` wrote; `InputError` where it is not that, or holds pickles."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            _require_harmless(archive)
        return torch.export.load(path)
    except InputError:
        raise
    except Exception as error:  # damaged bytes fail anywhere in the reader
        raise InputError(f"{path} is not a whole exported program: {error}") from error


def _require_harmless(archive: zipfile.ZipFile) -> None:
    """Refuse what `torch.export.load` would unpickle, compile or evaluate freely."""
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise InputError(f"{archive.filename} holds two files of one name")
    for name in names:
        if "/data/aotinductor/" in name or name.endswith((".so", ".cpp", ".py")):
            raise InputError(f"{archive.filename} holds compiled code ({name})")
        if name.endswith("_config.json") and _is_pickled(json.loads(archive.read(name))):
            raise InputError(f"{archive.filename} holds pickled objects ({name})")
        if "/models/" in name:
            _require_plain_expressions(archive, json.loads(archive.read(name)))
        if "/data/" in name and name.endswith(".pt"):
            try:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            except Exception as error:
                raise InputError(f"{archive.filename}: {name} holds more than tensors") from error


def _is_pickled(payloads: dict[str, Any]) -> bool:
    return any(
        payload["use_pickle"] or not payload["path_name"].startswith(("weight_", "tensor_"))
        for payload in payloads["config"].values()
    )


def _require_plain_expressions(archive: zipfile.ZipFile, content: Any) -> None:
    """Refuse sizes that are more than arithmetic: PyTorch hands them to an evaluator."""
    if isinstance(content, dict):
        expression = content.get("expr_str", "")
        if "__" in expression or not _HARMLESS_EXPRESSION.fullmatch(expression):
            raise InputError(f"{archive.filename} holds the size {expression!r}")
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            _require_plain_expressions(archive, part)
