"""What becomes of memory that a network's layers gave back: glibc's thresholds."""

import ctypes
import os
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # numbers of glibc's malloc.h
_KEPT_BYTES = 512 * 2**20
"""How much freed memory stays with the process at most."""
_MAPPED_BYTES = 32 * 2**20
"""Blocks from this size on are still given back at once."""


@cache
def keep_freed_memory() -> None:
    """Let this process keep what it freed for its next allocations.

    Where there is no glibc it does nothing, and what the environment sets (MALLOC_…) holds.

    By default glibc gives maps of a few megabytes back to the kernel after every layer, which
    clears the pages anew when the next one asks: a tenth to a quarter of a training step of a small
    network. It changes no result.
    """
    if not sys.platform.startswith("linux") or any(
        name.startswith("MALLOC_") for name in os.environ
    ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
