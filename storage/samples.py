"""Samples on their way between sources, datasets and tasks."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class SampleBlock:
    """n samples: neighbouring rows of a source or dataset, or all of it."""

    images: Images
    """uint8 or uint16 [n, H, W, C], as a person would view them; zeros where not valid."""
    valid: NDArray[np.bool_]
    """bool [n]; false where the source was bad."""
    ids: list[str]
    """n names, unique in the dataset."""
    labels: dict[str, Floats]
    """By name, float32 [n, …]; NaN where not valid or not known."""
    rejections: tuple[Rejection, ...] = ()
    """One for every row that is not valid."""

    def __len__(self) -> int:
        return len(self.ids)
