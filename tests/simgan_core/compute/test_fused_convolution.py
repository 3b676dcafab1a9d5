import pytest
import torch
from torch.nn.functional import conv2d

from simgan_core.compute import fused_convolution
from simgan_core.compute.fused_convolution import convolve, packed
from simgan_core.config import RefinerConfig
from simgan_core.models.refiner import ConvolutionalRefiner

needs_operator = pytest.mark.skipif(
    not fused_convolution._HAS_OPERATOR, reason="this machine's PyTorch has no fused bf16 operator"
)


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)
    return drawn.to(memory_format=torch.channels_last) if len(shape) == 4 else drawn


IMAGES, WEIGHT, BIAS = values(3, 8, 9, 11), values(6, 8, 3, 3, seed=1), values(6, seed=2)
ADDED = values(3, 6, 9, 11, seed=3)


def exactly(*operands: torch.Tensor) -> torch.Tensor:
    """Compute relu(conv(images) + added) in float64."""
    images, weight, bias, *added = (operand.double() for operand in operands)
    return (conv2d(images, weight, bias, padding=weight.shape[-1] // 2) + sum(added)).relu()


@pytest.mark.parametrize("added", [(), (ADDED,)], ids=["alone", "added"])
@pytest.mark.parametrize("has_operator", [pytest.param(True, marks=needs_operator), False])
def test_the_result_is_that_of_float64_rounded(
    monkeypatch: pytest.MonkeyPatch, has_operator: bool, added: tuple[torch.Tensor, ...]
) -> None:
    monkeypatch.setattr(fused_convolution, "_HAS_OPERATOR", has_operator)
    result = convolve(IMAGES, WEIGHT, BIAS, *added)
    expected = exactly(IMAGES, WEIGHT, BIAS, *added)
    assert result.dtype is torch.bfloat16
    torch.testing.assert_close(result.double(), expected, rtol=2**-7, atol=2**-5)


@needs_operator
def test_gradients_are_those_of_float64() -> None:
    operands = [operand.clone().requires_grad_() for operand in (IMAGES, WEIGHT, BIAS, ADDED)]
    doubles = [operand.detach().double().requires_grad_() for operand in operands]
    convolve(*operands).square().sum().backward()
    exactly(*doubles).square().sum().backward()
    for operand, double in zip(operands, doubles, strict=True):
        error = (operand.grad.double() - double.grad).norm() / double.grad.norm()
        assert error < 0.01


@needs_operator
def test_under_autocast_float32_weights_get_float32_gradients() -> None:
    weight = WEIGHT.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = convolve(IMAGES.float(), weight, BIAS.float())
    result.sum().backward()
    assert (result.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)


@needs_operator
def test_a_packed_weight_computes_the_same_bits_for_any_number_of_images() -> None:
    weight = packed(WEIGHT, 3, 9, 11)
    for count in (1, 3):
        images = IMAGES[:count]
        assert torch.equal(convolve(images, weight, BIAS), convolve(images, WEIGHT, BIAS))


def test_a_mirrored_refiner_written_out_computes_the_same() -> None:
    torch.manual_seed(0)
    refiner = ConvolutionalRefiner(
        RefinerConfig(num_features=4, num_blocks=2, mirrored=True), channels=1
    )
    torch.nn.init.normal_(refiner.last.weight)
    images = torch.rand(2, 1, 9, 11) * 2 - 1
    torch.testing.assert_close(refiner.unmirrored()(images), refiner(images))


@pytest.mark.gpu("cuDNN fuses convolution, sum and ReLU, on a GPU alone")
@pytest.mark.parametrize("channels", [1, 3, 8, 64])
@pytest.mark.parametrize("size", [3, 7])
def test_on_a_gpu_result_and_gradients_are_those_of_float64(channels: int, size: int) -> None:
    shapes = (4, channels, 20, 30), (64, channels, size, size), (64,), (4, 64, 20, 30)
    operands = [values(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    if channels < 64:
        operands.pop()
    doubles = [operand.double().requires_grad_() for operand in operands]
    images, *others = (operand.cuda().requires_grad_() for operand in operands)
    images = images.detach() if channels == 1 else images
    result, expected = convolve(images, *others), exactly(*doubles)
    assert (result.cpu().double() - expected).norm() / expected.norm() < 0.01
    assert result.is_contiguous(memory_format=torch.channels_last)
    result.square().sum().backward()
    expected.square().sum().backward()
    for operand, double in zip((images, *others), doubles, strict=True):
        if operand.requires_grad:
            assert (operand.grad.cpu().double() - double.grad).norm() / double.grad.norm() < 0.01
