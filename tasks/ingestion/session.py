"""Ingestion session: what the tasks of one ingestion share in a process, opened once."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from simgan_core.compute.malloc import return_freed_blocks
from simgan_core.data.preprocess import Preprocess
from storage.appending import select_new
from storage.exclusive_lock import exclusive_lock
from storage.sources.options import SourceOptions
from storage.sources.source import Source
from storage.writer import DatasetWriter
from tasks.ingestion.landmarks import open_source
from tasks.ingestion.reading import Reader


class _Opened(NamedTuple):
    """Reader of the rows to ingest and writer of their shards, with their parameters.

    Both take memory and processes, so a session has one of each.
    """

    listing_digest: str
    preprocess: Preprocess
    num_kept: int
    reader: Reader
    writer: DatasetWriter


class IngestionSession:
    """One ingestion of a source into a dataset; its tasks run in threads and share it.

    Pickled for tasks in another process, such as Dask's workers, it is one session there too.

    Args:
        source: Options of the source.
        to: Path or URL of the dataset.
    """

    def __init__(self, source: SourceOptions, to: str) -> None:
        self.source, self.to = source, to
        self._token = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._listed: Source | None = None
        self._opened: _Opened | None = None

    def __reduce__(self) -> tuple[Any, tuple[SourceOptions, str, str]]:
        return _received, (self.source, self.to, self._token)

    def list_source(self) -> Source:
        """List the source's files anew; the first shards to be read use the same listing."""
        listed = open_source(self.source)
        with self._lock:
            self._close()
            self._listed = listed
        return listed

    def open(
        self, listing_digest: str, preprocess: Preprocess, num_kept: int
    ) -> tuple[Reader, DatasetWriter]:
        """Return the reader and the writer of the shards.

        Raises ValueError where the files are no longer those that were listed at the start.
        """
        wanted = (listing_digest, preprocess, num_kept)
        with self._lock:
            if self._opened is None or self._opened[:3] != wanted:
                listed = self._listed or open_source(self.source)
                self._close()
                if listed.content_digest() != listing_digest:
                    raise ValueError(
                        f"the files of {self.source} changed while they were being ingested; "
                        "run the same command again, with --overwrite if it reports another dataset"
                    )
                rows = select_new(self.to, listed) if num_kept else listed
                reader, writer = Reader(rows, preprocess), DatasetWriter.attach(self.to)
                self._opened = _Opened(*wanted, reader, writer)
            return self._opened.reader, self._opened.writer

    def writer(self) -> DatasetWriter:
        """Return the writer of the shards, which knows their names, or a new one."""
        with self._lock:
            if self._opened is not None:
                return self._opened.writer
        return DatasetWriter.attach(self.to)

    def close(self) -> None:
        """End the reader's processes."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.reader.close()
        self._opened = self._listed = None


_RECEIVING = threading.Lock()
_RECEIVED: dict[str, IngestionSession] = {}
"""In a process that is sent sessions: the last one, which its tasks unpickle one by one."""


def _received(source: SourceOptions, to: str, token: str) -> IngestionSession:
    """Return this process's session for the one that was pickled; close that of another run."""
    with _RECEIVING:
        if token not in _RECEIVED:
            for session in _RECEIVED.values():
                session.close()
            _RECEIVED.clear()
            _RECEIVED[token] = IngestionSession(source, to)
        return _RECEIVED[token]


@contextmanager
def sole_ingestion(source: SourceOptions, to: str) -> Iterator[IngestionSession]:
    """Open a session, the only one into its dataset.

    Raises DatasetBusyError with the other one's host and process.
    """
    return_freed_blocks()
    with exclusive_lock(to, "ingesting"):
        session = IngestionSession(source, to)
        try:
            yield session
        finally:
            session.close()
