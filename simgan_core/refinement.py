"""Refining images fast, without training: pixels in, pixels out."""

import copy
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simgan_core.arithmetic import Arithmetic, choose_arithmetic, place
from simgan_core.errors import InputError
from simgan_core.images import to_network, to_pixels
from simgan_core.refiner import Refiner


def refine_images(
    refiner: Refiner,
    images: NDArray[np.uint8],
    device: torch.device | str = "cpu",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    micro_batch_size: int | None = None,
) -> NDArray[np.uint8]:
    """Refine every image of uint8 [N, H, W, C], row i to row i; N may be 0 and need divide nothing.

    `precision` and `micro_batch_size` left open are chosen for the device. `refiner` itself is
    neither moved nor changed. Raises `InputError` for another type, shape or number of channels.
    """
    _require_images_of(refiner, images)
    arithmetic = choose_arithmetic(device, precision, micro_batch_size)
    on_device = place(copy.deepcopy(refiner), arithmetic.device)
    refined = np.empty_like(images)
    # A read-only array, such as a memory map, is copied: torch would warn, and never writes here.
    pixels = torch.from_numpy(images if images.flags.writeable else images.copy())
    for source, target in arithmetic.micro_batches(pixels, torch.from_numpy(refined)):
        target.copy_(refine_pixels(on_device, source.to(arithmetic.device), arithmetic))
    return refined


@torch.no_grad()
def refine_pixels(refiner: Refiner, images: Tensor, arithmetic: Arithmetic) -> Tensor:
    """Refine pixels [N, H, W, C] on the refiner's device, in micro-batches that fit its caches.

    The result has the same type and carries no gradient.
    """
    refined = torch.empty_like(images)
    for source, target in arithmetic.micro_batches(images, refined):
        with arithmetic.autocast():
            output = refiner(to_network(source))
        target.copy_(to_pixels(output, images.dtype))
    return refined


class UInt8Refiner(nn.Module):
    """A refiner for others to use: uint8 [N, H, W, C] in and out, any N, nothing to prepare.

    `torch.export` takes it with a dynamic first axis; that is the form in which it is published.
    """

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        self.refiner = refiner

    def forward(self, images: Tensor) -> Tensor:
        """Refine uint8 [N, H, W, C] to the same type and shape."""
        return to_pixels(self.refiner(to_network(images)))


def _require_images_of(refiner: Refiner, images: NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != refiner.channels:
        raise InputError(
            f"images: expected uint8 [N, H, W, {refiner.channels}], found {images.dtype} "
            f"{list(images.shape)}; give the refiner images of the kind that it was trained on"
        )
