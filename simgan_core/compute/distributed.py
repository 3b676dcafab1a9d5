"""Distributed data-parallel training: process group and distributed context.

`torchrun --nproc-per-node=N` starts the processes and gives each its rank. All hold the same
weights: every update uses the mean of all ranks' gradients, as if one process had computed the
whole batch.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class DistributedContext:
    """Rank of this process and number of processes; by default a single process."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """True in the process that reports and saves."""
        return self.rank == 0

    def part_of(self, batch: Tensor) -> Tensor:
        """Return this rank's n rows of a batch [size·n, …]."""
        return batch[self.rank :: self.size]

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating-point tensors by their means over all ranks, in place."""
        if self.size == 1:
            return
        # One message instead of one for each tensor.
        together = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(together)
        together /= self.size
        parts = torch.split(together, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def share(self, content: Any) -> Any:
        """Broadcast the first rank's content to every rank."""
        if self.size == 1:
            return content
        shared = [content]
        distributed.broadcast_object_list(shared, src=0)
        return shared[0]

    def gather(self, content: Any) -> list[Any]:
        """Gather every rank's content, in order, on every rank."""
        if self.size == 1:
            return [content]
        gathered: list[Any] = [None] * self.size
        distributed.all_gather_object(gathered, content)
        return gathered


ALONE = DistributedContext()
"""Context of a single process."""


def join_process_group(device: torch.device) -> DistributedContext:
    """Join the process group of `torchrun`; `ALONE` in a process that it did not start.

    The backend is NCCL on GPUs and gloo on CPUs. Leave with `leave_process_group`.
    """
    if "WORLD_SIZE" not in os.environ:
        return ALONE
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return DistributedContext(distributed.get_rank(), distributed.get_world_size())


def leave_process_group() -> None:
    """Leave the process group, if this process joined one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
