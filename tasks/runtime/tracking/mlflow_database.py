"""MLflow's SQLite database: made and upgraded under another name, then renamed into place.

MLflow's migrations are neither transactional nor repeatable: a first start that is killed, or that
fills the disk, leaves a database that no later start can open. A file lock serialises commands that
start at once.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from alembic.util.exc import CommandError
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from simgan_core.errors import InputError, UnavailableError
from tasks.runtime.paths import sqlite_url
from tasks.runtime.sqlite_schema import (
    MLFLOW,
    MLFLOW_USERS,
    AlembicSchema,
    named_error,
    reading,
    remove_side_files,
)

logger = logging.getLogger(__name__)

_FAILURES = (SQLAlchemyError, MlflowException, CommandError, sqlite3.Error, OSError)

# Making the tables takes 2 s on an idle core, 10 s on a busy one.
SECONDS_TO_WAIT_FOR_ANOTHER = 60.0


def require_tracking_database(path: Path) -> None:
    """Make MLflow's database, or upgrade it, so that the installed MLflow can open it.

    Raises InputError where it is damaged or from a newer version, UnavailableError where the disk
    is full or another process locks it.
    """
    _require_current(path, MLFLOW, _make_tracking_tables)


def require_users_database(path: Path) -> None:
    """Make or upgrade the database of MLflow's users; raises as `require_tracking_database`."""
    _require_current(path, MLFLOW_USERS, _make_users_tables)


def _require_current(
    path: Path, schema: AlembicSchema, make_tables: Callable[[Path], None]
) -> None:
    if schema.require_not_newer(path) == "current":
        return
    with _alone(path, schema):
        state = schema.require_not_newer(path)
        if state == "current":
            return
        partial = path.with_name(f"{path.name}.partial")
        # What a killed start left.
        _remove(partial)
        try:
            if state == "older":
                logger.warning("%s is from an older MLflow and is upgraded", path)
                _copy(path, partial, schema)
            make_tables(partial)
            _put_in_place(partial, path)
        except _FAILURES as error:
            _remove(partial)
            if state == "older" and not _is_about_the_disk(error):
                raise InputError(
                    f"{path} is from an older {schema.owner} and could not be upgraded ({error}): "
                    f"restore a copy of it, or move it away to begin a new one, or {schema.setting}"
                ) from error
            raise named_error(str(error), path, schema) from error


@contextmanager
def _alone(path: Path, schema: AlembicSchema) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=SECONDS_TO_WAIT_FOR_ANOTHER)
    try:
        with lock:
            yield
    except Timeout:
        raise UnavailableError(
            f"another command has been making {path} for {SECONDS_TO_WAIT_FOR_ANOTHER:.0f} s: "
            "end it, then run the same command again"
        ) from None


def _make_tracking_tables(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415  takes 2 s

    # The artifact root is that of MLflow's experiment Default, which nothing here uses.
    root = path.parent.joinpath("mlartifacts").as_uri()
    store = SqlAlchemyStore(sqlite_url(path), root)  # type: ignore[no-untyped-call]
    store.engine.dispose()


def _make_users_tables(path: Path) -> None:
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415  takes 2 s

    store = SqlAlchemyStore()
    store.init_db(sqlite_url(path))  # type: ignore[no-untyped-call]
    store.engine.dispose()


def _copy(path: Path, partial: Path, schema: AlembicSchema) -> None:
    with reading(path, schema) as source, closing(sqlite3.connect(partial)) as copy:
        source.backup(copy)


def _put_in_place(partial: Path, path: Path) -> None:
    # Like `atomic_write`, but SQLite wrote the file, and journals are removed in between.
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    # A journal of the former database would be rolled back into the new one.
    remove_side_files(path)
    partial.replace(path)
    remove_side_files(partial)


def _remove(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    remove_side_files(partial)


def _is_about_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError) or "full" in str(error) or "locked" in str(error)
