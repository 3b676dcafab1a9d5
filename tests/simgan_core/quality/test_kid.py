import numpy as np
import pytest
import torch

from simgan_core.quality.kid import KernelDistance, kernel_distance
from simgan_core.simulator.eyes import render, sample_scenes


def test_the_kernel_distance_agrees_with_sums_over_pairs() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(5, 3)), generator.normal(1, size=(4, 3))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / 3 + 1) ** 3

    within_a = [kernel(a[i], a[j]) for i in range(5) for j in range(5) if i != j]
    within_b = [kernel(b[i], b[j]) for i in range(4) for j in range(4) if i != j]
    between = [kernel(x, y) for x in a for y in b]
    expected = np.mean(within_a) + np.mean(within_b) - 2 * np.mean(between)
    assert kernel_distance(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected)


def test_the_kernel_distance_of_samples_of_one_kind_is_0_in_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    distances = [
        kernel_distance(*torch.randn(2, 20, 8, dtype=torch.float64, generator=generator))
        for _ in range(300)
    ]
    assert abs(np.mean(distances)) < 3 * np.std(distances) / 300**0.5
    assert min(distances) < 0


@pytest.fixture(scope="module")
def real() -> torch.Tensor:
    return torch.from_numpy(render(sample_scenes("real", 400, seed=8), "crop", 35, 55).images)


def blurred(images: torch.Tensor) -> torch.Tensor:
    smooth = torch.nn.functional.avg_pool2d(images.float().permute(0, 3, 1, 2), 5, 1, padding=2)
    return smooth.permute(0, 2, 3, 1).round().to(torch.uint8)


def test_kid_ranks_images_by_how_far_they_are_from_real_ones(real: torch.Tensor) -> None:
    synthetic = torch.from_numpy(
        render(sample_scenes("synthetic", 200, seed=7), "crop", 35, 55).images
    )
    distance = KernelDistance(real[:200])
    others = real[200:]
    halfway = (others.float() / 2 + synthetic.float() / 2).to(torch.uint8)
    assert abs(distance(others)) < 0.03
    assert 0.03 < distance(blurred(others)) < distance(halfway) < distance(synthetic)


def test_kid_is_the_same_each_time_and_leaves_the_callers_randomness(real: torch.Tensor) -> None:
    state = torch.get_rng_state()
    first = KernelDistance(real[:20])(real[20:40])
    torch.rand(3)
    assert KernelDistance(real[:20])(real[20:40]) == first
    torch.set_rng_state(state)
    KernelDistance(real[:20])
    assert torch.equal(torch.get_rng_state(), state)
