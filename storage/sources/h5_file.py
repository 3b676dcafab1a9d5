"""Reading of HDF5 files, with an error where a file is damaged or cut while it is read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from storage.errors import SourceError


@contextmanager
def opened_h5(path: Path | str) -> Iterator[Any]:
    """Open an HDF5 file for reading.

    Raises SourceError where it is damaged, or shorter at the end than it was at the beginning:
    past the end of a file that was cut after it was opened, HDF5 reads zeros without an error.
    """
    num_bytes = os.stat(path).st_size  # noqa: PTH116  a path may be text
    try:
        opened = h5py.File(path, "r")
    except OSError as error:
        if error.errno is not None:
            raise
        raise SourceError(f"{path} is damaged, or no HDF5 file: {error}") from error
    with opened:
        yield opened
    left = os.stat(path).st_size  # noqa: PTH116
    if left < num_bytes:
        raise SourceError(
            f"{path} was cut while it was read: {left} of its {num_bytes} bytes are left; write "
            "the whole file again, then run the same command again"
        )
