"""Compute settings: device, precision, micro-batch size and distributed context."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from simgan_core.compute.distributed import ALONE, DistributedContext

_LARGE_GPU_BYTES = 20 * 2**30
EYE_SIZE = (35, 55)
"""Height and width of the images that micro-batches were chosen with."""

NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class ComputeSettings:
    """Device, precision (mixed precision where it is bf16), micro-batch size, process group.

    Two runs agree bit for bit only with the same settings, so a checkpoint records them.
    """

    device: torch.device
    precision: Literal["fp32", "bf16"]
    micro_batch_size: int
    distributed: DistributedContext = ALONE
    """Process group that computes a batch together."""

    def autocast(self) -> torch.autocast:
        """Return the mixed-precision context of a forward pass; enter a new one for each.

        A long-lived autocast context keeps the weights that it cast first, and everything computed
        after an optimiser step would silently use the old ones.
        """
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    def micro_batches(self, *batches: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Split equally long batches along their first axis, the tail included."""
        return zip(*(torch.split(batch, self.micro_batch_size) for batch in batches), strict=True)


def choose_compute_settings(
    device: torch.device | str,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    micro_batch_size: int | None = None,
) -> ComputeSettings:
    """Resolve "auto" and None to the settings that train fastest on the device."""
    device = torch.device(device)
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    if micro_batch_size is None:
        micro_batch_size = 512 if device.type == "cuda" else 64 if precision == "bf16" else 16
    return ComputeSettings(device, precision, micro_batch_size)


def choose_inference_settings(
    device: torch.device | str,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    micro_batch_size: int | None = None,
    image_size: tuple[int, int] = EYE_SIZE,
) -> ComputeSettings:
    """Resolve "auto" and None to the settings that refine images [H, W] fastest on the device.

    The choice follows from the kind of device and the size of images alone, never from a timing:
    the same images refined twice on one machine are the same bits.
    """
    device = torch.device(device)
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    if micro_batch_size is None:
        micro_batch_size = 16
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
            micro_batch_size = gpu_micro_batch_size(total, image_size)
    return ComputeSettings(device, precision, micro_batch_size)


def gpu_micro_batch_size(memory_bytes: int, image_size: tuple[int, int]) -> int:
    """Return the micro-batch size of a GPU for images [H, W], inverse to their area.

    The paper's refiner, captured three times, takes 7 GB with 2,048 eyes of 35×55 at once.
    """
    num_eyes = 2048 if memory_bytes > _LARGE_GPU_BYTES else 512
    return max(1, min(num_eyes, num_eyes * math.prod(EYE_SIZE) // math.prod(image_size)))


def has_fast_bf16(device: torch.device) -> bool:
    """Return true where bf16 convolutions are faster than fp32: GPUs, AMX tiles, AMD's bf16.

    On AMD processors with AVX512-bf16 (Zen 4 and later) they take half the time, in training too;
    on Intel's without AMX they take longer.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("amx_bf16", False):
        return True
    is_amd = str(capabilities.get("cpu_name", "")).startswith("AMD")
    return is_amd and bool(capabilities.get("avx512_bf16", False))


def to_channels_last(network: NetworkT, device: torch.device) -> NetworkT:
    """Move a network to the device, its weights laid out for channels-last images."""
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
