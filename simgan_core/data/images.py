"""Conversion between stored pixels and network input: one fixed affine map for every image.

Nothing here looks at an image's own range, so contrast that drifts is seen and not hidden, and
synthetic, refined and real images reach the discriminator in one scale.
"""

import torch
from torch import Tensor

FULL_SCALE = {torch.uint8: 255, torch.uint16: 65535}
"""The pixel types and the value of white in each."""


def to_network(images: Tensor) -> Tensor:
    """Map pixels [N, H, W, C], 0…full scale, to float32 [N, C, H, W] in [−1, 1], channels last.

    `images` is uint8 or uint16; the memory order stays, so the permute copies nothing.
    """
    scale = 2.0 / FULL_SCALE[images.dtype]
    return images.permute(0, 3, 1, 2).to(torch.float32).mul_(scale).sub_(1.0)


def to_pixels(images: Tensor, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Map network values [N, C, H, W] back to pixels [N, H, W, C]: rounded, clamped to the range.

    The inverse of `to_network`, exactly: pixels → network → pixels changes no bit.
    """
    white = FULL_SCALE[dtype]
    scaled = images.detach().to(torch.float32).add(1.0).mul_(white / 2.0)
    return scaled.round_().clamp_(0, white).permute(0, 2, 3, 1).to(dtype).contiguous()
