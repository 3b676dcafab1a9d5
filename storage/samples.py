"""Samples on their way between sources, datasets and tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8] | NDArray[np.uint16]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Rejection:
    """Why a row is not valid."""

    row: int
    """Row of the dataset, counted from 0."""
    id: str
    """The sample's name in its source."""
    reason: str
    """What was wrong, for people; the same fault reads the same, so that reasons can be counted."""
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


def concatenated(blocks: Sequence[SampleBlock]) -> SampleBlock:
    """Return neighbouring blocks, at least one, as one."""
    if len(blocks) == 1:
        return blocks[0]
    return SampleBlock(
        images=np.concatenate([block.images for block in blocks]),
        valid=np.concatenate([block.valid for block in blocks]),
        ids=[name for block in blocks for name in block.ids],
        labels={
            name: np.concatenate([block.labels[name] for block in blocks])
            for name in blocks[0].labels
        },
        rejections=tuple(rejection for block in blocks for rejection in block.rejections),
    )


def renumbered(block: SampleBlock, by: int) -> SampleBlock:
    """Return a block whose rows are counted so many higher."""
    rejections = (replace(rejection, row=rejection.row + by) for rejection in block.rejections)
    return replace(block, rejections=tuple(rejections))
