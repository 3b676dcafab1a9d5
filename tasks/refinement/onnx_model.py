"""ONNX models as refiners, run by ONNX Runtime (the extra `onnx`)."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import onnx
import torch
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from torch import Tensor

from simgan_core.errors import InputError
from simgan_core.models.exported_model import (
    Layout,
    ModelInput,
    failed_on,
    file_digest,
    refused_input,
)

_LAYOUTS: dict[str, Layout] = {"tensor(float)": "network", "tensor(uint8)": "pixels"}


class OnnxModel:
    """ONNX model that maps images to images; computed on the GPU where ONNX Runtime has one.

    On a CPU a call computes in one thread: calls may run side by side.
    """

    device = torch.device("cpu")
    """ONNX Runtime takes arrays in memory, wherever it computes."""

    def __init__(self, path: Path) -> None:
        """Load the file; `InputError` where it is none, or ONNX Runtime is not installed."""
        runtime = _runtime()
        self.name = str(path)
        try:
            self.digest = file_digest(path, *_external_files(path))
            options = runtime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 3
            self._session = runtime.InferenceSession(path, options, providers=_providers(runtime))
        except InputError:
            raise
        except Exception as error:  # ONNX's errors have no common base class
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"{path} is not a whole ONNX model: {first}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            found = f"{len(inputs)} inputs and {len(outputs)} outputs"
            raise refused_input(self.name, found)
        (declared,) = inputs
        self._input_name = declared.name
        if declared.type not in _LAYOUTS or len(declared.shape) != 4:
            raise refused_input(self.name, f"{declared.type} {declared.shape}")
        shape = tuple(size if isinstance(size, int) else None for size in declared.shape)
        self.input = ModelInput.of_shape(_LAYOUTS[declared.type], shape)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the model's output; `InputError` where it fails."""
        try:
            (refined,) = self._session.run(None, {self._input_name: images.cpu().numpy()})
        except Exception as error:  # ONNX's errors have no common base class
            raise failed_on(self.name, images, error) from error
        return torch.from_numpy(refined)


def _runtime() -> ModuleType:
    try:
        import onnxruntime  # noqa: PLC0415  an optional extra
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise InputError(
            "refining by an ONNX model needs ONNX Runtime, which is not installed; install the "
            "extra: pip install 'simgan[onnx]'"
        ) from None
    found: ModuleType = onnxruntime
    return found


def _providers(runtime: ModuleType) -> list[str]:
    available = runtime.get_available_providers()
    return [each for each in ("CUDAExecutionProvider", "CPUExecutionProvider") if each in available]


def _external_files(path: Path) -> list[Path]:
    """Return the files beside a model that hold its weights, sorted."""
    model = onnx.load(path, load_external_data=False)
    names = {ExternalDataInfo(tensor).location for tensor in _tensors(model.graph)}
    missing = [name for name in sorted(names) if not (path.parent / name).is_file()]
    if missing:
        raise InputError(
            f"model {path} keeps weights in {missing[0]}, which is not beside it; copy both files, "
            "or export the model into one (external_data=False)"
        )
    return [path.parent / name for name in sorted(names)]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of a graph and of the graphs in it that are kept in other files."""
    for tensor in graph.initializer:
        if uses_external_data(tensor):
            yield tensor
    for node in graph.node:
        for attribute in node.attribute:
            if uses_external_data(attribute.t):
                yield attribute.t
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
