"""Parallel reading of a source: pieces of rows, decoded by one process a core."""

import atexit
import math
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np

from simgan_core.data.preprocess import Preprocess
from storage.samples import SampleBlock, concatenated
from storage.sources.selection import Selection
from tasks.ingestion.decoding import DecodingProcess, Rows, read_preprocessed
from tasks.runtime.policies import is_dask_worker, stop_if_told

ROWS_A_PIECE = 256
PIECE_BYTES = 1 << 25
"""Largest piece, in bytes: large images make pieces of fewer rows."""
WORTH_PROCESSES = 1024
"""Samples above which decoding processes pay for their start."""


class Reader:
    """Reader of a source's rows, preprocessed; threads may share one.

    Args:
        rows: A source whose rows are a dataset's, or a selection of one.
        kind: The dataset's preprocessing.
    """

    def __init__(self, rows: Rows, kind: Preprocess) -> None:
        self._rows, self._kind = rows, kind
        source = rows.source if isinstance(rows, Selection) else rows
        image_bytes = math.prod(source.image_shape) * np.dtype(source.dtype).itemsize
        self._rows_a_piece = min(ROWS_A_PIECE, max(1, PIECE_BYTES // image_bytes))
        self._processes: list[DecodingProcess] = []
        self._idle: SimpleQueue[DecodingProcess] = SimpleQueue()
        if source.decodes and len(rows) > WORTH_PROCESSES:
            self._processes = [DecodingProcess(rows, kind) for _ in range(num_decoders())]
        if self._processes:
            for process in self._processes:
                self._idle.put(process)
            # A thread for each process, which waits for its answers.
            self._threads = ThreadPoolExecutor(len(self._processes))
            atexit.register(self.close)

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return rows start to stop − 1; raises StoppedError where the run was cancelled."""
        stop_if_told()
        if not self._processes:
            return read_preprocessed(self._rows, self._kind, start, stop)
        pieces = deque(
            self._threads.submit(self._read_piece, first, min(first + self._rows_a_piece, stop))
            for first in range(start, stop, self._rows_a_piece)
        )
        return concatenated(_results(pieces), stop - start)

    def close(self) -> None:
        """End the processes."""
        if self._processes:
            self._threads.shutdown(cancel_futures=True)
            for process in self._processes:
                process.close()
            self._processes.clear()
            atexit.unregister(self.close)

    def _read_piece(self, start: int, stop: int) -> SampleBlock:
        process = self._idle.get()
        try:
            return process.read(start, stop)
        finally:
            self._idle.put(process)


def _results(pieces: deque[Future[SampleBlock]]) -> Iterator[SampleBlock]:
    """Yield results in order; each piece is forgotten with it."""
    while pieces:
        stop_if_told()
        yield pieces.popleft().result()


def num_decoders() -> int:
    """Return how many processes decode: one a core; none beside a Dask worker of one thread."""
    if not is_dask_worker():
        return len(os.sched_getaffinity(0))
    num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    return num_threads if num_threads > 1 else 0
