"""Paths under SIMGAN_HOME: refiners, comparisons, the embedded MLflow."""

import errno
import os
from pathlib import Path

from simgan_core.errors import InputError


def home() -> Path:
    """Return the folder named by SIMGAN_HOME, by default `.simgan` in the working directory."""
    return Path(os.environ.get("SIMGAN_HOME", ".simgan")).expanduser().resolve()


def mlflow_database(home: Path) -> str:
    """Return the URL of the SQLite database that MLflow uses where nothing else is set."""
    return sqlite_url(home / "mlflow.db")


def refiner_folder(refiner_id: str) -> Path:
    """Return the folder of a refiner's checkpoint and finished weights."""
    return home() / "refiners" / refiner_id


def comparison_folder(comparison_id: str) -> Path:
    """Return the folder of a comparison's per-image errors, pictures and report."""
    return home() / "comparisons" / comparison_id


def landmark_model_folder(model_id: str) -> Path:
    """Return the folder of a landmark model's checkpoint, finished weights and errors."""
    return home() / "landmark_models" / model_id


def shown_path(path: str) -> str:
    """Return a path below the working directory as a relative one, any other place as it is."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite database at a path, as SQLAlchemy, MLflow and Prefect read it.

    They take the path as it is, up to a question mark. Raises InputError for a path that has one.
    """
    if "?" in str(path):
        raise InputError(
            f"{path} cannot hold a database: in its URL all that follows the question mark would "
            "be left out; set SIMGAN_HOME to a folder without '?' in its path"
        )
    return f"sqlite:///{path}"


_REFUSALS = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES",
        "EEXIST",
        "EISDIR",
        "ELOOP",
        "ENAMETOOLONG",
        "ENOENT",
        "ENOTDIR",
        "EPERM",
        "EROFS",
    )
)


def refused_place(error: BaseException) -> str | None:
    """Return a message for a path that cannot be used as given, None for any other error.

    The operating system always refuses such a path, unlike a full disk: a retry would not help.
    """
    if not isinstance(error, OSError) or error.errno not in _REFUSALS or error.filename is None:
        return None
    return (
        f"{error.filename} cannot be used: {error.strerror}; name a place that is there and that "
        "you may read and write"
    )
