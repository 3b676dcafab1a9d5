import numpy as np
import pytest
import torch

from simgan_core.config import RegularizationConfig
from simgan_core.training.self_regularization import SelfRegularization, emphasis_on_iris


def random_pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def self_regularization(
    refined: torch.Tensor, synthetic: torch.Tensor, weights: RegularizationConfig
) -> torch.Tensor:
    return SelfRegularization(weights)(refined, synthetic)


def test_self_regularization_agrees_with_loops_in_float64() -> None:
    refined, synthetic = random_pair(2, 3, 4, 5)
    a, b = refined.double().numpy(), synthetic.double().numpy()
    identity = [abs(a[i] - b[i]) for i in np.ndindex(2, 3, 4, 5)]
    horizontal = [
        abs((a[n, c, y, x + 1] - a[n, c, y, x]) - (b[n, c, y, x + 1] - b[n, c, y, x]))
        for n, c, y, x in np.ndindex(2, 3, 4, 4)
    ]
    vertical = [
        abs((a[n, c, y + 1, x] - a[n, c, y, x]) - (b[n, c, y + 1, x] - b[n, c, y, x]))
        for n, c, y, x in np.ndindex(2, 3, 3, 5)
    ]
    colour = [
        abs(sum(a[n, :, y, x]) / 3 - sum(b[n, :, y, x]) / 3) for n, y, x in np.ndindex(2, 4, 5)
    ]
    expected = (
        2.0 * np.mean(identity)
        + 6.0 * (np.mean(horizontal) + np.mean(vertical))
        + 0.5 * np.mean(colour)
    )
    weights = RegularizationConfig(identity=2.0, gradient=6.0, channel_mean=0.5)
    assert self_regularization(refined, synthetic, weights).item() == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize(
    "weights",
    [
        RegularizationConfig(identity=1, gradient=0, channel_mean=0),
        RegularizationConfig(identity=0, gradient=1, channel_mean=0),
        RegularizationConfig(identity=0, gradient=0, channel_mean=1),
    ],
)
def test_a_weight_means_the_same_in_a_larger_batch(weights: RegularizationConfig) -> None:
    refined, synthetic = random_pair(2, 3, 6, 6)
    once = self_regularization(refined, synthetic, weights)
    four_times = self_regularization(
        refined.repeat(4, 1, 1, 1), synthetic.repeat(4, 1, 1, 1), weights
    )
    torch.testing.assert_close(four_times, once)


def test_the_gradient_term_lets_brightness_go_and_holds_edges() -> None:
    images, _ = random_pair(1, 1, 6, 6)
    only_gradient = RegularizationConfig(identity=0.0, gradient=1.0)
    brighter = self_regularization(images + 0.3, images, only_gradient)
    assert brighter.item() == pytest.approx(0.0, abs=1e-6)
    assert self_regularization(images * 0.5, images, only_gradient).item() > 0.1


def test_the_low_pass_lets_fine_texture_go_and_holds_broad_shades() -> None:
    images, _ = random_pair(1, 1, 20, 20)
    held = RegularizationConfig(identity=0.0, gradient=0.0, low_pass=1.0)
    shade = self_regularization(images + 0.3, images, held)
    assert shade.item() == pytest.approx(0.3, abs=1e-6)
    checks = 0.3 * (-1.0) ** (torch.arange(20)[:, None] + torch.arange(20))
    assert self_regularization(images + checks, images, held).item() < 0.1 * shade.item()


def test_features_are_the_maps_of_the_network_given() -> None:
    refined, synthetic = random_pair(2, 1, 8, 9)
    network = torch.nn.Conv2d(1, 3, kernel_size=3, stride=2)
    weights = RegularizationConfig(identity=0, gradient=0, features=0.5, features_from="net.pt2")
    found = SelfRegularization(weights, network)(refined, synthetic)
    expected = 0.5 * (network(refined) - network(synthetic)).abs().mean()
    torch.testing.assert_close(found, expected)


def test_features_need_a_network_and_a_network_needs_a_weight() -> None:
    for wrong in ({"features": 1.0}, {"features_from": "net.pt2"}):
        with pytest.raises(ValueError, match="given together"):
            RegularizationConfig(**wrong)


def test_emphasis_counts_the_iris_more_and_the_image_the_same() -> None:
    centres = torch.tensor([[20.5, 15.5], [float("nan"), float("nan")]])
    emphasis = emphasis_on_iris(centres, 35, 55, times=4.0)
    assert emphasis.shape == (2, 1, 35, 55)
    torch.testing.assert_close(emphasis.mean(dim=(1, 2, 3)), torch.ones(2))
    assert emphasis[0, 0, 15, 20] / emphasis[0, 0, 0, 0] == pytest.approx(4)
    assert emphasis[0, 0, 15, 27] > 1 > emphasis[0, 0, 15, 30]
    assert (emphasis[1] == 1).all()


def test_with_emphasis_a_change_in_the_iris_costs_more() -> None:
    images = torch.zeros(1, 1, 35, 55)
    emphasis = emphasis_on_iris(torch.tensor([[10.0, 17.0]]), 35, 55, times=4.0)
    held = SelfRegularization(RegularizationConfig())

    def cost(column: int) -> float:
        changed = images.clone()
        changed[:, :, 15:19, column : column + 4] = 0.5
        return held(changed, images, emphasis).item()

    assert cost(8) == pytest.approx(4 * cost(40), rel=0.05)
