import pytest
import torch

from simgan_core.config import RefinerConfig
from simgan_core.models.refiner import ConvolutionalRefiner, clamp_to_range

SMALL = RefinerConfig(num_features=4, num_blocks=2)


def random_images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def random_refiner(config: RefinerConfig, channels: int = 1) -> ConvolutionalRefiner:
    torch.manual_seed(0)
    refiner = ConvolutionalRefiner(config, channels)
    torch.nn.init.normal_(refiner.last.weight)
    return refiner


def test_a_residual_refiner_starts_by_returning_its_input() -> None:
    images = random_images(2, 3, 9, 11)
    assert torch.equal(ConvolutionalRefiner(SMALL, channels=3)(images), images)


@pytest.mark.parametrize("residual", [True, False])
def test_outputs_stay_in_range_and_shape_at_any_image_size(residual: bool) -> None:
    refiner = random_refiner(SMALL.model_copy(update={"residual": residual}))
    for height, width in [(35, 55), (36, 60), (5, 4)]:
        refined = refiner(random_images(2, 1, height, width) * 0.999)
        assert refined.shape == (2, 1, height, width)
        assert refined.abs().max() <= 1.0


def test_the_papers_refiner_has_its_number_of_weights() -> None:
    refiner = ConvolutionalRefiner(RefinerConfig(num_features=64, num_blocks=4), channels=1)
    assert sum(weights.numel() for weights in refiner.parameters()) == 296_129


def test_an_image_is_refined_the_same_alone_in_a_batch_in_training_and_in_evaluation() -> None:
    refiner, images = random_refiner(SMALL), random_images(3, 1, 12, 10)
    together = refiner.train()(images)
    alone = refiner.eval()(images[1:2])
    torch.testing.assert_close(alone, together[1:2])


def test_a_pixel_pushed_back_into_the_range_gets_its_gradient() -> None:
    images = torch.tensor([-2.0, 0.0, 2.0], requires_grad=True)
    clamp_to_range(images).backward(torch.tensor([-1.0, 1.0, 1.0]))
    assert images.grad is not None
    assert images.grad.tolist() == [-1.0, 1.0, 1.0]


def test_a_pixel_is_not_pushed_further_out_of_the_range() -> None:
    images = torch.tensor([-2.0, 2.0], requires_grad=True)
    clamp_to_range(images).backward(torch.tensor([1.0, -1.0]))
    assert images.grad is not None
    assert images.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mirrored_refiner_refines_a_mirrored_image_to_the_mirrored_result(channels: int) -> None:
    mirrored = random_refiner(SMALL.model_copy(update={"mirrored": True}), channels)
    plain = random_refiner(SMALL, channels)
    images = random_images(2, channels, 9, 11)
    difference = {
        name: (refiner(images.flip(3)) - refiner(images).flip(3)).abs().max().item()
        for name, refiner in (("mirrored", mirrored), ("plain", plain))
    }
    assert difference["mirrored"] < 1e-5
    assert difference["plain"] > 0.01


def test_a_mirrored_refiner_still_tells_the_sides_of_an_image_apart() -> None:
    refiner = random_refiner(SMALL.model_copy(update={"mirrored": True}))
    images = random_images(1, 1, 9, 11)
    refined = refiner(images)
    assert (refined - refined.flip(3)).abs().max() > 0.01
