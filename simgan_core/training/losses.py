"""Adversarial losses and gradient penalty; means, so that λ carries over to other sizes.

Logits are the discriminator's [N, 2, h, w], the classes `REFINED` and `REAL` on axis 1. Every loss
is a function of the lead of `real` in each patch, its logit less the other: the cross-entropy of
two classes depends on that difference alone, and the other losses take it as their score.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.models.discriminator import REAL, REFINED

Loss = Literal["cross-entropy", "least-squares", "hinge"]

_BLUR_PX = 5
"""Side of the square over which styles are blurred before they are compared."""


def lead_of_real(logits: Tensor) -> Tensor:
    """Return the logit of `REAL` less that of `REFINED`, [N, h, w]."""
    return logits[:, REAL] - logits[:, REFINED]


def discriminator_loss(logits: Tensor, target: int, loss: Loss = "cross-entropy") -> Tensor:
    """Return the discriminator's adversarial loss on images of class `target`, a mean over patches.

    cross-entropy: nats, ln 2 where nothing tells the classes apart (eq. 2; the paper sums over
    patches). least-squares: (1 − lead)² (Mao et al., ICCV 2017, with targets ±1). hinge:
    max(0, 1 − lead) (Lim and Ye, 2017). The lead is that of the right class.
    """
    lead = lead_of_real(logits) if target == REAL else -lead_of_real(logits)
    if loss == "cross-entropy":
        return functional.softplus(-lead).mean()
    if loss == "least-squares":
        return (1 - lead).square().mean()
    return torch.relu(1 - lead).mean()


def refiner_loss(logits: Tensor, loss: Loss = "cross-entropy") -> Tensor:
    """Return the refiner's adversarial loss by its images' logits (eq. 3), a mean over patches.

    It is the discriminator's loss if they were real; under hinge −lead, which has no bound.
    """
    if loss == "hinge":
        return -lead_of_real(logits).mean()
    return discriminator_loss(logits, REAL, loss)


def style_change_levels(refined: Tensor, in_other_style: Tensor) -> Tensor:
    """Return by how much two styles of the same images [N, C, H, W] differ, [N].

    The mean absolute difference of the pixels of blurred images, in grey levels of 255: noise,
    which differs in any case, is averaged out.
    """
    difference = functional.avg_pool2d(refined - in_other_style, _BLUR_PX, stride=1)
    return difference.abs().mean(dim=(1, 2, 3)) * (255 / 2)


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Return R1: the squared gradient of the patches' leads by the images, a mean per pixel.

    `logits` were computed from `images` [N, C, H, W], which require a gradient. Every patch's lead
    counts in full, so that the figure does not depend on the image's size.
    """
    (gradient,) = torch.autograd.grad(lead_of_real(logits).sum(), images, create_graph=True)
    return gradient.square().mean()
