"""Read samples one by one: good ones become rows, bad ones rejections with a reason.

One bad sample never ends an ingestion: whatever reading it raises becomes its rejection, except
what the machine does (a full disk, a server that does not answer), which is worth another attempt.
"""

import errno
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.samples import Rejection, SampleBlock, concatenated
from storage.sources.listing import NOT_UTF8
from storage.sources.source import Source

logger = logging.getLogger(__name__)

MAX_DAMAGED = 64
"""Damaged rows of a block above which the file itself counts as damaged."""

_OF_THE_MACHINE = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EDQUOT", "EINTR", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC"),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETRESET", "ENETUNREACH", "ENOTCONN", "EPIPE", "EREMOTEIO", "ESHUTDOWN", "ESTALE"),
        "ETIMEDOUT",
    )
)
"""Error numbers of the machine, not of a sample: another attempt may read the same file."""


class BadSampleError(Exception):
    """One sample cannot be used; its message becomes the rejection's reason."""


class LeftOutError(BadSampleError):
    """One sample is left out by an option of the ingestion, though nothing is wrong with it."""


Sample = tuple[NDArray[Any], dict[str, NDArray[np.float32]]]
"""An image [H, W, C] and its labels by name; a label that is not known is left away."""


def read_rows(
    source: Source, start: int, stop: int, read_one: Callable[[str], Sample]
) -> SampleBlock:
    """Return samples start to stop − 1 of a source, of which `read_one` reads each by its name.

    Those for which it raises are not valid, and rejected with the reason (see `rejected`).
    """
    block = blank_rows(source, start, stop)

    def read_into_block(place: int, name: str) -> None:
        image, known = read_one(name)
        for label, value in known.items():
            block.labels[label][place] = value
        block.images[place] = image

    block = tried(block, start, read_into_block)
    blank_rejected(block)
    return block


def blank_rejected(block: SampleBlock) -> None:
    """Set the images of rejected rows to zeros and their labels to NaN."""
    block.images[~block.valid] = 0
    for label in block.labels.values():
        label[~block.valid] = np.nan


def blank_rows(source: Source, start: int, stop: int) -> SampleBlock:
    """Return blank rows for samples start to stop − 1 of a source, all valid so far."""
    ids = source.ids(start, stop)
    return SampleBlock(
        images=np.zeros((len(ids), *source.image_shape), source.dtype),
        valid=np.ones(len(ids), bool),
        ids=ids,
        labels={
            spec.name: np.full((len(ids), *spec.shape), np.nan, np.float32)
            for spec in source.labels
        },
    )


def tried(block: SampleBlock, start: int, try_one: Callable[[int, str], None]) -> SampleBlock:
    """Call `try_one` with place and name of every valid row; reject those that raise.

    Those for which it raises are rejected (see `rejected`); the block's first row is row `start`
    of its source.
    """
    rejections = list(block.rejections)
    valid = block.valid.copy()
    for place in np.flatnonzero(valid).tolist():
        name = block.ids[place]
        try:
            try_one(place, name)
        except Exception as error:  # noqa: BLE001  the boundary of a sample
            rejections.append(rejected(start + place, name, error))
            valid[place] = False
    rejections.sort(key=lambda rejection: rejection.row)
    return replace(block, valid=valid, rejections=tuple(rejections))


def rejected(row: int, name: str, error: Exception) -> Rejection:
    """Return the rejection of a sample that reading raised an error for.

    The reason is a BadSampleError's message, and of another error what kind it is. Raises the error
    where it is the machine's.
    """
    if NOT_UTF8 in name:
        reason = "the file's name is not UTF-8; rename it"
        return Rejection(row, name, reason)
    if isinstance(error, BadSampleError):
        return Rejection(row, name, str(error), isinstance(error, LeftOutError))
    if isinstance(error, OSError):
        if error.errno in _OF_THE_MACHINE or isinstance(error, ConnectionError | TimeoutError):
            raise error
        reason = f"the file cannot be read: {error.strerror or type(error).__name__}"
    else:
        reason = f"reading it failed with {type(error).__name__}"
    logger.info("%s: %s", name, reason, exc_info=error)
    return Rejection(row, name, reason)


def read_together(
    source: Source, start: int, stop: int, read: Callable[[int, int], SampleBlock]
) -> SampleBlock:
    """Return `read(start, stop)`, for a source that reads many samples at once.

    Where it raises, its halves are read and theirs, until those samples are alone that it raises
    for; they are rejected. Raises SourceError where it raises that for all of them, or for more
    than MAX_DAMAGED.
    """
    stop = min(stop, len(source))
    most_damaged = min(MAX_DAMAGED, stop - start - 1)
    damaged = 0

    def halves(start: int, stop: int) -> Iterator[SampleBlock]:
        nonlocal damaged
        try:
            block = read(start, stop)
        except Exception as error:
            if stop - start > 1:
                middle = (start + stop) // 2
                yield from halves(start, middle)
                yield from halves(middle, stop)
                return
            damaged += isinstance(error, SourceError)
            if damaged > most_damaged:
                raise
            block = blank_rows(source, start, stop)
            block.valid[:] = False
            block = replace(block, rejections=(rejected(start, block.ids[0], error),))
            blank_rejected(block)
        yield block

    return concatenated(halves(start, stop), stop - start)
