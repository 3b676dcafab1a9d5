"""Read samples one by one: good ones become rows, bad ones rejections with a reason."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.samples import Rejection, SampleBlock
from storage.sources.source import Source


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

    Those for which it raises BadSampleError are not valid, and rejected for its message.
    """
    block = blank_rows(source, start, stop)

    def read_into_block(place: int, name: str) -> None:
        block.images[place], known = read_one(name)
        for label, value in known.items():
            block.labels[label][place] = value

    return tried(block, start, read_into_block)


def blank_rows(source: Source, start: int, stop: int) -> SampleBlock:
    """Return rows for samples start to stop − 1 of a source: nothing wrong, but all still to do."""
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
    """Call `try_one` with the place and the name of every valid row of a block.

    Those for which it raises BadSampleError are rejected for its message; the block's first row is
    row `start` of its source.
    """
    rejections = list(block.rejections)
    valid = block.valid.copy()
    for place in np.flatnonzero(valid).tolist():
        name = block.ids[place]
        try:
            try_one(place, name)
        except BadSampleError as error:
            by_choice = isinstance(error, LeftOutError)
            rejections.append(Rejection(start + place, name, str(error), by_choice))
            valid[place] = False
    rejections.sort(key=lambda rejection: rejection.row)
    return replace(block, valid=valid, rejections=tuple(rejections))
