"""A selection of a source's samples, as the last rows of a dataset."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from storage.samples import SampleBlock, concatenated, renumbered
from storage.sources.source import Source

NAMES_AT_ONCE = 65_536


class Selection:
    """Samples `places` (int64 [n], ascending) of a source, as rows `first_row` and following."""

    def __init__(self, source: Source, places: NDArray[np.int64], first_row: int) -> None:
        self.source = source
        self._places = places
        self.first_row = first_row

    def __len__(self) -> int:
        return len(self._places)

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return rows start to stop − 1 of the dataset, none before the first row."""
        places = self._places[start - self.first_row : stop - self.first_row]
        breaks = np.flatnonzero(np.diff(places) != 1) + 1
        blocks, row = [], start
        for begin, end in pairwise([0, *breaks.tolist(), len(places)]):
            block = self.source.read(int(places[begin]), int(places[end - 1]) + 1)
            blocks.append(renumbered(block, row - int(places[begin])))
            row += len(block)
        return concatenated(blocks, len(places))


def new_places(source: Source, known_ids: list[str]) -> NDArray[np.int64]:
    """Return the places in a source of the samples whose names are not known yet, int64 [n]."""
    known = frozenset(known_ids)
    places = [
        start + place
        for start in range(0, len(source), NAMES_AT_ONCE)
        for place, name in enumerate(source.ids(start, min(start + NAMES_AT_ONCE, len(source))))
        if name not in known
    ]
    return np.array(places, np.int64)
