import pytest
import torch

from simgan_core.config import DiscriminatorConfig
from simgan_core.models.discriminator import Discriminator
from simgan_core.training.steps import frozen

EYES = DiscriminatorConfig(architecture="eyes")
HAND = DiscriminatorConfig(architecture="hand")


@pytest.mark.parametrize(
    ("config", "image", "patches"), [(EYES, (35, 55), (9, 14)), (HAND, (224, 224), (7, 7))]
)
def test_logits_are_a_map_with_the_two_classes_on_the_second_axis(
    config: DiscriminatorConfig, image: tuple[int, int], patches: tuple[int, int]
) -> None:
    assert Discriminator(config, channels=1)(torch.zeros(2, 1, *image)).shape == (2, 2, *patches)


@pytest.mark.parametrize("config", [EYES, HAND])
def test_logits_may_be_negative(config: DiscriminatorConfig) -> None:
    discriminator = Discriminator(config, channels=1)
    torch.nn.init.constant_(discriminator.layers[-1].bias, -5.0)
    assert discriminator(torch.zeros(1, 1, 35, 55)).max() < 0


def test_a_decision_sees_a_patch_of_23_pixels() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(EYES, channels=1)
    # Max-pooling passes a gradient to one pixel of each window: many images find the whole extent.
    images = torch.randn(100, 1, 63, 63, requires_grad=True)
    discriminator(images)[:, :, 8, 8].sum().backward()
    assert images.grad is not None
    rows, columns = images.grad.abs().sum(dim=(0, 1)).nonzero().unbind(dim=1)
    assert int(rows.max() - rows.min()) + 1 == 23
    assert int(columns.max() - columns.min()) + 1 == 23


def test_an_image_is_judged_the_same_alone_in_a_batch_in_training_and_in_evaluation() -> None:
    torch.manual_seed(0)
    discriminator, images = Discriminator(EYES, channels=3), torch.randn(3, 3, 35, 55)
    together = discriminator.train()(images)
    alone = discriminator.eval()(images[1:2])
    torch.testing.assert_close(alone, together[1:2])


def test_logits_are_float32_also_where_the_layers_are_not() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Discriminator(EYES, channels=1)(torch.zeros(1, 1, 35, 55)).dtype == torch.float32


def test_a_global_discriminator_decides_once_an_image_and_sees_all_of_it() -> None:
    discriminator = Discriminator(DiscriminatorConfig(scope="global"), channels=1)
    images = torch.rand(2, 1, 35, 55, requires_grad=True)
    logits = discriminator(images)
    assert logits.shape == (2, 2, 1, 1)
    logits.sum().backward()
    assert images.grad is not None
    reached = images.grad.abs().sum(dim=(0, 1)) > 0
    assert reached[0].any()
    assert reached[-1].any()
    assert reached[:, 0].any()
    assert reached[:, -1].any()


def test_spectral_normalisation_bounds_every_convolution() -> None:
    discriminator = Discriminator(DiscriminatorConfig(normalization="spectral"), channels=1)
    for _ in range(50):  # an iteration of the power method each
        discriminator(torch.rand(1, 1, 35, 55))
    for layer in discriminator.layers:
        if isinstance(layer, torch.nn.Conv2d):
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
            assert largest.item() == pytest.approx(1.0, abs=0.05)


def test_batch_normalisation_stands_still_while_the_refiner_learns() -> None:
    discriminator = Discriminator(DiscriminatorConfig(normalization="batch"), channels=1)
    before = {name: value.clone() for name, value in discriminator.named_buffers()}
    assert before
    with frozen(discriminator):
        discriminator(torch.rand(4, 1, 35, 55))
    torch.testing.assert_close(dict(discriminator.named_buffers()), before, rtol=0, atol=0)
    discriminator(torch.rand(4, 1, 35, 55))
    moved = dict(discriminator.named_buffers())
    assert not torch.equal(moved["layers.3.running_mean"], before["layers.3.running_mean"])
