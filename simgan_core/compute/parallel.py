"""Parallel map over parts of a batch, one single-threaded worker a core.

Layers that split their work over threads wait at the end of each layer for the slowest, which on
shared machines is a core that somebody else uses; and a small layer does not fill many cores.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

_MOST_IDLE = 1 / 8
"""Largest share of the threads' time that may be idle while the last parts run."""

PartT = TypeVar("PartT")
ResultT = TypeVar("ResultT")


def parallel_map(
    work: Callable[..., ResultT], parts: Iterable[tuple[Tensor, ...]]
) -> Iterator[ResultT]:
    """Yield the work's result for each part, in order; parts run at once and share the threads.

    Of the threads (`torch.get_num_threads`) each part has one, or several where parts are few. In
    the work gradients and inference mode are on where they are here; autocast is not. What the work
    changes besides is its own to guard. On a GPU parts are taken one after the other.
    """
    parts = list(parts)
    num_threads = torch.get_num_threads()
    size = num_parallel(len(parts), num_threads)
    if size == 1 or parts[0][0].device.type != "cpu":
        return (work(*part) for part in parts)
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def alike(part: tuple[Tensor, ...]) -> ResultT:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(*part)

    return _crew(size, num_threads // size).map(alike, parts)


def single_threaded_map(
    work: Callable[[PartT], ResultT], parts: Sequence[PartT]
) -> Iterator[ResultT]:
    """Yield the work's result for each part, in order; parts run at once, each on a single thread.

    Its results are the same bits however many threads there are, which `parallel_map` does not
    promise: sums that layers split over threads have other last bits. Autocast and gradient modes
    are the work's own to set.
    """
    return _crew(max(1, min(len(parts), torch.get_num_threads())), 1).map(work, parts)


def num_parallel(num_parts: int, num_threads: int) -> int:
    """Return the number of parts to run at once: the most that share threads evenly and fully."""

    def is_even(size: int) -> bool:
        turns = math.ceil(num_parts / size)
        return num_threads % size == 0 and turns * size - num_parts <= turns * size * _MOST_IDLE

    sizes = range(2, min(num_parts, num_threads) + 1)
    return max(filter(is_even, sizes), default=1)


@lru_cache
def _crew(size: int, num_threads: int) -> ThreadPoolExecutor:
    """Return this process's pool of `size` workers, each with `num_threads` threads of PyTorch."""
    before = torch.get_num_threads()
    all_set = threading.Barrier(size + 1)

    def begin() -> None:
        torch.get_num_threads()  # which a thread's first call sets to what others begin with
        # It holds for this thread, and as what threads that come later begin with.
        torch.set_num_threads(num_threads)
        all_set.wait()

    crew = ThreadPoolExecutor(size, "core", initializer=begin)
    for _ in range(size):
        crew.submit(bool)
    all_set.wait()
    torch.set_num_threads(before)
    return crew
