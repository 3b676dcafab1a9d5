"""Terminal logging."""

import errno
import logging
import os

from flows.cli.environment import OWN_LOGGERS
from simgan_core.errors import InputError, UnavailableError
from storage.errors import StorageError
from tasks.runtime.servers import EMBEDDED

_NAMED = (InputError, StorageError, UnavailableError)
"""Errors whose message says what to do; a traceback would bury it."""


def show_logs() -> None:
    """Show this product's messages; an error that we name is shown without its traceback."""
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback_of_named_errors)
        logging.getLogger(name).addFilter(_without_page_of_embedded_server)
    # MLflow logs the traceback of a database error that it then raises.
    logging.getLogger("mlflow.store.db.utils").addFilter(_without_traceback)


def _without_traceback_of_named_errors(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    is_named = isinstance(error, _NAMED) or is_full_disk(error)
    return _without_traceback(record) if is_named else True


def is_full_disk(error: BaseException | None) -> bool:
    """Whether the operating system had no room for what was written."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def _without_page_of_embedded_server(record: logging.LogRecord) -> bool:
    return not (EMBEDDED in os.environ and record.getMessage().startswith("View at "))


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info, record.exc_text = None, None
    return True
