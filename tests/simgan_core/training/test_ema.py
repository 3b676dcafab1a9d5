import torch
from torch import nn

from simgan_core.training.ema import update_ema


def test_the_average_moves_by_the_rest_of_the_decay_from_the_first_update_on() -> None:
    averaged, current = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
    before = averaged.weight.detach().clone()
    update_ema(averaged, current, decay=0.75)
    torch.testing.assert_close(averaged.weight, 0.75 * before + 0.25 * current.weight)


def test_with_decay_zero_the_average_is_the_last_weights() -> None:
    averaged, current = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
    update_ema(averaged, current, decay=0.0)
    for average, last in zip(averaged.parameters(), current.parameters(), strict=True):
        torch.testing.assert_close(average, last, rtol=0, atol=1e-7)
