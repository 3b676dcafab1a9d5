"""Convolution fused with addition and ReLU, in one pass over memory where that is faster.

In bfloat16 a convolution of 64 maps takes little longer than reading and writing them, so every
pass more counts. oneDNN (on CPUs) and cuDNN (on GPUs) have all in one; PyTorch reaches them through
operators that its own compilers use and that are not documented, so elsewhere, and where they are
missing, the same is computed by the usual ones.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_STEP = (1, 1)
"""Stride and dilation."""
_FEW_CHANNELS = 8
"""Below, cuDNN leaves a GPU's matrix units idle, and a product with all patches is faster."""


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
    if weight.device.type != "cpu" or not _is_faster_fused(weight):
        return weight
    padding = (weight.shape[-1] // 2,) * 2
    images_shape = (num_images, weight.shape[1], height, width)
    reordered: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight, padding, _STEP, _STEP, 1, images_shape
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
        by_product = _is_product(images) and not of_images
        padding = (weight.shape[-1] // 2,) * 2
        gradients = torch.ops.aten.convolution_backward(
            gradient,
            images,
            weight,
            [len(weight)],
            _STEP,  # stride
            padding,
            _STEP,  # dilation
            False,  # transposed
            (0, 0),  # output padding
            1,  # groups
            (of_images, of_weight and not by_product, of_bias and not gradient.is_cuda),
        )
        by_images, by_weight, by_bias = gradients
        if of_weight and by_product:
            patches = _patches(images, weight.shape[-1])
            by_weight = _as_rows(gradient).T @ patches
            by_weight = by_weight[:, : weight[0].numel()].reshape(weight.shape)
        if of_bias and gradient.is_cuda:
            rows = _as_rows(gradient)
            # As a product: the sum over a channels-last axis takes twice as long.
            by_bias = rows.new_ones(len(rows)) @ rows
        return by_images, by_weight, by_bias, gradient if of_added else None


def _fused(images: Tensor, weight: Tensor, bias: Tensor | None, added: Tensor | None) -> Tensor:
    padding = (weight.shape[-1] // 2,) * 2
    if images.is_cuda:
        if bias is not None and added is None and _is_product(images):
            return _product_with_patches(images, weight, bias)
        how = (bias, _STEP, padding, _STEP, 1)  # stride, padding, dilation, groups
        if added is None:
            return torch.cudnn_convolution_relu(images, weight, *how)
        return torch.cudnn_convolution_add_relu(images, weight, added, 1.0, *how)
    operator = torch.ops.mkldnn._convolution_pointwise
    operands = (weight, bias, padding, _STEP, _STEP, 1)  # padding, stride, dilation, groups
    result: Tensor
    if added is None:
        result = operator(images, *operands, "relu", [], "")
    else:
        result = operator.binary(images, added, *operands, "add", 1.0, "relu", [], "")
    return result


def _product_with_patches(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return relu(conv(images)) as a product of matrices."""
    patches = _patches(images, weight.shape[-1])
    matrix = weight.new_zeros(len(weight), patches.shape[1])
    matrix[:, : weight[0].numel()] = weight.flatten(1)
    rows = torch._addmm_activation(bias, patches, matrix.T)
    num_images, _, height, width = images.shape
    return rows.view(num_images, height, width, -1).permute(0, 3, 1, 2)


def _patches(images: Tensor, size: int) -> Tensor:
    """Return each pixel's patch [N·H·W, K] (im2col), K the next multiple of 8 to C·size·size."""
    num_images, channels, height, width = images.shape
    padded = functional.pad(images, (size // 2,) * 4)
    windows = padded.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5)
    length = channels * size * size
    # Matrix units take rows of 16 bytes.
    patches = images.new_zeros(num_images, height, width, -(-length // 8) * 8)
    patches[..., :length].view(windows.shape).copy_(windows)
    return patches.flatten(0, 2)


def _as_rows(maps: Tensor) -> Tensor:
    """Return maps [N, F, H, W] as [N·H·W, F]."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def _is_product(images: Tensor) -> bool:
    return images.is_cuda and images.shape[1] < _FEW_CHANNELS


def _is_faster_fused(values: Tensor) -> bool:
    """Return true where there is a fused operator that is faster: in fp32 it gains nothing."""
    if values.dtype is not torch.bfloat16:
        return False
    if values.device.type == "cpu":
        return _HAS_OPERATOR
    return values.is_cuda and torch.version.hip is None


def _has_operator() -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    names = ("_convolution_pointwise", "_reorder_convolution_weight", "_is_mkldnn_bf16_supported")
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


_HAS_OPERATOR = _has_operator()
