"""Exponential moving average (EMA) of a network's weights."""

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def update_ema(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    """Replace the averaged weights by decay · averaged + (1 − decay) · current, in place."""
    # PyTorch's AveragedModel would rename the weights in checkpoints ("module.…") and copy the
    # current weights at the first update instead of averaging them.
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        update(tuple(averaged.parameters()), tuple(current.parameters()), None)
