"""MLflow's database is whole or not there, whatever was there before and whatever is killed."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from simgan_core.errors import InputError, UnavailableError
from tasks.runtime import sqlite_schema
from tasks.runtime.sqlite_schema import MLFLOW, MLFLOW_USERS, PREFECT, sqlite_file
from tasks.runtime.tracking.mlflow_database import require_tracking_database, require_users_database

MAKE = """
import sys
from pathlib import Path
from tasks.runtime.tracking.mlflow_database import require_tracking_database
require_tracking_database(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database made here, to be copied."""
    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    require_tracking_database(path)
    return path


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    """A database of one experiment."""
    path = tmp_path / "mlflow.db"
    shutil.copy(made, path)
    MlflowClient(f"sqlite:///{path}").create_experiment("refiners", artifact_location="file:///x")
    return path


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def experiments(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM experiments")}


def make(path: Path) -> "subprocess.Popen[bytes]":
    """Make the database in another process."""
    return subprocess.Popen([sys.executable, "-c", MAKE, str(path)], stderr=subprocess.DEVNULL)


def test_a_database_that_mlflow_opens_is_made_once(made: Path) -> None:
    before = made.stat().st_mtime_ns
    assert MLFLOW.state(made) == "current"
    require_tracking_database(made)
    assert made.stat().st_mtime_ns == before
    (default,) = MlflowClient(f"sqlite:///{made}").search_experiments()
    assert default.name == "Default"


def test_two_that_make_it_at_once_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    both = [make(path), make(path)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert MLFLOW.state(path) == "current"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_a_kill_at_any_moment_leaves_a_whole_database_or_none(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    partial = tmp_path / "mlflow.db.partial"
    for delay_s in (0.0, 0.3, 0.9):
        process = make(path)
        while not partial.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert MLFLOW.state(path) in {"missing", "current"}
        path.unlink(missing_ok=True)
    require_tracking_database(path)
    assert MLFLOW.state(path) == "current"
    assert not partial.exists()


@pytest.mark.parametrize(
    "tables",
    [
        (),
        ("CREATE TABLE experiments (experiment_id INTEGER)",),
        (
            "CREATE TABLE experiments (experiment_id INTEGER)",
            "CREATE TABLE runs (run_uuid TEXT)",
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('451aebb31d03')",
        ),
    ],
    ids=["no table", "one table", "some migrations"],
)
def test_what_an_interrupted_first_start_left_is_made_anew(
    tmp_path: Path, tables: tuple[str, ...]
) -> None:
    path = tmp_path / "mlflow.db"
    path.touch()
    if tables:
        execute(path, *tables)
    (tmp_path / "mlflow.db-journal").write_bytes(b"of a writer that was killed")
    require_tracking_database(path)
    assert MLFLOW.state(path) == "current"
    assert not (tmp_path / "mlflow.db-journal").exists()


def test_an_older_database_is_upgraded_with_what_it_holds(tmp_path: Path) -> None:
    import alembic.command  # noqa: PLC0415
    import mlflow.store.db.utils as internals  # noqa: PLC0415
    import sqlalchemy  # noqa: PLC0415

    path = tmp_path / "mlflow.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    internals.InitialBase.metadata.create_all(engine)  # type: ignore[attr-defined]
    config = internals._get_alembic_config(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0584bdc529eb")
    engine.dispose()
    execute(path, "INSERT INTO experiments (name, lifecycle_stage) VALUES ('old', 'active')")
    assert MLFLOW.state(path) == "older"
    require_tracking_database(path)
    assert MLFLOW.state(path) == "current"
    assert "old" in experiments(path)


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(database: Path) -> None:
    execute(database, "UPDATE alembic_version SET version_num = '0584bdc529eb'")
    before = database.read_bytes()
    with pytest.raises(InputError, match="could not be upgraded") as refusal:
        require_tracking_database(database)
    assert "move it away" in str(refusal.value)
    assert database.read_bytes() == before


def test_a_database_of_a_newer_mlflow_is_named_with_what_to_do(database: Path) -> None:
    execute(database, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(InputError, match=r"newer version of MLflow.*MLFLOW_TRACKING_URI"):
        require_tracking_database(database)


@pytest.mark.parametrize("schema", [MLFLOW, MLFLOW_USERS, PREFECT], ids=lambda each: each.package)
def test_garbage_is_named_and_stays(tmp_path: Path, schema: sqlite_schema.AlembicSchema) -> None:
    path = tmp_path / "some.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(InputError, match=r"some\.db is damaged.*move it away"):
        schema.require_not_newer(path)
    assert path.read_bytes().startswith(b"not a database")


def test_the_database_of_another_program_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    execute(path, "CREATE TABLE thesis (chapter TEXT)", "INSERT INTO thesis VALUES ('one')")
    with pytest.raises(InputError, match="holds something else than MLflow's tables"):
        require_tracking_database(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM thesis").fetchall() == [("one",)]


def test_a_locked_database_is_named_with_how_to_find_its_holder(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_schema, "BUSY_TIMEOUT_S", 0.1)
    with closing(sqlite3.connect(database)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError, match="locked by another process"):
            require_tracking_database(database)


def test_a_full_disk_is_named_and_nothing_is_left(
    small_disk: Callable[[int], Path],
) -> None:
    folder = small_disk(300_000)
    with pytest.raises(UnavailableError, match="no space left"):
        require_tracking_database(folder / "mlflow.db")
    assert {found.name for found in folder.iterdir()} <= {"mlflow.db.lock"}


@pytest.mark.filterwarnings("ignore")  # of MLflow's server, as it is imported
def test_users_are_kept_in_a_whole_database_too(tmp_path: Path) -> None:
    require_users_database(tmp_path / "users.db")
    assert MLFLOW_USERS.state(tmp_path / "users.db") == "current"


def test_the_file_of_a_uri_is_found(tmp_path: Path) -> None:
    assert sqlite_file(f"sqlite:///{tmp_path}/a.db") == tmp_path / "a.db"
    assert sqlite_file(f"sqlite:///file:{tmp_path}/a%3Fb.db?uri=true") == tmp_path / "a?b.db"
    assert sqlite_file("sqlite://") is None
    assert sqlite_file("http://127.0.0.1:5000") is None
