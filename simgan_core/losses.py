"""What the two networks minimise; every loss is a mean, so that λ carries over to other sizes."""

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.config import RegularizationConfig


def adversarial_loss(logits: Tensor, target: int) -> Tensor:
    """Local adversarial loss: cross-entropy of every patch with one class, in nats.

    `logits` [N, 2, h, w] is the discriminator's map; `target` is `REFINED` or `REAL`. The paper
    sums over the patches (eq. 2 to 4); here it is their mean: ln 2 where nothing tells them apart.
    """
    patches = logits.shape[:1] + logits.shape[2:]
    targets = torch.full(patches, target, device=logits.device)
    return functional.cross_entropy(logits, targets)


def self_regularization(
    refined: Tensor, synthetic: Tensor, weights: RegularizationConfig
) -> Tensor:
    """Weighted sum λ‖ψ(refined) − ψ(synthetic)‖₁ over the ψ whose weight is not 0 (SimGAN, eq. 4).

    Both images are [N, C, H, W] in [−1, 1], and each norm is a mean per pixel.
    """
    terms = {
        "identity": (weights.identity, identity_difference),
        "gradient": (weights.gradient, gradient_difference),
        "channel_mean": (weights.channel_mean, channel_mean_difference),
    }
    total = refined.new_zeros(())
    for weight, difference in terms.values():
        if weight > 0:
            total = total + weight * difference(refined, synthetic)
    return total


def identity_difference(refined: Tensor, synthetic: Tensor) -> Tensor:
    """Mean absolute difference of the pixels of two [N, C, H, W]."""
    return (refined - synthetic).abs().mean()


def gradient_difference(refined: Tensor, synthetic: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal derivatives, plus that of the vertical ones.

    A derivative is the difference of neighbouring pixels, [N, C, H, W − 1] and [N, C, H − 1, W].
    """
    # The derivative is linear: that of the difference is the difference of the derivatives.
    difference = refined - synthetic
    horizontal, vertical = difference.diff(dim=3), difference.diff(dim=2)
    return horizontal.abs().mean() + vertical.abs().mean()


def channel_mean_difference(refined: Tensor, synthetic: Tensor) -> Tensor:
    """Mean absolute difference of the mean of the colour channels, [N, H, W]."""
    return (refined - synthetic).mean(dim=1).abs().mean()
