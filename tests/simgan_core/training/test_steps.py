import copy
import threading

import pytest
import torch
from torch.optim import SGD, Adam

from simgan_core.compute.non_finite import NonFiniteGuard, NonFiniteLossError
from simgan_core.compute.settings import ComputeSettings
from simgan_core.config import DiscriminatorConfig, RefinerConfig, RegularizationConfig
from simgan_core.data.discriminator_augmentation import DiscriminatorAugmentation
from simgan_core.inference import refine_pixels
from simgan_core.models.discriminator import Discriminator
from simgan_core.models.refiner import ConvolutionalRefiner
from simgan_core.training.self_regularization import SelfRegularization
from simgan_core.training.steps import discriminator_step, refiner_pretraining_step, refiner_step

CPU = torch.device("cpu")
WHOLE = ComputeSettings(CPU, "fp32", micro_batch_size=64)
HELD = SelfRegularization(RegularizationConfig(identity=2.0, gradient=6.0))
FREE = SelfRegularization(RegularizationConfig(identity=0.0, gradient=0.0))
AS_IT_IS = DiscriminatorAugmentation(DiscriminatorConfig(), torch.Generator())


def pixels(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 16, 20, 1), dtype=torch.uint8, generator=generator)


def new_refiner(residual: bool = False) -> ConvolutionalRefiner:
    torch.manual_seed(0)
    return ConvolutionalRefiner(
        RefinerConfig(num_features=6, num_blocks=2, residual=residual), channels=1
    )


def new_discriminator(normalization: str = "none") -> Discriminator:
    torch.manual_seed(1)
    return Discriminator(DiscriminatorConfig(normalization=normalization), channels=1)


def discriminator_that_knows_dark_from_bright() -> Discriminator:
    """One for which dark images are real and bright ones refined."""
    discriminator = new_discriminator()
    optimizer = Adam(discriminator.parameters(), lr=3e-3, fused=True)
    for _ in range(30):
        discriminator_step(
            discriminator,
            optimizer,
            pixels(8),
            pixels(8, seed=1) // 2,
            augmentation=AS_IT_IS,
            compute=WHOLE,
            guard=NonFiniteGuard(CPU),
        )
    return discriminator


def weights_of(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weights.detach().flatten() for weights in network.parameters()])


def refiner_moved_by_one_step(compute: ComputeSettings) -> tuple[torch.Tensor, float]:
    refiner, discriminator = new_refiner(), new_discriminator()
    before = weights_of(refiner)
    figures = refiner_step(
        refiner,
        discriminator,
        SGD(refiner.parameters(), lr=1.0, fused=True),
        pixels(10),
        regularization=HELD,
        augmentation=AS_IT_IS,
        compute=compute,
        guard=NonFiniteGuard(CPU),
    )
    return weights_of(refiner) - before, figures["loss"].item()


def discriminator_moved_by_one_step(compute: ComputeSettings) -> tuple[torch.Tensor, float]:
    discriminator = new_discriminator()
    before = weights_of(discriminator)
    figures = discriminator_step(
        discriminator,
        SGD(discriminator.parameters(), lr=1.0, fused=True),
        pixels(10),
        pixels(10, seed=1) // 2,
        augmentation=AS_IT_IS,
        compute=compute,
        guard=NonFiniteGuard(CPU),
    )
    return weights_of(discriminator) - before, figures["loss"].item()


@pytest.mark.parametrize("micro_batch_size", [1, 3, 5, 10])
@pytest.mark.parametrize("step", [refiner_moved_by_one_step, discriminator_moved_by_one_step])
def test_micro_batches_move_the_weights_as_the_whole_batch_does(step, micro_batch_size) -> None:
    whole_move, whole_loss = step(WHOLE)
    move, loss = step(ComputeSettings(CPU, "fp32", micro_batch_size))
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert whole_move.abs().max() > 1e-3
    torch.testing.assert_close(move, whole_move, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("step", [refiner_moved_by_one_step, discriminator_moved_by_one_step])
def test_micro_batches_side_by_side_are_the_bits_of_one_after_the_other(step, request) -> None:
    one_image_each = ComputeSettings(CPU, "fp32", micro_batch_size=1)
    move, loss = step(one_image_each)
    request.getfixturevalue("two_threads")
    move_of_two, loss_of_two = step(one_image_each)
    assert torch.equal(move_of_two, move)
    assert loss_of_two == loss


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("normalization", "side_by_side"), [("none", True), ("batch", False), ("spectral", False)]
)
def test_what_each_micro_batch_changes_sees_them_in_turn(normalization, side_by_side) -> None:
    discriminator, seen_by = new_discriminator(normalization), set()
    discriminator.register_forward_hook(lambda *_: seen_by.add(threading.current_thread()))
    discriminator_step(
        discriminator,
        SGD(discriminator.parameters(), lr=1.0, fused=True),
        pixels(10),
        pixels(10, seed=1),
        augmentation=AS_IT_IS,
        compute=ComputeSettings(CPU, "fp32", micro_batch_size=1),
        guard=NonFiniteGuard(CPU),
    )
    assert (seen_by != {threading.main_thread()}) == side_by_side


def test_the_refiner_learns_from_the_discriminator() -> None:
    refiner, discriminator = new_refiner(residual=True), discriminator_that_knows_dark_from_bright()
    optimizer = Adam(refiner.parameters(), lr=1e-2, fused=True)
    losses = [
        refiner_step(
            refiner,
            discriminator,
            optimizer,
            pixels(8),
            regularization=FREE,
            augmentation=AS_IT_IS,
            compute=WHOLE,
            guard=NonFiniteGuard(CPU),
        )["adversarial"].item()
        for _ in range(15)
    ]
    assert losses[-1] < 0.5 * losses[0]


def test_a_refiner_step_leaves_the_discriminator_alone() -> None:
    refiner, discriminator = new_refiner(), new_discriminator()
    before = copy.deepcopy(discriminator.state_dict())
    refiner_step(
        refiner,
        discriminator,
        Adam(refiner.parameters(), fused=True),
        pixels(4),
        regularization=HELD,
        augmentation=AS_IT_IS,
        compute=WHOLE,
        guard=NonFiniteGuard(CPU),
    )
    assert all(weights.grad is None for weights in discriminator.parameters())
    assert all(weights.requires_grad for weights in discriminator.parameters())
    torch.testing.assert_close(discriminator.state_dict(), before, rtol=0, atol=0)


def test_refined_images_reach_the_discriminator_step_without_a_gradient() -> None:
    refiner, discriminator = new_refiner(), new_discriminator()
    refined = refine_pixels(refiner, pixels(4), WHOLE)
    discriminator_step(
        discriminator,
        Adam(discriminator.parameters(), fused=True),
        refined,
        pixels(4, seed=1),
        augmentation=AS_IT_IS,
        compute=WHOLE,
        guard=NonFiniteGuard(CPU),
    )
    assert refined.dtype == torch.uint8
    assert all(weights.grad is None for weights in refiner.parameters())


def test_figures_keep_no_graph_alive() -> None:
    discriminator = new_discriminator()
    figures = discriminator_step(
        discriminator,
        Adam(discriminator.parameters(), fused=True),
        pixels(4),
        pixels(4, seed=1),
        augmentation=AS_IT_IS,
        compute=WHOLE,
        guard=NonFiniteGuard(CPU),
    )
    assert not any(value.requires_grad for value in figures.values())


def test_the_discriminator_learns_to_tell_dark_from_bright() -> None:
    discriminator = discriminator_that_knows_dark_from_bright()
    optimizer = SGD(discriminator.parameters(), lr=0.0, fused=True)
    figures = discriminator_step(
        discriminator,
        optimizer,
        pixels(8),
        pixels(8, seed=1) // 2,
        augmentation=AS_IT_IS,
        compute=WHOLE,
        guard=NonFiniteGuard(CPU),
    )
    assert figures["accuracy_refined"].item() > 0.9
    assert figures["accuracy_real"].item() > 0.9


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pretraining_learns_the_identity_in_either_precision(precision) -> None:
    refiner = new_refiner()
    optimizer = Adam(refiner.parameters(), lr=1e-2, fused=True)
    losses = [
        refiner_pretraining_step(
            refiner,
            optimizer,
            pixels(8),
            regularization=HELD,
            compute=ComputeSettings(CPU, precision, micro_batch_size=8),
            guard=NonFiniteGuard(CPU),
        )["loss"].item()
        for _ in range(60)
    ]
    assert losses[-1] < 0.5 * losses[0]


def test_a_loss_that_is_not_finite_moves_neither_weights_nor_moments() -> None:
    refiner, discriminator = new_refiner(), new_discriminator()
    optimizer, guard = Adam(refiner.parameters(), fused=True), NonFiniteGuard(CPU)

    def step() -> None:
        refiner_step(
            refiner,
            discriminator,
            optimizer,
            pixels(4),
            regularization=HELD,
            augmentation=AS_IT_IS,
            compute=WHOLE,
            guard=guard,
        )

    step()
    weights, moments = weights_of(refiner), copy.deepcopy(optimizer.state_dict()["state"])
    healthy = copy.deepcopy(discriminator.state_dict())
    torch.nn.init.constant_(discriminator.layers[0].weight, float("nan"))
    step()
    discriminator.load_state_dict(healthy)
    step()  # the loss is finite again, but nobody has looked yet: still nothing may move
    assert torch.equal(weights_of(refiner), weights)
    torch.testing.assert_close(optimizer.state_dict()["state"], moments, rtol=0, atol=0)
    with pytest.raises(NonFiniteLossError, match="at step 12 or shortly before"):
        guard.require_finite(step=12)
