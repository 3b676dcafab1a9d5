"""A convolution with the sum and the ReLU after it, in one pass over memory where that is faster.

In bfloat16 on CPUs a convolution of 64 maps takes little longer than reading and writing them, so
every pass more counts. oneDNN has them in one; PyTorch
reaches it through operators that its own compiler uses and that are not documented, so elsewhere,
and where they are missing, the same is computed by the usual ones.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_STEP = (1, 1)
"""Stride and dilation."""


def convolve(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    added: Tensor | None = None,
) -> Tensor:
    """Return relu(conv(images) + added): [N, C, H, W] gives [N, F, H, W], edges padded with zeros.

    `weight` is [F, C, k, k] with an odd k, `bias` [F], `added` [N, F, H, W]. It computes in
    autocast's number format, and else in that of the images, which must then be the weight's too.
    Sum and ReLU are made before the result is rounded where they are fused, and after where not.
    """
    if torch.is_autocast_enabled(images.device.type):
        images = images.to(torch.get_autocast_dtype(images.device.type))
    if not _is_faster_fused(images):
        change = functional.conv2d(images, weight, bias, padding=weight.shape[-1] // 2)
        # In place: on CPUs fresh memory for each costs a fifth of a step.
        return (change if added is None else change.add_(added)).relu_()
    weight = weight.to(images.dtype)
    bias = None if bias is None else bias.to(images.dtype)
    if not torch.is_grad_enabled():
        return _fused(images, weight, bias, added)
    result: Tensor = _Fused.apply(images, weight, bias, added)  # type: ignore[no-untyped-call]
    return result


def packed(weight: Tensor, num_images: int, height: int, width: int) -> Tensor:
    """Return a weight [F, C, k, k] in the layout that `convolve` is fastest with, for such images.

    For inference alone, and for nothing but `convolve`. Where no fused operator is used it is the
    weight itself.
    """
    if not _is_faster_fused(weight):
        return weight
    padding = (weight.shape[-1] // 2,) * 2
    images_shape = (num_images, weight.shape[1], height, width)
    reordered: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        *(weight, padding, _STEP, _STEP, 1, images_shape)
    )
    return reordered


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, added: Tensor | None
    ) -> Tensor:
        result = _fused(images, weight, bias, added)
        ctx.save_for_backward(images, weight, result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, result = ctx.saved_tensors
        of_images, of_weight, of_bias, of_added = ctx.needs_input_grad
        gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
        padding = (weight.shape[-1] // 2,) * 2
        gradients = torch.ops.aten.convolution_backward(
            *(gradient, images, weight, [len(weight)], _STEP, padding, _STEP),
            *(False, (0, 0), 1, (of_images, of_weight, of_bias)),
        )
        return *gradients, gradient if of_added else None


def _fused(images: Tensor, weight: Tensor, bias: Tensor | None, added: Tensor | None) -> Tensor:
    operator = torch.ops.mkldnn._convolution_pointwise
    padding = (weight.shape[-1] // 2,) * 2
    operands = (weight, bias, padding, _STEP, _STEP, 1)  # padding, stride, dilation, groups
    result: Tensor
    if added is None:
        result = operator(images, *operands, "relu", [], "")
    else:
        result = operator.binary(images, added, *operands, "add", 1.0, "relu", [], "")
    return result


def _is_faster_fused(values: Tensor) -> bool:
    """Whether oneDNN's fused operator is there and better: in fp32 it gains nothing."""
    is_bf16_on_cpu = values.device.type == "cpu" and values.dtype is torch.bfloat16
    return is_bf16_on_cpu and _HAS_OPERATOR


def _has_operator() -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    names = ("_convolution_pointwise", "_reorder_convolution_weight", "_is_mkldnn_bf16_supported")
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


_HAS_OPERATOR = _has_operator()
