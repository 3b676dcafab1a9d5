"""Terminal output of a command: log lines, progress bars, results.

Records of our own loggers whose `extra` is a `position` (tasks.runtime.stages) move bars; all
others are lines. A pipe gets plain lines instead of bars, of a long stage one now and then.
Prefect's own records, and what other libraries warn of, are shown with `-v` alone.
"""

import errno
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
)
from rich.text import Text

from flows.cli.environment import OWN_LOGGERS
from tasks.runtime.paths import home

Verbosity = Literal["quiet", "normal", "verbose"]

# Prefect reads the level of its console handler from here when it is imported.
_CONSOLE_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
_LEVELS: dict[Verbosity, str] = {"quiet": "ERROR", "normal": "ERROR", "verbose": "NOTSET"}

SECONDS_BETWEEN_LINES = 15.0
"""Between two lines in a pipe of how far one stage is."""


@contextmanager
def terminal_output(verbosity: Verbosity) -> Iterator[None]:
    """Show logs while the block runs; call it before Prefect is imported.

    quiet: errors alone. normal: our own messages, warnings and errors. verbose: also details, every
    state of a flow or task run, and what other libraries warn of. An error is named once, and its
    traceback is in a file.
    """
    os.environ.setdefault(_CONSOLE_LEVEL, _LEVELS[verbosity])
    loggers = [logging.getLogger(name) for name in OWN_LOGGERS]
    for logger in loggers:
        logger.setLevel(logging.DEBUG if verbosity == "verbose" else logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)
    # MLflow logs the traceback of a database error that it then raises.
    logging.getLogger("mlflow.store.db.utils").addFilter(_without_traceback)
    if verbosity != "verbose":
        _silence_libraries()
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


def _silence_libraries() -> None:
    """Hide warnings of libraries on which a user cannot act."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_is_for_people)


class _TerminalHandler(logging.Handler):
    """Prints messages below ERROR; Prefect's console handler has the others."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            transient=True,
        )
        self._stages: dict[str, _Stage] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Move the bar of a stage by a record of its position, print any other record."""
        if record.levelno >= logging.ERROR:
            return
        if record.levelno == logging.WARNING:
            self._print(record.getMessage(), ("warning: ", "yellow"))
            return
        stage = getattr(record, "stage", None)
        if stage is None:
            self._print(record.getMessage())
            return
        done, total = (getattr(record, name) for name in ("done", "total"))
        known = self._stages.setdefault(stage, _Stage(done))
        if self._console.is_terminal:
            self._move(stage, known, done, total)
        elif known.is_due(SECONDS_BETWEEN_LINES):
            self._print(record.getMessage())
        if done >= total:
            del self._stages[stage]

    def _print(self, words: str, mark: tuple[str, str] = ("", "")) -> None:
        if self._console.is_terminal and not mark[0]:
            mark = ("✓ ", "green")
        self._console.print(Text.assemble(mark, words), soft_wrap=not self._console.is_terminal)

    def _move(self, name: str, stage: "_Stage", done: int, total: int) -> None:
        if stage.bar is None:
            stage.bar = self._progress.add_task(name, total=None, pace="")
            self._progress.start()
        if done < total:
            # A bar whose stage has done nothing yet pulses.
            size = total if done else None
            pace = stage.pace(done, total)
            self._progress.update(stage.bar, completed=done, total=size, pace=pace)
        else:
            self._progress.remove_task(stage.bar)

    def close(self) -> None:
        """Remove the bars from the screen."""
        if self._progress.live.is_started:
            self._progress.stop()
        super().close()


class _Stage:
    """Running stage: its bar, where and when it began here, and the time of its last line."""

    def __init__(self, done: int) -> None:
        self.bar: TaskID | None = None
        self._done_before = done
        self._began = self._last_line = time.monotonic()

    def pace(self, done: int, total: int) -> str:
        """Return rate and time left; empty while they are unknown."""
        rate = (done - self._done_before) / max(time.monotonic() - self._began, 1e-9)
        if rate <= 0:
            return ""
        left = timedelta(seconds=round((total - done) / rate))
        return f"{rate:,.0f} a second, {left} left" if rate >= 10 else f"{left} left"

    def is_due(self, seconds: float) -> bool:
        """Return true if so many seconds passed since the last line; one then counts as printed."""
        due = time.monotonic() - self._last_line >= seconds
        if due:
            self._last_line = time.monotonic()
        return due


def say(text: str, stream: TextIO) -> None:
    """Print a result; on a terminal, wrap its lines between words."""
    if stream.isatty():
        Console(file=stream, highlight=False, markup=False).print(text)
    else:
        print(text, file=stream)


def is_full_disk(error: BaseException | None) -> bool:
    """Return true for the error of a full disk or an exceeded quota."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def written_log(error: BaseException) -> str:
    """Write an error's traceback to a file under SIMGAN_HOME; returns its path in a sentence."""
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


_NOT_FOR_PEOPLE = (
    # The server has no concurrency limit `gpu`, as any but that of `simgan up`.
    "do not exist - skipping acquisition",
    # The command ends in the same error, as a sentence.
    "Finished in state Failed",
    "Encountered exception during execution",
    # After Ctrl-C the command ends in one line of its own.
    "aborted by an interrupt signal",
)


def _is_for_people(record: logging.LogRecord) -> bool:
    """Return true for records of Prefect that are not repeated elsewhere."""
    message = record.getMessage()
    if message.startswith("Task run failed"):
        # One that is tried again is no error yet; another one ends the command in the same words.
        return record.levelno < logging.ERROR
    return not any(words in message for words in _NOT_FOR_PEOPLE)
