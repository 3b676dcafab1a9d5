"""Progress of bulk work: images done, rate and time left, in the log and as a Prefect artifact.

Finished shards are counted in the dataset itself, whichever process wrote them.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Self, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from storage.writer import DatasetWriter
from tasks.runtime.stages import position

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_REPORTS = 5.0


@contextmanager
def reported_progress(to: str) -> Iterator[None]:
    """Report the progress of a dataset's writing every few seconds, until the block ends.

    Where Prefect's server does not answer, a report is lost; the work goes on.
    """
    writer = DatasetWriter.attach(to)
    progress = _Progress(writer)
    bar = ProgressBar.begin("refinement-progress", progress.percent(), progress.words())
    ended = threading.Event()
    # In this run's context, so that what is logged is logged as the run's.
    report = partial(copy_context().run, _report, progress, bar, ended)
    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()


class ProgressBar:
    """Progress artifact on the run's page in Prefect; a failed update is only logged."""

    def __init__(self, artifact: UUID) -> None:
        """Wrap an existing progress artifact."""
        self._artifact = artifact

    @classmethod
    def begin(cls, key: str, percent: float, words: str) -> Self:
        """Create a progress artifact of the current run."""
        # A coroutine only where the caller is one.
        return cls(cast("UUID", create_progress_artifact(percent, key, words)))

    def update(self, percent: float, words: str) -> None:
        """Update percentage and description."""
        try:
            update_progress_artifact(self._artifact, percent, words)
        except Exception as error:  # noqa: BLE001  the next report may get through
            logger.warning("progress could not be reported, the work continues: %s", error)


class _Progress:
    """Number of finished rows of a dataset, and the rate since this counter was made."""

    def __init__(self, writer: DatasetWriter) -> None:
        self._writer = writer
        self._num_rows = writer.spec.num_rows
        self._began = time.monotonic()
        self._done_before = self._done = writer.num_rows_done()

    def update(self) -> bool:
        """Count again; returns true where there are more."""
        before, self._done = self._done, self._writer.num_rows_done()
        return self._done > before

    def position(self) -> dict[str, object]:
        return position("refining", self._done, self._num_rows)

    def percent(self) -> float:
        return 100.0 * self._done / self._num_rows

    def words(self) -> str:
        words = f"{self._done:,} of {self._num_rows:,} images"
        rate = (self._done - self._done_before) / max(time.monotonic() - self._began, 1e-9)
        if rate == 0:
            return words
        left = timedelta(seconds=round((self._num_rows - self._done) / rate))
        return f"{words}, {rate:,.0f} a second, {left} left"


def _report(progress: _Progress, bar: ProgressBar, ended: threading.Event) -> None:
    at_end = False
    while not at_end:
        at_end = ended.wait(SECONDS_BETWEEN_REPORTS)
        try:
            if progress.update() or at_end:
                logger.info("%s", progress.words(), extra=progress.position())
                bar.update(progress.percent(), progress.words())
        except Exception as error:  # noqa: BLE001  the next report may get through
            logger.warning("progress could not be reported, the work continues: %s", error)
