"""glibc malloc settings: mmap and trim thresholds."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # numbers of glibc's malloc.h
_KEPT_BYTES = 512 * 2**20
"""Most freed memory that stays with the process."""
_MAPPED_BYTES = 32 * 2**20
"""Blocks from this size on are still given back at once."""
_RETURNED_BYTES = 16 * 2**20
"""Of shards, blocks from this size on are given back: their images, and no layer's maps."""
_KEPT_BESIDE_SHARDS_BYTES = 64 * 2**20
"""Freed memory that stays with the process beside shards: the feature maps of two layers."""


def keep_freed_memory() -> None:
    """Keep freed memory in this process for its next allocations.

    It does nothing without glibc, and where the environment sets malloc (MALLOC_…).

    By default glibc gives maps of a few megabytes back to the kernel after every layer, which
    clears the pages anew when the next one asks: a tenth to a quarter of a training step of a small
    network. It changes no result. It holds until `return_freed_blocks` is called.
    """
    _set_threshold(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
    _set_threshold(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def return_freed_blocks() -> None:
    """Return blocks of many megabytes to the kernel as soon as they are freed.

    For work on shards, of which one follows another: glibc raises its threshold to the first one
    that is freed and keeps the next ones in its heaps, in pieces. Of 200,000 rows of 35×55 the peak
    was 412 MB, with a threshold of 4 MB 363 to 375; of 33,000, which are two shards, 316 to 322. A
    refinement of 400,000 took 878 MB, with this threshold 749; of 100,000, 716. It holds until
    `keep_freed_memory` is called.
    """
    _set_threshold(_M_MMAP_THRESHOLD, _RETURNED_BYTES)
    _set_threshold(_M_TRIM_THRESHOLD, _KEPT_BESIDE_SHARDS_BYTES)


def _set_threshold(number: int, value: int) -> None:
    if not sys.platform.startswith("linux") or any(
        name.startswith("MALLOC_") for name in os.environ
    ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(number, value)
