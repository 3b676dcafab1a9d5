"""Reading a source with all cores: pieces of rows, each decoded by a process of its own.

This module is what those processes load, so it is kept free of Prefect.
"""

import atexit
import math
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace

import numpy as np

from simgan_core.preprocess import Preprocess, preprocess
from storage.samples import SampleBlock, concatenated
from storage.sources.selection import Selection
from storage.sources.source import Source

ROWS_A_PIECE = 256
PIECE_BYTES = 1 << 25
"""Of large images a piece has fewer rows: every process has one in memory, and some wait."""
WORTH_PROCESSES = 1024
"""Starting the processes takes as long as decoding about so many samples in this one."""

_READING: tuple["Selection | Source", Preprocess] | None = None
"""What a reading process reads, told to it once."""


class Reader:
    """Reads rows of a source, preprocessed; threads may share one.

    Args:
        rows: A source whose rows are a dataset's, or a selection of one.
        kind: The dataset's preprocessing.
    """

    def __init__(self, rows: Selection | Source, kind: Preprocess) -> None:
        self._rows, self._kind = rows, kind
        source = rows.source if isinstance(rows, Selection) else rows
        image_bytes = math.prod(source.image_shape) * np.dtype(source.dtype).itemsize
        self._rows_a_piece = min(ROWS_A_PIECE, max(1, PIECE_BYTES // image_bytes))
        self._pool = None
        if source.decodes and len(rows) > WORTH_PROCESSES:
            # A fork of this process, which has threads, could hang; a fork of a bare one not.
            context = multiprocessing.get_context("forkserver")
            # Loaded once, and not by every process.
            context.set_forkserver_preload([__name__, type(source).__module__])
            self._pool = ProcessPoolExecutor(
                num_cores(),
                mp_context=context,
                initializer=_begin,
                initargs=(rows, kind),
            )
            atexit.register(self.close)

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return rows start to stop − 1."""
        if self._pool is None:
            return _read(self._rows, self._kind, start, stop)
        pieces = deque(
            self._pool.submit(_read_piece, first, min(first + self._rows_a_piece, stop))
            for first in range(start, stop, self._rows_a_piece)
        )
        return concatenated(_results(pieces), stop - start)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            atexit.unregister(self.close)
            self._pool = None


def _results(pieces: deque[Future[SampleBlock]]) -> Iterator[SampleBlock]:
    """Yield results in order; each piece is forgotten with it."""
    while pieces:
        yield pieces.popleft().result()


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _begin(rows: Selection | Source, kind: Preprocess) -> None:
    global _READING  # noqa: PLW0603  the only way to tell a pool's processes something once
    _READING = rows, kind
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Killed, a parent does not end its pool, whose processes would wait for work for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _read_piece(start: int, stop: int) -> SampleBlock:
    assert _READING is not None
    return _read(*_READING, start, stop)


def _read(rows: Selection | Source, kind: Preprocess, start: int, stop: int) -> SampleBlock:
    """Read rows and apply the dataset's preprocessing, unless the images have had it already."""
    block = rows.read(start, stop)
    source = rows.source if isinstance(rows, Selection) else rows
    if kind in ("none", source.preprocess):
        return block
    images = preprocess(block.images, kind)
    images[~block.valid] = 0
    return replace(block, images=images)
