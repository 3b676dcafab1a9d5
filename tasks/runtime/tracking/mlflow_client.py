"""MLflow client whose errors name the failure and the remedy, for server and database alike."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from requests.exceptions import RequestException
from sqlalchemy.exc import DatabaseError, IntegrityError, SQLAlchemyError

from simgan_core.errors import InputError, UnavailableError
from tasks.runtime.processes.servers import mlflow_remedy, require_mlflow
from tasks.runtime.sqlite_schema import MLFLOW, named_error, sqlite_file
from tasks.runtime.tracking.mlflow_database import require_tracking_database

_NO_ANSWER = re.compile(r"API request to .*(failed with .*exception|error code 5\d\d)", re.DOTALL)
"""MLflow's messages about a server that cannot be reached or that failed."""

_NO_ROOM_OR_NO_RIGHT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def connect(uri: str) -> MlflowClient:
    """Return a client, after checking that the server answers or the database is intact.

    Its methods raise UnavailableError where the server or the disk fails, InputError where the
    database is damaged or a run was deleted meanwhile, and MlflowException for the rest. Raises
    the first two, and a database that is not there is made.
    """
    file = sqlite_file(uri)
    if file is not None:
        require_tracking_database(file)
    require_mlflow(uri)
    with _sentences(uri, file):
        return cast("MlflowClient", _Client(MlflowClient(uri), uri, file))


class _Client:
    """MlflowClient whose methods raise this project's errors."""

    def __init__(self, client: MlflowClient, uri: str, file: Path | None) -> None:
        self._client, self._uri, self._file = client, uri, file

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            with _sentences(self._uri, self._file):
                return method(*args, **options)

        return call


@contextmanager
def _sentences(uri: str, file: Path | None) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if "must be in the 'active' state" in error.message:
            raise InputError(
                f"a run was deleted in MLflow while it was written ({_first_line(error)}): "
                "restore it there, or run the same command again, which begins another"
            ) from error
        if _is_of_the_server(error):
            raise _unavailable(uri, file, error) from error
        raise
    except (RequestException, SQLAlchemyError) as error:
        raise _unavailable(uri, file, error) from error
    except OSError as error:
        # Files of artifacts, beside the database.
        if error.errno not in _NO_ROOM_OR_NO_RIGHT:
            raise
        raise UnavailableError(
            f"MLflow's artifacts cannot be written ({error}): make room there, then run the same "
            "command again"
        ) from error


def _is_of_the_server(error: MlflowException) -> bool:
    """Return true for failures of the server or the database itself, which would recur."""
    if isinstance(error, RestException) and error.error_code == "INTERNAL_ERROR":
        return True
    if error.error_code == "TEMPORARILY_UNAVAILABLE" or _NO_ANSWER.search(error.message):
        return True
    cause = error.__cause__
    return isinstance(cause, DatabaseError) and not isinstance(cause, IntegrityError)


def _unavailable(uri: str, file: Path | None, error: Exception) -> InputError | UnavailableError:
    if file is not None:
        return named_error(_first_line(error), file, MLFLOW)
    return UnavailableError(
        f"MLflow at {uri} does not work ({_first_line(error)}): {mlflow_remedy()}"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
