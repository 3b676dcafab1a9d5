"""Schema version of a SQLite database that Alembic migrates, read without its owner's code.

    MLFLOW.state(path)      # "missing", "unfinished", "current", "older" or "newer"

Prefect and MLflow take seconds to import and answer a database that they cannot use with a
traceback, or not at all. Reading the version table takes a millisecond.
"""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from simgan_core.errors import InputError, UnavailableError

State = Literal["missing", "unfinished", "current", "older", "newer"]

# Longer than any transaction of a healthy writer.
BUSY_TIMEOUT_S = 5.0

SQLITE_REASONS = (
    "database or disk is full",
    "No space left",
    "database is locked",
    "disk I/O error",
    "database disk image is malformed",
    "file is not a database",
    "readonly database",
    "unable to open database file",
)
"""SQLite's messages, as the log of a program that could not use its database has them."""

_SIDE_FILES = ("-journal", "-wal", "-shm")
"""Suffixes of SQLite's journals; one that outlives its database damages the next."""

_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_REVISION = re.compile(r"^(down_)?revision(?::[^=]+)? = \(?(.*?)\)?$", re.MULTILINE)


@dataclass(frozen=True)
class AlembicSchema:
    """Alembic migrations of a package, and the tables by which a database is recognised."""

    owner: str
    """Display name of the package."""
    package: str
    versions: str
    """Folder of the migrations, relative to the package."""
    first_row: str
    """Table with a row as soon as the owner's first start has finished."""
    setting: str
    """Remedy: the setting of another database."""
    version_table: str = "alembic_version"

    def state(self, path: Path) -> State:
        """Compare the database with the installed package.

        "unfinished" is a database whose making was interrupted: it has no revision, or an older
        one, and no row in its first table. Raises InputError where the file is damaged, no SQLite
        database, or another program's, UnavailableError where it cannot be read or is locked.
        """
        if not path.exists() or path.stat().st_size == 0:
            return "missing"
        with reading(path, self) as database:
            tables = {name for (name,) in database.execute(_TABLES)}
            if not tables:
                return "missing"
            found = set()
            if self.version_table in tables:
                rows = database.execute(f"SELECT version_num FROM {self.version_table}")
                found = {revision for (revision,) in rows}
            used = {name for name in tables - {self.version_table} if _has_rows(database, name)}
        if used and self.first_row not in tables:
            raise InputError(
                f"{path} holds something else than {self.owner}'s tables (among them "
                f"{min(used)}): {self.setting}"
            )
        is_used = self.first_row in used
        known, heads = self._revisions()
        if found == heads:
            return "current"
        if not found <= known:
            return "newer"
        return "older" if is_used else "unfinished"

    def require_not_newer(self, path: Path) -> State:
        """Return the state; raises InputError where a newer version of the owner made it."""
        state = self.state(path)
        if state == "newer":
            raise InputError(
                f"{path} was made by a newer version of {self.owner} than the one installed here: "
                f"install that version, or move the file away to begin a new one, or "
                f"{self.setting}"
            )
        return state

    def _revisions(self) -> tuple[frozenset[str], frozenset[str]]:
        return _revisions(self.package, self.versions)


def _has_rows(database: sqlite3.Connection, table: str) -> bool:
    quoted = table.replace('"', '""')
    return database.execute(f'SELECT 1 FROM "{quoted}" LIMIT 1').fetchone() is not None


@cache
def _revisions(package: str, versions: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return all revisions of the installed package, and the newest."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    known: set[str] = set()
    superseded: set[str] = set()
    for script in Path(spec.submodule_search_locations[0], versions).glob("*.py"):
        for down, names in _REVISION.findall(script.read_text("utf-8")):
            (superseded if down else known).update(re.findall(r"[\"'](\w+)[\"']", names))
    assert known, f"{package} keeps no migrations in {versions}"
    return frozenset(known), frozenset(known - superseded)


MLFLOW = AlembicSchema(
    owner="MLflow",
    package="mlflow",
    versions="store/db_migrations/versions",
    first_row="experiments",
    setting="set MLFLOW_TRACKING_URI to another database or server",
)
MLFLOW_USERS = AlembicSchema(
    owner="MLflow",
    package="mlflow",
    versions="server/auth/db/migrations/versions",
    first_row="users",
    setting="set SIMGAN_HOME to another folder",
    version_table="alembic_version_auth",
)
PREFECT = AlembicSchema(
    owner="Prefect",
    package="prefect",
    versions="server/database/_migrations/versions/sqlite",
    first_row="flow_run",
    setting="set PREFECT_HOME to another folder, or PREFECT_API_URL to a server",
)


def prefect_database() -> Path:
    """Return the file of Prefect's default database."""
    return Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser() / "prefect.db"


def has_prefect_database_of_its_own() -> bool:
    """Return true where Prefect's settings name another database than that file."""
    names = ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")
    return any(os.environ.get(name) for name in names)


@contextmanager
def reading(path: Path, schema: AlembicSchema) -> Iterator[sqlite3.Connection]:
    """Open a database for reading; SQLite's errors become this project's, with a remedy.

    Raises InputError where the file is damaged or no database, else UnavailableError.
    """
    try:
        # Writable, so that what a killed writer left half done is rolled back.
        with closing(
            sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=BUSY_TIMEOUT_S, uri=True)
        ) as database:
            yield database
    except sqlite3.DatabaseError as error:
        raise named_error(str(error), path, schema) from error


def named_error(reason: str, path: Path, schema: AlembicSchema) -> InputError | UnavailableError:
    """Return the error to raise for one of SQLite's messages about a database."""
    reason = reason.lower()
    if "locked" in reason:
        return UnavailableError(
            f"{path} is locked by another process: wait for it or end it (`fuser {path}` names "
            "it), then run the same command again"
        )
    if "disk is full" in reason or "no space left" in reason:
        return UnavailableError(
            f"no space left for {path}: free some, then run the same command again"
        )
    if "not a database" in reason or "malformed" in reason or "no such" in reason:
        return InputError(
            f"{path} is damaged, or no database of {schema.owner} ({reason}): restore a copy of "
            f"it, or move it away to begin a new one, or {schema.setting}"
        )
    return UnavailableError(
        f"{path} cannot be used ({reason}): look at the permissions of the file and its folder, "
        f"or {schema.setting}"
    )


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLAlchemy URI, None where it names a server or memory.

    Raises InputError where the text is no URI of a database.
    """
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url  # noqa: PLC0415  most commands have no URI to parse
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        database = make_url(uri).database
    except ArgumentError as error:
        raise InputError(f"{uri!r} is no database URI such as sqlite:////PATH ({error})") from error
    if not database or database == ":memory:":
        return None
    if database.startswith("file:"):
        return Path(unquote(urlsplit(database).path))
    return Path(database).absolute()


def remove_side_files(path: Path) -> None:
    """Delete the journals of a removed database."""
    for suffix in _SIDE_FILES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
