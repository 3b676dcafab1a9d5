"""Distributed data-parallel training: process group and distributed context.

`torchrun --nproc-per-node=N` starts them and tells each its rank. They hold the same weights: every
update is along the mean of all ranks' gradients, as if one process had computed the whole batch.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class DistributedContext:
    """This process's place among the others; alone unless told otherwise."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is this process that reports and saves."""
        return self.rank == 0

    def part_of(self, batch: Tensor) -> Tensor:
        """Return this rank's part of a batch [size·n, …], an n-th of its rows."""
        return batch[self.rank :: self.size]

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating-point tensors by their means over all ranks, in place."""
        if self.size == 1:
            return
        # One message instead of one a tensor.
        together = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(together)
        together /= self.size
        parts = torch.split(together, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def share(self, content: Any) -> Any:
        """Return what the first rank gave here, on every rank."""
        if self.size == 1:
            return content
        shared = [content]
        distributed.broadcast_object_list(shared, src=0)
        return shared[0]

    def gather(self, content: Any) -> list[Any]:
        """Return what every rank gave here, in order, on every rank."""
        if self.size == 1:
            return [content]
        gathered: list[Any] = [None] * self.size
        distributed.all_gather_object(gathered, content)
        return gathered


ALONE = DistributedContext()
"""One process that trains by itself."""


def join_process_group(device: torch.device) -> DistributedContext:
    """Meet the processes that `torchrun` started with this one; alone where it started none.

    They speak NCCL among GPUs and gloo among CPUs. Leave with `leave_process_group`.
    """
    if "WORLD_SIZE" not in os.environ:
        return ALONE
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return DistributedContext(distributed.get_rank(), distributed.get_world_size())


def leave_process_group() -> None:
    """Say goodbye to the other processes, where there are any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
