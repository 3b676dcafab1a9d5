"""ONNX export of a refiner: pixels in, pixels out.

The graph is written out node by node: the network is a dozen operators, and PyTorch's exporter
needs half a minute and a package of its own for it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from simgan_core.models.bilateral import (
    NOISE_SIDE_PX,
    PLACE_SCALE,
    SHARPEST_PX,
    BilateralRefiner,
    interpolation,
    pooling,
    tone_segments,
)
from simgan_core.models.checkpoint import LoadedRefiner
from simgan_core.models.refiner import ConvolutionalRefiner

_OPSET = 17
_IR_VERSION = 8
"""Both versions are of 2022: every runtime since then reads them."""


def save_onnx(path: Path, loaded: LoadedRefiner) -> None:
    """Write a refiner as a graph `images` → `refined`, pixels [N, H, W, C], any N.

    A refiner of the bilateral family also takes `style`, float32 [N, 8], standard normal.
    """
    graph = _Graph()
    kind = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16}[loaded.pixels]
    white = {"uint8": 255.0, "uint16": 65535.0}[loaded.pixels]
    images = graph.add("Cast", "images", to=TensorProto.FLOAT)
    images = graph.add("Transpose", images, perm=[0, 3, 1, 2])
    # The order of to_network, so that rounding is the same.
    images = graph.add("Sub", graph.add("Mul", images, graph.number(2.0 / white)), graph.number(1))
    refiner = loaded.refiner
    shape: list[str | int] = ["N", loaded.image_height, loaded.image_width, loaded.channels]
    inputs = [helper.make_tensor_value_info("images", kind, shape)]
    if isinstance(refiner, BilateralRefiner):
        size = loaded.image_height, loaded.image_width
        output = _Bilateral(graph, refiner, size).add(images, "style")
        style_shape: list[str | int] = ["N", refiner.style_size]
        inputs.append(helper.make_tensor_value_info("style", TensorProto.FLOAT, style_shape))
    else:
        assert isinstance(refiner, ConvolutionalRefiner)
        output = _convolutional(graph, refiner, images)
    output = graph.add("Add", output, graph.number(1))
    output = graph.add("Mul", output, graph.number(white / 2))
    output = graph.add("Clip", graph.add("Round", output), graph.number(0), graph.number(white))
    output = graph.add("Transpose", output, perm=[0, 2, 3, 1])
    graph.add("Cast", output, to=kind, output="refined")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "refiner",
            inputs,
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

    def array(self, values: NDArray[np.float32] | NDArray[np.int64]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def integers(self, *values: int) -> str:
        """Add a constant vector; return its name."""
        return self.array(np.array(values, dtype=np.int64))


def _convolutional(graph: _Graph, refiner: ConvolutionalRefiner, images: str) -> str:
    """Add the network between its input and output in [−1, 1], `ConvolutionalRefiner.forward`."""
    features = graph.add("Relu", _convolved(graph, refiner.first, images))
    for block in refiner.blocks:
        first, second = block.first, block.second
        change = _convolved(graph, second, graph.add("Relu", _convolved(graph, first, features)))
        features = graph.add("Relu", graph.add("Add", change, features))
    output = _convolved(graph, refiner.last, features)
    if not refiner.config.residual:
        return graph.add("Tanh", output)
    return _clipped(graph, graph.add("Add", images, output))


class _Bilateral:
    """Adds `BilateralRefiner.forward`, step by step as it is there."""

    def __init__(self, graph: _Graph, refiner: BilateralRefiner, size: tuple[int, int]) -> None:
        self._graph = graph
        self._refiner = refiner
        self._size = size

    def add(self, images: str, style: str) -> str:
        """Add the network between its inputs, images in [−1, 1] and styles, and its output."""
        graph, config = self._graph, self._refiner.config
        grid, degradation = self._prediction(images, style)
        refined = self._through_curves(images, grid)
        strengths = graph.add("Sigmoid", degradation)
        if config.max_blur_px > 0:
            blur = graph.add("Mul", self._column(strengths, 0), graph.number(config.max_blur_px))
            refined = self._blurred(refined, graph.add("Add", blur, graph.number(SHARPEST_PX)))
        if config.max_noise_levels > 0:
            scale = graph.number(config.max_noise_levels * 2 / 255)
            noise = graph.add("Mul", self._column(strengths, 1), scale)
            noise = graph.add("Mul", self._as_maps(noise), self._noise_of(style))
            refined = graph.add("Add", refined, noise)
        return _clipped(graph, refined)

    def _prediction(self, images: str, style: str) -> tuple[str, str]:
        graph, refiner = self._graph, self._refiner
        hidden = self._linear(refiner.style[0], style)
        hidden = self._linear(refiner.style[2], graph.add("Relu", hidden))
        if not refiner.config.sees_image:
            hidden = graph.add("Relu", hidden)
            cells = self._linear(refiner.curves, hidden)
            maps = refiner.channels * (1 + refiner.config.grey_segments)
            shape = graph.integers(0, maps, refiner.config.grid_height, refiner.config.grid_width)
            grid = graph.add("Reshape", cells, shape)
            return grid, self._linear(refiner.degradation, hidden)
        features = images
        height, width = self._size
        for layer in refiner.encoder:
            if isinstance(layer, nn.Conv2d):
                features = _convolved(graph, layer, features)
                height, width = -(-height // 2), -(-width // 2)
            else:
                features = graph.add("Relu", features)
        mean = graph.add("ReduceMean", features, axes=[2, 3], keepdims=0)
        like = torch.empty(0)
        down = graph.weight(pooling(height, refiner.config.grid_height, like))
        across = graph.weight(pooling(width, refiner.config.grid_width, like).T)
        pooled = graph.add("MatMul", graph.add("MatMul", down, features), across)
        hidden = graph.add("Add", hidden, self._linear(refiner.summary, mean))
        everywhere = graph.add("Unsqueeze", hidden, graph.integers(2, 3))
        local = graph.add("Add", _convolved(graph, refiner.local, pooled), everywhere)
        grid = _convolved(graph, refiner.curves, graph.add("Relu", local))
        both = graph.add("Concat", mean, style, axis=1)
        return grid, self._linear(refiner.degradation, both)

    def _through_curves(self, images: str, grid: str) -> str:
        graph, config = self._graph, self._refiner.config
        channels, segments = self._refiner.channels, config.grey_segments
        height, width = self._size
        like = torch.empty(0)
        down = graph.weight(interpolation(height, config.grid_height, like))
        across = graph.weight(interpolation(width, config.grid_width, like).T)

        def sliced(cells: str) -> str:
            return graph.add("MatMul", graph.add("MatMul", down, cells), across)

        def maps_from(first: int) -> str:
            # Maps of a channel follow one another.
            chosen = range(first, channels * (1 + segments), 1 + segments)
            return graph.add("Gather", grid, graph.integers(*chosen), axis=1)

        refined = sliced(maps_from(0))
        bound = graph.number(config.max_log_gain)
        for segment, (darkest, lightest) in enumerate(tone_segments(segments)):
            gain = graph.add(
                "Mul", graph.add("Tanh", graph.add("Div", maps_from(1 + segment), bound)), bound
            )
            way = graph.add("Clip", images, graph.number(darkest), graph.number(lightest))
            way = graph.add("Sub", way, graph.number(min(max(0.0, darkest), lightest)))
            way = graph.add("Mul", graph.add("Exp", sliced(gain)), way)
            refined = graph.add("Add", refined, way)
        return refined

    def _blurred(self, images: str, sd_px: str) -> str:
        graph = self._graph
        variance = self._as_maps(graph.add("Mul", sd_px, sd_px))

        def gaussian(size: int) -> str:
            place = torch.arange(size).float()
            exponent = -0.5 * (place[:, None] - place).square()[None, None]
            weights = graph.add("Exp", graph.add("Div", graph.weight(exponent), variance))
            total = graph.add("ReduceSum", weights, graph.integers(3), keepdims=1)
            return graph.add("Div", weights, total)

        height, width = self._size
        across = graph.add("Transpose", gaussian(width), perm=[0, 1, 3, 2])
        return graph.add("MatMul", graph.add("MatMul", gaussian(height), images), across)

    def _noise_of(self, style: str) -> str:
        graph = self._graph
        height, width = self._size
        side = graph.integers(NOISE_SIDE_PX)

        def places(number: int, size: int) -> str:
            scaled = graph.add("Mul", self._column(style, number), graph.number(PLACE_SCALE))
            part = graph.add("Sub", scaled, graph.add("Floor", scaled))
            part = graph.add("Mul", part, graph.number(NOISE_SIDE_PX))
            place = graph.add("Cast", part, to=TensorProto.INT64)
            return graph.add("Mod", graph.add("Add", place, graph.integers(*range(size))), side)

        rows = graph.add("Unsqueeze", graph.add("Mul", places(0, height), side), graph.integers(2))
        columns = graph.add("Unsqueeze", places(1, width), graph.integers(1))
        noise = graph.weight(self._refiner.noise.flatten(1))
        found = graph.add("Gather", noise, graph.add("Add", rows, columns), axis=1)
        return graph.add("Transpose", found, perm=[1, 0, 2, 3])

    def _linear(self, layer: object, inputs: str) -> str:
        weight, bias = layer.weight, layer.bias  # type: ignore[attr-defined]
        return self._graph.add(
            "Gemm", inputs, self._graph.weight(weight), self._graph.weight(bias), transB=1
        )

    def _column(self, numbers: str, column: int) -> str:
        """Return a column of [N, K] as [N, 1]."""
        return self._graph.add("Gather", numbers, self._graph.integers(column), axis=1)

    def _as_maps(self, numbers: str) -> str:
        """Return [N, 1] as [N, 1, 1, 1]."""
        return self._graph.add("Unsqueeze", numbers, self._graph.integers(2, 3))


def _convolved(graph: _Graph, layer: object, inputs: str) -> str:
    weight, bias = layer.weight, layer.bias  # type: ignore[attr-defined]
    side = weight.shape[2]
    return graph.add(
        "Conv",
        inputs,
        graph.weight(weight),
        graph.weight(bias),
        kernel_shape=[side, side],
        pads=[side // 2] * 4,
        strides=list(layer.stride),  # type: ignore[attr-defined]
    )


def _clipped(graph: _Graph, images: str) -> str:
    return graph.add("Clip", images, graph.number(-1), graph.number(1))
