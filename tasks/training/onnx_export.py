"""ONNX export of a refiner: pixels in, pixels out.

The graph is written out node by node: the network is a dozen operators, and PyTorch's exporter
needs half a minute and a package of its own for it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from simgan_core.models.checkpoint import LoadedRefiner
from simgan_core.models.refiner import Refiner

_OPSET = 17
_IR_VERSION = 8
"""Both versions are of 2022: every runtime since then reads them."""


def save_onnx(path: Path, loaded: LoadedRefiner) -> None:
    """Write a refiner as a graph `images` → `refined`, pixels [N, H, W, C], any N."""
    graph = _Graph()
    kind = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16}[loaded.pixels]
    white = {"uint8": 255.0, "uint16": 65535.0}[loaded.pixels]
    images = graph.add("Cast", "images", to=TensorProto.FLOAT)
    images = graph.add("Transpose", images, perm=[0, 3, 1, 2])
    # The order of to_network, so that rounding is the same.
    images = graph.add("Sub", graph.add("Mul", images, graph.number(2.0 / white)), graph.number(1))
    output = _layers(graph, loaded.refiner, images)
    output = graph.add("Add", output, graph.number(1))
    output = graph.add("Mul", output, graph.number(white / 2))
    output = graph.add("Clip", graph.add("Round", output), graph.number(0), graph.number(white))
    output = graph.add("Transpose", output, perm=[0, 2, 3, 1])
    graph.add("Cast", output, to=kind, output="refined")
    shape: list[str | int] = ["N", loaded.image_height, loaded.image_width, loaded.channels]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "refiner",
            [helper.make_tensor_value_info("images", kind, shape)],
            [helper.make_tensor_value_info("refined", kind, shape)],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="simgan",
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)


class _Graph:
    """Nodes and weights of an ONNX graph, named by number in order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node; return its output's name."""
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def number(self, value: float) -> str:
        """Add a constant; return its name."""
        return self.array(np.array(value, dtype=np.float32))

    def weight(self, values: Tensor | None) -> str:
        """Add a layer's weights; return their name."""
        assert values is not None
        return self.array(values.detach().float().contiguous().numpy())

    def array(self, values: NDArray[np.float32]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name


def _layers(graph: _Graph, refiner: Refiner, images: str) -> str:
    """Add the network between its input and output in [−1, 1], `Refiner.forward`."""

    def convolved(layer: object, inputs: str) -> str:
        weight, bias = layer.weight, layer.bias  # type: ignore[attr-defined]
        side = weight.shape[2]
        return graph.add(
            "Conv",
            inputs,
            graph.weight(weight),
            graph.weight(bias),
            kernel_shape=[side, side],
            pads=[side // 2] * 4,
        )

    features = graph.add("Relu", convolved(refiner.first, images))
    for block in refiner.blocks:
        change = convolved(block.second, graph.add("Relu", convolved(block.first, features)))
        features = graph.add("Relu", graph.add("Add", change, features))
    output = convolved(refiner.last, features)
    if not refiner.config.residual:
        return graph.add("Tanh", output)
    refined = graph.add("Add", images, output)
    return graph.add("Clip", refined, graph.number(-1), graph.number(1))
