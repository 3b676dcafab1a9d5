"""Blocks of samples: images, labels, ids and validity, by rows."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8] | NDArray[np.uint16]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Rejection:
    """Reason why a row is not valid."""

    row: int
    """Row of the dataset, counted from 0."""
    id: str
    """The sample's name in its source."""
    reason: str
    """Fault in words; equal faults have equal words, so that reasons can be counted."""
    by_choice: bool = False
    """Left out by an option and not bad: it does not count against the share of bad samples."""


@dataclass(frozen=True)
class SampleBlock:
    """n samples: neighbouring rows of a source or dataset, or all of it."""

    images: Images
    """uint8 or uint16 [n, H, W, C], as a person would view them; zeros where the source was bad."""
    valid: NDArray[np.bool_]
    """bool [n]; false where the source was bad or refinement spoilt the row."""
    ids: list[str]
    """n names, unique in the dataset."""
    labels: dict[str, Floats]
    """By name, float32 [n, …]; NaN where the source was bad or does not know."""
    rejections: tuple[Rejection, ...] = ()
    """One for every row that is not valid."""

    def __len__(self) -> int:
        return len(self.ids)


def concatenated(blocks: Iterable[SampleBlock], num_rows: int) -> SampleBlock:
    """Concatenate neighbouring blocks to one of `num_rows` rows, their sum.

    A block is let go as soon as the next one is asked for: of blocks that are made one by one, no
    two copies are in memory.
    """
    parts = iter(blocks)
    first = next(parts)
    if len(first) == num_rows:
        return first
    images = np.empty((num_rows, *first.images.shape[1:]), first.images.dtype)
    valid = np.empty(num_rows, bool)
    labels = {
        name: np.empty((num_rows, *label.shape[1:]), np.float32)
        for name, label in first.labels.items()
    }
    ids: list[str] = []
    rejections: list[Rejection] = []
    for block in chain([first], parts):
        rows = slice(len(ids), len(ids) + len(block))
        images[rows], valid[rows] = block.images, block.valid
        for name, label in labels.items():
            label[rows] = block.labels[name]
        ids.extend(block.ids)
        rejections.extend(block.rejections)
    assert len(ids) == num_rows
    return SampleBlock(images, valid, ids, labels, tuple(rejections))


def renumbered(block: SampleBlock, by: int) -> SampleBlock:
    """Return a block with its rows' numbers raised by `by`."""
    rejections = (replace(rejection, row=rejection.row + by) for rejection in block.rejections)
    return replace(block, rejections=tuple(rejections))
