"""Label-preserving data augmentation, vectorised over batches."""

import torch
from torch import Tensor


def randomly_shift_and_scale(
    images: Tensor, max_shift_px: float, max_scale: float, generator: torch.Generator
) -> Tensor:
    """Shift and scale every image of a batch [N, C, H, W] at random.

    Shifts and scales are those of `draw_crops`.
    """
    return shift_and_scale(
        images, *draw_crops(len(images), max_shift_px, max_scale, generator, images.device)
    )


def draw_crops(
    count: int,
    max_shift_px: float,
    max_scale: float,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Draw shifts [N, 2] as x, y, uniform in ±max_shift_px, and scales [N], in 1 ± max_scale.

    `generator` is on the CPU, so that the numbers are the same on every device.
    """
    draws = 2 * torch.rand(3, count, generator=generator) - 1
    shift_x, shift_y, scale = draws.to(device, non_blocking=True)
    return max_shift_px * torch.stack([shift_x, shift_y], dim=1), 1 + max_scale * scale


def shift_and_scale(images: Tensor, shift_px: Tensor, scale: Tensor) -> Tensor:
    """Shift the content of images [N, C, H, W] by shift_px [N, 2] as x, y, and scale it.

    `scale` [N] enlarges about the image's centre. Values are interpolated linearly, and repeated
    beyond the edges. Without rotation that is a product with a matrix on either side, which costs
    half of `grid_sample`.
    """
    height, width = images.shape[-2:]
    rows = _interpolation(height, shift_px[:, 1], scale)
    columns = _interpolation(width, shift_px[:, 0], scale)
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def randomly_degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Degrade images [N, C, H, W] in [−1, 1] at random: gamma, blur, noise and occlusion.

    Without knowledge of the real domain, as one would try before training a refiner: gamma 0.6 to
    1.6, Gaussian blur of up to 1.2 pixels, noise of up to 8% of the range, and over every second
    image a grey box of up to 30% of either side. `generator` is a CPU's.
    """
    count, channels, height, width = images.shape
    draws = torch.rand(9, count, 1, 1, 1, generator=generator).to(images.device, non_blocking=True)
    gamma, blur, noise, box_level, has_box, *box = draws
    toned = (0.5 * images + 0.5).clamp(0, 1) ** (0.6 * (1.6 / 0.6) ** gamma)
    blurred = _blurred(toned, 0.05 + 1.15 * blur[:, 0, 0, 0])
    grain = torch.randn(count, channels, height, width, generator=generator)
    noisy = blurred + 0.08 * noise * grain.to(images.device, non_blocking=True)
    covered = (has_box < 0.5) & _boxes(height, width, *box)
    return torch.where(covered, box_level, noisy).clamp(0, 1) * 2 - 1


def _blurred(images: Tensor, sd_px: Tensor) -> Tensor:
    """Smooth images [N, C, H, W] with Gaussians of `sd_px` [N], edges repeated."""
    rows, columns = (_smoothing(size, sd_px) for size in images.shape[-2:])
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _smoothing(size: int, sd_px: Tensor) -> Tensor:
    """Return matrices [N, size, size] whose rows are Gaussians round the diagonal, summing to 1."""
    place = torch.arange(size, dtype=torch.float32, device=sd_px.device)
    distance = (place[:, None] - place) / sd_px[:, None, None]
    return torch.softmax(-0.5 * distance**2, dim=2)


def _boxes(
    height: int, width: int, middle_y: Tensor, middle_x: Tensor, size_y: Tensor, size_x: Tensor
) -> Tensor:
    """Return where boxes cover images, bool [N, 1, H, W]; all draws are shares in 0…1."""
    y = (torch.arange(height, device=size_y.device)[:, None] + 0.5) / height
    x = (torch.arange(width, device=size_x.device) + 0.5) / width
    return ((y - middle_y).abs() < 0.15 * size_y) & ((x - middle_x).abs() < 0.15 * size_x)


def _interpolation(size: int, shift_px: Tensor, scale: Tensor) -> Tensor:
    """Return interpolation matrices [N, size, size]: row i has the weights of output pixel i."""
    place = torch.arange(size, dtype=torch.float32, device=scale.device)
    middle = (size - 1) / 2
    source = (place - middle - shift_px[:, None]) / scale[:, None] + middle
    distance = source.clamp_(0, size - 1)[..., None] - place
    # In place: three temporaries of this size would cost more than the products.
    return distance.abs_().neg_().add_(1).clamp_(min=0)
