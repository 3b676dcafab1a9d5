"""Atomic file writes: write beside the target, fsync, then rename into place."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from simgan_core.errors import UnavailableError

_FULL_BYTES = 65_536
"""With less free than this, the disk was too small for a file that could not be written."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends without an exception.

    A crash, a power cut or an exception leaves what was at `path` before. The folder is made. Only
    one process at a time may write a path. Raises `UnavailableError` where the disk is full.

    >>> with atomic_write(path) as file:
    ...     file.write(text.encode())
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One fixed name: what a killed process left is overwritten by the next.
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        # PyTorch's writer reports a full disk by RuntimeErrors of many wordings.
        is_full = isinstance(error, OSError | RuntimeError) and _is_full(path.parent)
        # A torn file would keep a full disk full.
        partial.unlink(missing_ok=True)
        if is_full:
            raise UnavailableError(
                f"no space left for {path}: make room there, then run the same command again; it "
                "goes on from what was there before"
            ) from error
        raise
    partial.replace(path)
    _sync_folder(path.parent)


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _FULL_BYTES


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
