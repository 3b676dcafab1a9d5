"""Terminal logging."""

import logging

from flows.cli.environment import OWN_LOGGERS
from simgan_core.errors import InputError
from storage.errors import StorageError


def show_logs() -> None:
    """Show this product's messages; a wrong input is named once, without its traceback."""
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback_of_wrong_input)


def _without_traceback_of_wrong_input(record: logging.LogRecord) -> bool:
    """Drop the traceback where it would bury the sentence that says what to mend."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, InputError | StorageError):
        record.exc_info, record.exc_text = None, None
    return True
