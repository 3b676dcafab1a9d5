"""Terminal logging."""

import logging
import os
import sys
import time
import traceback

from flows.cli.environment import OWN_LOGGERS
from tasks.runtime.paths import home


def show_logs() -> None:
    """Show this product's messages; an error is named once, and its traceback is in a file."""
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


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
