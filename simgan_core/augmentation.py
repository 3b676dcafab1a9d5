"""Random changes of an image that its label survives, made for whole batches at once."""

import torch
from torch import Tensor


def randomly_shift_and_scale(
    images: Tensor, max_shift_px: float, max_scale: float, generator: torch.Generator
) -> Tensor:
    """Cut every image of a batch [N, C, H, W] anew, a little beside and a little larger or smaller.

    Shifts are uniform in ±max_shift_px on each axis, scales in 1 ± max_scale. `generator` is a
    CPU's, so that the same numbers come on every device.
    """
    draws = 2 * torch.rand(3, len(images), generator=generator) - 1
    shift_x, shift_y, scale = draws.to(images.device, non_blocking=True)
    shift_px = max_shift_px * torch.stack([shift_x, shift_y], dim=1)
    return shift_and_scale(images, shift_px, 1 + max_scale * scale)


def shift_and_scale(images: Tensor, shift_px: Tensor, scale: Tensor) -> Tensor:
    """Move what images [N, C, H, W] show right and down by shift_px [N, 2] as x, y, and enlarge it.

    `scale` [N] enlarges about the image's centre. Values are interpolated linearly, and repeated
    beyond the edges. Without rotation that is a product with a matrix on either side, which costs
    half of `grid_sample`.
    """
    height, width = images.shape[-2:]
    rows = _interpolation(height, shift_px[:, 1], scale)
    columns = _interpolation(width, shift_px[:, 0], scale)
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _interpolation(size: int, shift_px: Tensor, scale: Tensor) -> Tensor:
    """Return matrices [N, size, size] whose row i mixes what is seen at place i afterwards."""
    place = torch.arange(size, dtype=torch.float32, device=scale.device)
    middle = (size - 1) / 2
    source = (place - middle - shift_px[:, None]) / scale[:, None] + middle
    distance = source.clamp_(0, size - 1)[..., None] - place
    # In place: three temporaries of this size would cost more than the products.
    return distance.abs_().neg_().add_(1).clamp_(min=0)
