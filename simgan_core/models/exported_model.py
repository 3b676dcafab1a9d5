"""Image-to-image models of other programs: their declared input, and exported PyTorch programs.

Shapes: N images, C channels, H × W pixels.
"""

import hashlib
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from simgan_core.errors import InputError
from simgan_core.models.feature_network import load_exported_program

Layout = Literal["network", "pixels"]
"""network: float32 [N, C, H, W] in [−1, 1]; pixels: uint8 [N, H, W, C]."""

EXPECTED_INPUT = "one input, float32 [N, C, H, W] in [−1, 1] or uint8 [N, H, W, C]"


class ModelInput(NamedTuple):
    """Declared input of a model; a free dimension is None."""

    layout: Layout
    batch_size: int | None
    channels: int | None
    height: int | None
    width: int | None
    max_batch_size: int | None = None
    """Upper bound of a free batch dimension, where one is declared."""

    @classmethod
    def of_shape(cls, layout: Layout, shape: tuple[int | None, ...]) -> "ModelInput":
        """Read a shape of four dimensions in the order of its layout."""
        if layout == "pixels":
            batch_size, height, width, channels = shape
        else:
            batch_size, channels, height, width = shape
        return cls(layout, batch_size, channels, height, width)


class ImageModel(Protocol):
    """Image-to-image model of another program."""

    name: str
    """Its file, for messages."""
    digest: str
    """SHA-256 of the file's content, weights beside it included."""
    input: ModelInput
    device: torch.device
    """Device of its input."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the model's output for a batch in the input's layout; raises InputError."""


class ExportedModel:
    """Exported PyTorch program (.pt2) that maps images to images, on one device."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Load the file; `InputError` where it is no such program or could run code."""
        self.name, self.device = str(path), device
        program = load_exported_program(path)
        self.digest = file_digest(path)
        self.input = _declared_input(path, program)
        self._run = move_to_device_pass(program, device).module()

    def __call__(self, images: Tensor) -> Tensor:
        """Return the program's output; `InputError` where it fails or gives more than a tensor."""
        try:
            refined = self._run(images)
        except Exception as error:  # whatever an operator of the program raises
            raise failed_on(self.name, images, error) from error
        if not isinstance(refined, Tensor):
            raise InputError(
                f"model {self.name}: expected one tensor as its output, found "
                f"{type(refined).__name__}; export a module whose forward returns the images alone"
            )
        return refined


def file_digest(*paths: Path) -> str:
    """Return the SHA-256 of the files' contents, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def failed_on(name: str, images: Tensor, error: Exception) -> InputError:
    """Return the error of a model that raised while it ran."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return InputError(
        f"model {name} failed on images {list(images.shape)}: {first}; export it for images of "
        "this size, or with free height and width"
    )


def refused_input(name: str, found: str) -> InputError:
    """Return the error of a model whose declared input is another."""
    return InputError(
        f"model {name}: expected {EXPECTED_INPUT}, found {found}; export a module that takes this"
    )


def _declared_input(path: Path, program: torch.export.ExportedProgram) -> ModelInput:
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise refused_input(str(path), f"{len(names)} inputs")
    (declared,) = (
        node.meta.get("val")
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name == names[0]
    )
    if not isinstance(declared, Tensor):
        raise refused_input(str(path), type(declared).__name__)
    layouts: dict[torch.dtype, Layout] = {torch.float32: "network", torch.uint8: "pixels"}
    layout = layouts.get(declared.dtype)
    if layout is None or declared.dim() != 4:
        kind = str(declared.dtype).removeprefix("torch.")
        raise refused_input(str(path), f"{kind} {list(declared.shape)}")
    shape = tuple(size if isinstance(size, int) else None for size in declared.shape)
    upper_bound = _upper_bound(program, declared.shape[0])
    return ModelInput.of_shape(layout, shape)._replace(max_batch_size=upper_bound)


def _upper_bound(program: torch.export.ExportedProgram, size: int | torch.SymInt) -> int | None:
    """Return the largest value of a free dimension; None without a bound, or of a fixed one."""
    if isinstance(size, int):
        return None
    bounds = program.range_constraints.get(size.node.expr)
    return int(bounds.upper) if bounds is not None and bounds.upper.is_Integer else None
