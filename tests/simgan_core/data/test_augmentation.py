import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

from simgan_core.data.augmentation import (
    randomly_degrade,
    randomly_shift_and_scale,
    shift_and_scale,
)
from simgan_core.data.sampler import seeded_generator


def random_images(count: int, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, 35, 55, generator=seeded_generator(0)) * 2 - 1


def test_no_shift_and_no_scale_change_nothing():
    images = random_images(3)
    torch.testing.assert_close(shift_and_scale(images, torch.zeros(3, 2), torch.ones(3)), images)


def test_a_shift_moves_what_is_seen_right_and_down():
    images = random_images(2)
    moved = shift_and_scale(images, torch.tensor([[3.0, 2.0], [-3.0, -2.0]]), torch.ones(2))
    torch.testing.assert_close(moved[0, :, 2:, 3:], images[0, :, :-2, :-3])
    torch.testing.assert_close(moved[1, :, :-2, :-3], images[1, :, 2:, 3:])


def test_shift_and_scale_agree_with_grid_sample():
    images = random_images(4, channels=3)
    shift_px = torch.tensor([[0.3, -1.7], [2.0, 0.5], [-1.2, 1.1], [0.0, 0.0]])
    scale = torch.tensor([1.08, 0.92, 1.0, 1.03])
    affine = torch.zeros(4, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = 1 / scale
    affine[:, :, 2] = -shift_px / scale[:, None] * 2 / torch.tensor([55.0, 35.0])
    grid = affine_grid(affine, [4, 3, 35, 55], align_corners=False)
    expected = grid_sample(images, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(
        shift_and_scale(images, shift_px, scale), expected, atol=1e-4, rtol=0
    )


def test_random_shifts_keep_their_limit_and_reach_it():
    impulse = torch.zeros(500, 1, 35, 55)
    impulse[:, :, 17, 27] = 1.0
    moved = randomly_shift_and_scale(impulse, 2.0, 0.0, seeded_generator(1))
    places = torch.arange(55.0)
    x = (moved.sum(dim=(1, 2)) * places).sum(dim=1) - 27
    y = (moved.sum(dim=(1, 3)) * places[:35]).sum(dim=1) - 17
    for offset in (x, y):
        assert offset.abs().max() <= 2.0001
        assert offset.min() < -1.9
        assert offset.max() > 1.9
        assert offset.std() == pytest.approx(2 / 3**0.5, rel=0.1)


def test_degraded_images_stay_in_range_and_in_place():
    ramp = torch.linspace(-1, 1, 55).expand(200, 1, 35, 55)
    degraded = randomly_degrade(ramp, seeded_generator(3))
    assert degraded.min() >= -1
    assert degraded.max() <= 1
    # What is bright on the right stays so: nothing moves, and boxes cover the lesser part.
    halves = degraded.mean(dim=(1, 2))
    assert (halves[:, 40:].mean(dim=1) > halves[:, :15].mean(dim=1)).all()


def test_every_second_degraded_image_is_covered_in_part_and_all_are_blurred():
    checks = (torch.arange(35)[:, None] + torch.arange(55)) % 2 * 2.0 - 1
    degraded = randomly_degrade(checks.expand(300, 1, 35, 55), seeded_generator(3))
    # The finest checks vanish where the blur is a pixel wide, and stay where there is nearly none.
    contrast = degraded.std(dim=(1, 2, 3))
    assert contrast.min() < 0.3
    assert contrast.max() > 0.8
    grey = torch.zeros(300, 1, 35, 55)
    clean = randomly_degrade(grey, seeded_generator(3))
    far_from_usual = (
        clean - clean.flatten(1).median(dim=1).values[:, None, None, None]
    ).abs() > 0.5
    assert 0.1 < far_from_usual.flatten(1).any(dim=1).float().mean() < 0.5


def test_the_same_generator_degrades_alike():
    images = random_images(4)
    first, again = (randomly_degrade(images, seeded_generator(9)) for _ in range(2))
    assert torch.equal(first, again)
