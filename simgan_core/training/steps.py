"""Training steps: one update of the refiner or the discriminator.

Every step takes whole batches of pixels [N, H, W, C], by gradient accumulation over micro-batches.
It returns scalars on the device without waiting for it. No step reads a number back from the device
or draws a random one, so that it can be captured as a CUDA graph (`simgan_core.training.updates`).
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from simgan_core.compute.non_finite import NonFiniteGuard
from simgan_core.compute.parallel import parallel_map
from simgan_core.compute.settings import ComputeSettings
from simgan_core.data.discriminator_augmentation import DiscriminatorAugmentation
from simgan_core.data.images import to_network
from simgan_core.models.discriminator import REAL, REFINED, Discriminator
from simgan_core.models.refiner import Refiner
from simgan_core.training.losses import (
    discriminator_loss,
    gradient_penalty,
    lead_of_real,
    refiner_loss,
    style_change_levels,
)
from simgan_core.training.self_regularization import SelfRegularization

Metrics = dict[str, Tensor]
"""Metrics of a step by name: scalars on the device; `loss` is what the network minimises."""


def refiner_step(
    refiner: Refiner,
    discriminator: Discriminator,
    optimizer: Optimizer,
    synthetic: Tensor,
    emphasis: Tensor | None = None,
    draws: Tensor | None = None,
    style: Tensor | None = None,
    other_style: Tensor | None = None,
    *,
    regularization: SelfRegularization,
    min_style_change_levels: float = 0.0,
    augmentation: DiscriminatorAugmentation,
    compute: ComputeSettings,
    guard: NonFiniteGuard,
) -> Metrics:
    """Update the refiner by adversarial loss and self-regularization (SimGAN, eq. 1, 4).

    `emphasis` [N, 1, H, W] weights the pixels of self-regularization; `draws` are the random
    numbers of the augmentation of N images; `style` [N, Z] is the second input of a refiner that
    takes one. In `other_style` [N, Z] images should differ by `min_style_change_levels`.
    """

    def measure(
        pixels: Tensor,
        emphasis: Tensor | None = None,
        draws: Tensor | None = None,
        style: Tensor | None = None,
        other_style: Tensor | None = None,
    ) -> Metrics:
        images = to_network(pixels)
        with compute.autocast():
            refined = refiner(images, style)
        seen = augmentation(refined, draws)
        with compute.autocast():
            logits = discriminator(seen)
        adversarial = refiner_loss(logits, discriminator.config.loss)
        difference = regularization(refined, images, emphasis)
        figures = {
            "loss": adversarial + difference,
            "adversarial": adversarial,
            "self_regularization": difference,
        }
        if other_style is None:
            return figures
        with compute.autocast():
            in_other_style = refiner(images, other_style)
        change_levels = style_change_levels(refined, in_other_style)
        shortfall = functional.relu(1 - change_levels / min_style_change_levels).mean()
        return {
            **figures,
            "loss": figures["loss"] + shortfall,
            "style_change_levels": change_levels.mean(),
        }

    batches = {
        "pixels": synthetic,
        "emphasis": emphasis,
        "draws": draws,
        "style": style,
        "other_style": other_style,
    }
    with frozen(discriminator):
        return _update(optimizer, guard, compute, batches, measure)


def refiner_pretraining_step(
    refiner: Refiner,
    optimizer: Optimizer,
    synthetic: Tensor,
    emphasis: Tensor | None = None,
    style: Tensor | None = None,
    *,
    regularization: SelfRegularization,
    compute: ComputeSettings,
    guard: NonFiniteGuard,
) -> Metrics:
    """Update the refiner by self-regularization alone, towards returning its input."""

    def measure(
        pixels: Tensor, emphasis: Tensor | None = None, style: Tensor | None = None
    ) -> Metrics:
        images = to_network(pixels)
        with compute.autocast():
            refined = refiner(images, style)
        return {"loss": regularization(refined, images, emphasis)}

    batches = {"pixels": synthetic, "emphasis": emphasis, "style": style}
    return _update(optimizer, guard, compute, batches, measure)


def discriminator_step(
    discriminator: Discriminator,
    optimizer: Optimizer,
    refined: Tensor,
    real: Tensor,
    draws: Tensor | None = None,
    *,
    augmentation: DiscriminatorAugmentation,
    compute: ComputeSettings,
    guard: NonFiniteGuard,
) -> Metrics:
    """Update the discriminator on as many refined as real images (SimGAN, eq. 2).

    Both are pixels of N images, which carry no gradient: this step cannot reach the refiner.
    `draws` are the random numbers of the augmentation of 2·N images. `accuracy_…` is the share of
    patches that are classified right; 0.5 of each is chance.
    """
    config = discriminator.config
    of_refined_draws, of_real_draws = (None, None) if draws is None else draws.chunk(2)

    def measure(
        refined: Tensor,
        real: Tensor,
        of_refined_draws: Tensor | None = None,
        of_real_draws: Tensor | None = None,
    ) -> Metrics:
        real_images = to_network(real).requires_grad_(config.gradient_penalty > 0)
        seen = torch.cat(
            [
                augmentation(to_network(refined), of_refined_draws),
                augmentation(real_images, of_real_draws),
            ]
        )
        with compute.autocast():
            logits = discriminator(seen)
        of_refined, of_real = logits.chunk(2)
        refined_loss = discriminator_loss(of_refined, REFINED, config.loss)
        real_loss = discriminator_loss(of_real, REAL, config.loss)
        metrics = {
            "loss": (refined_loss + real_loss) / 2,
            "accuracy_refined": _share_taken_for(REFINED, of_refined),
            "accuracy_real": _share_taken_for(REAL, of_real),
        }
        if config.gradient_penalty > 0:
            penalty = config.gradient_penalty / 2 * gradient_penalty(of_real, real_images)
            metrics |= {"loss": metrics["loss"] + penalty, "gradient_penalty": penalty}
        return metrics

    batches = {
        "refined": refined,
        "real": real,
        "of_refined_draws": of_refined_draws,
        "of_real_draws": of_real_draws,
    }
    # Of batch and of spectral normalisation; batch statistics differ from rank to rank.
    statistics = [buffer for buffer in discriminator.buffers() if buffer.is_floating_point()]
    in_turn = bool(statistics)
    metrics = _update(optimizer, guard, compute, batches, measure, in_turn=in_turn)
    if statistics:
        compute.distributed.average(statistics)
    return metrics


def _update(
    optimizer: Optimizer,
    guard: NonFiniteGuard,
    compute: ComputeSettings,
    batches: dict[str, Tensor | None],
    measure: Callable[..., Metrics],
    *,
    in_turn: bool = False,
) -> Metrics:
    """Take an optimiser step on the batch's mean `loss`; returns the batch's mean metrics.

    Micro-batches are computed in parallel, `in_turn` where computing one changes the network.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    names, whole = zip(*((name, x) for name, x in batches.items() if x is not None), strict=True)

    def learn(*parts: Tensor) -> tuple[tuple[Tensor, ...], Metrics]:
        share = len(parts[0]) / len(whole[0])
        metrics = measure(**dict(zip(names, parts, strict=True)))
        gradients = torch.autograd.grad(metrics["loss"] * share, weights)
        return gradients, {name: value.detach() * share for name, value in metrics.items()}

    parts = compute.micro_batches(*whole)
    learned = itertools.starmap(learn, parts) if in_turn else parallel_map(learn, parts)
    # Gradients laid out as the weights are, which fused optimisers rely on. PyTorch has no public
    # name for its operators on lists of tensors, one kernel for all weights, which its own
    # optimisers use.
    sums, means = [torch.empty_like(weight) for weight in weights], Metrics()
    for gradients, metrics in learned:
        if means:
            torch._foreach_add_(sums, gradients)
            means = {name: mean + metrics[name] for name, mean in means.items()}
        else:
            torch._foreach_copy_(sums, gradients)
            means = metrics
    compute.distributed.average([*sums, *means.values()])
    for weight, gradient in zip(weights, sums, strict=True):
        weight.grad = gradient
    guard.step(optimizer, means["loss"])
    return means


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Freeze the network: gradients pass through it, but nothing in it changes.

    It is in eval mode: the statistics of its normalisation stay as its own last step left them.
    """
    network.requires_grad_(False).eval()
    try:
        yield
    finally:
        network.requires_grad_(True).train()


@torch.no_grad()
def _share_taken_for(target: int, logits: Tensor) -> Tensor:
    return ((lead_of_real(logits) > 0) == (target == REAL)).float().mean()
