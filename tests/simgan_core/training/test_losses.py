import math

import numpy as np
import pytest
import torch

from simgan_core.models.discriminator import REAL, REFINED
from simgan_core.training.losses import discriminator_loss, gradient_penalty, refiner_loss

LOSSES = ("cross-entropy", "least-squares", "hinge")


def random_logits(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("target", [REFINED, REAL])
def test_the_adversarial_loss_is_the_mean_cross_entropy_of_the_patches(target: int) -> None:
    logits = random_logits(3, 2, 4, 5)
    exact, total = logits.double().numpy(), 0.0
    for image, row, column in np.ndindex(3, 4, 5):
        scores = exact[image, :, row, column]
        total -= scores[target] - math.log(sum(math.exp(score) for score in scores))
    assert discriminator_loss(logits, target).item() == pytest.approx(total / (3 * 4 * 5), rel=1e-6)


def test_the_adversarial_loss_is_ln_2_where_nothing_tells_the_classes_apart() -> None:
    assert discriminator_loss(torch.zeros(2, 2, 3, 3), REAL).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_means_the_same_on_a_larger_map(loss: str) -> None:
    logits = random_logits(2, 2, 3, 3)
    for of in (lambda x: discriminator_loss(x, REFINED, loss), lambda x: refiner_loss(x, loss)):
        torch.testing.assert_close(of(logits.repeat(1, 1, 2, 2)), of(logits))


def lead(real: float) -> torch.Tensor:
    return torch.tensor([0.0, real])[None, :, None, None]


@pytest.mark.parametrize(
    ("loss", "of_real_by_2", "of_refined_by_2", "refiner_by_2"),
    [("least-squares", 1.0, 9.0, 1.0), ("hinge", 0.0, 3.0, -2.0)],
)
def test_the_other_losses_are_the_published_ones(
    loss: str, of_real_by_2: float, of_refined_by_2: float, refiner_by_2: float
) -> None:
    assert discriminator_loss(lead(2.0), REAL, loss).item() == of_real_by_2
    assert discriminator_loss(lead(2.0), REFINED, loss).item() == of_refined_by_2
    assert refiner_loss(lead(2.0), loss).item() == refiner_by_2


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_pulls_the_two_networks_apart(loss: str) -> None:
    logits = torch.zeros(1, 2, 1, 1, requires_grad=True)
    (by_discriminator,) = torch.autograd.grad(discriminator_loss(logits, REFINED, loss), logits)
    (by_refiner,) = torch.autograd.grad(refiner_loss(logits, loss), logits)
    assert (by_discriminator[0, REAL] > 0).all()
    assert (by_refiner[0, REAL] < 0).all()


def test_the_gradient_penalty_of_a_linear_discriminator_is_its_squared_weight() -> None:
    images = torch.rand(3, 1, 4, 5, requires_grad=True)
    logits = torch.cat([torch.zeros_like(images), 3.0 * images], dim=1)
    assert gradient_penalty(logits, images).item() == pytest.approx(9.0)
