"""Terminal output of a command: what is done in words, a live bar for the stage that runs.

Records of our own loggers whose `extra` has `done` and `total` move the bar; all others are lines.
Prefect's own records are shown with `-v` alone. What goes to a pipe has no bar, but plain lines.
"""

import errno
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from flows.cli.environment import OWN_LOGGERS
from tasks.runtime.paths import home

Verbosity = Literal["quiet", "normal", "verbose"]

# Prefect reads the level of its console handler from here when it is imported.
_CONSOLE_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
_LEVELS: dict[Verbosity, str] = {"quiet": "ERROR", "normal": "WARNING", "verbose": "NOTSET"}


@contextmanager
def terminal_output(verbosity: Verbosity) -> Iterator[None]:
    """Show logs while the block runs; call it before Prefect is imported.

    quiet: errors alone. normal: our own messages, warnings and errors. verbose: also every state
    of a flow or task run. An error is named once, and its traceback is in a file.
    """
    os.environ.setdefault(_CONSOLE_LEVEL, _LEVELS[verbosity])
    loggers = [logging.getLogger(name) for name in OWN_LOGGERS]
    for logger in loggers:
        logger.setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)
    # MLflow logs the traceback of a database error that it then raises.
    logging.getLogger("mlflow.store.db.utils").addFilter(_without_traceback)
    if verbosity != "normal":
        yield
        return
    handler = _TerminalHandler(Console(stderr=True, highlight=False))
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


class _TerminalHandler(logging.Handler):
    """Prints messages below WARNING; Prefect's console handler has the others."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._bar = self._progress.add_task("", visible=False)

    def emit(self, record: logging.LogRecord) -> None:
        """Move the bar by a record of progress, print any other."""
        if record.levelno >= logging.WARNING:
            return
        total = getattr(record, "total", None)
        if total is None or not self._console.is_terminal:
            self._console.print(record.getMessage(), markup=False, soft_wrap=True)
            return
        done = getattr(record, "done", 0)
        self._progress.update(
            self._bar,
            completed=done,
            total=total,
            description=record.getMessage(),
            visible=done < total,
        )
        self._progress.start()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._progress.live.is_started:
            self._progress.stop()
        super().close()


def is_full_disk(error: BaseException | None) -> bool:
    """Whether the operating system had no room for what was written."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def written_log(error: BaseException) -> str:
    """Write an error's traceback to a file under SIMGAN_HOME and return where it is."""
    text = "".join(traceback.format_exception(error))
    folder = home() / "logs"
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{' '.join(map(repr, sys.argv))}\n{text}", encoding="utf-8")
    except OSError as unwritable:
        return f"where it happened could not be written to {path} ({unwritable.strerror})"
    return f"where it happened is in {path}"


def _without_traceback(record: logging.LogRecord) -> bool:
    """Drop the traceback, which would bury the sentence that says what happened."""
    record.exc_info, record.exc_text = None, None
    return True
