"""Atomic writes of files: write beside, make durable, rename.

with atomic_write(path) as partial:
    partial.write_bytes(data)           # path is the old file until here, or none
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""End of the names of files that are being written; zarr's own partial files have it too."""

_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Error numbers of file systems that cannot sync a folder (some network and FUSE ones)."""


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Replace a file atomically by what the block writes to the yielded path.

    After an error `path` is as it was, and what was written is removed; a killed process leaves a
    file `NAME.….partial`. The folder exists.

    Args:
        path: The file to write.
        durable: Wait until disk and folder have the file, so that it survives a power cut. Left
            out for many small files that are made again in that case: it takes milliseconds each.
    """
    with partial_file(path) as partial:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
        if durable:
            sync(path.parent)


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`, removed at the end of the block."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)
