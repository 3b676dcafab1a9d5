"""Image-to-image models as other programs export them: .pt2 by PyTorch, .onnx node by node."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn


class Darker(nn.Module):
    """Images [N, C, H, W] in [−1, 1], darkened by a tenth of the range and slightly smoothed."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.AvgPool2d(3, stride=1, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return (0.9 * images + 0.1 * self.smooth(images) - 0.2).clamp(-1, 1)


def export_pt2(
    path: Path,
    module: nn.Module | None = None,
    shape: tuple[int, ...] = (2, 1, 35, 55),
    *,
    free_batch: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write an exported program for images of this shape; its batch may be of any size or fixed."""
    free = ({0: torch.export.Dim.DYNAMIC},) if free_batch else None
    images = torch.zeros(shape, dtype=dtype)
    program = torch.export.export((module or Darker()).eval(), (images,), dynamic_shapes=free)
    torch.export.save(program, path)
    return path


def write_onnx(
    path: Path,
    shape: Sequence[int | str] = ("N", 1, "H", "W"),
    *,
    scale: float = 0.9,
    kind: int = TensorProto.FLOAT,
    operators: Sequence[str] = (),
    num_inputs: int = 1,
    weights_beside: bool = False,
) -> Path:
    """Write a model that scales images and subtracts 0.1, after some operators of one input."""
    nodes, last = [], "images"
    for operator in operators:
        nodes.append(helper.make_node(operator, [last], [f"{operator}_{last}"]))
        last = f"{operator}_{last}"
    nodes += [
        helper.make_node("Mul", [last, "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["refined"]),
    ]
    values = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    weights = [
        numpy_helper.from_array(np.full((1, 1, 1, 1), scale, values), "scale"),
        numpy_helper.from_array(np.full((1, 1, 1, 1), 0.1, values), "shift"),
    ]
    inputs = [
        helper.make_tensor_value_info(name, kind, shape)
        for name in ["images", "style", "mask"][:num_inputs]
    ]
    free = [f"out_{axis}" for axis in range(4)]
    outputs = [helper.make_tensor_value_info("refined", kind, free)]
    graph = helper.make_graph(nodes, "model", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(
        model,
        path,
        save_as_external_data=weights_beside,
        location=f"{path.name}.data" if weights_beside else None,
        size_threshold=0,
    )
    return path
