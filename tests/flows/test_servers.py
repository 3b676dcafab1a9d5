"""Servers before a command begins: what cannot be used is named soon, in a sentence."""

import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.flows.conftest import Simgan

SECONDS_TO_SAY_SO = 15
SIMULATE = ("simulate", "synthetic", "--out", "sim", "--count", 4)
SHADOWED = ("token", "uvicorn", "alembic", "orjson", "timeit", "sitecustomize", "torch", "flows")


@pytest.fixture
def alone(tmp_path: Path, environment: dict[str, str]) -> Simgan:
    """The `simgan` command in a new home, without a server."""
    inherited = {
        name: value
        for name, value in environment.items()
        if not name.startswith(("PREFECT_", "PYTHON", "MLFLOW_"))
    }
    folder = tmp_path / "work"
    folder.mkdir()
    return Simgan(
        {**inherited, "SIMGAN_HOME": str(tmp_path / "home"), "SIMGAN_SERVER_IDLE_S": "1"}, folder
    )


def prefect_database(simgan: Simgan) -> Path:
    path = Path(simgan.environment["SIMGAN_HOME"]) / "prefect" / "prefect.db"
    path.parent.mkdir(parents=True)
    return path


def refused_soon(simgan: Simgan, *words: object) -> str:
    """Run a command that cannot work; returns the sentence that says why."""
    began = time.monotonic()
    done = simgan(*words)
    assert time.monotonic() - began < SECONDS_TO_SAY_SO
    assert done.returncode in {1, 2}, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_modules_in_the_current_folder_are_not_imported(alone: Simgan, empty_prefect: Path) -> None:
    shutil.copy(empty_prefect, prefect_database(alone))
    for name in SHADOWED:
        (alone.folder / f"{name}.py").write_text(f"open('ran-{name}', 'w')\nraise RuntimeError\n")
    command = [Path(sys.executable).parent / "simgan", *map(str, SIMULATE)]
    done = subprocess.run(
        command, env=alone.environment, cwd=alone.folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(alone.folder.glob("ran-*")) == []


def test_a_database_of_a_newer_prefect_is_named(alone: Simgan) -> None:
    with closing(sqlite3.connect(prefect_database(alone))) as database:
        database.execute("CREATE TABLE flow_run (id TEXT)")
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
        database.commit()
    said = refused_soon(alone, *SIMULATE)
    assert "made by a newer version of Prefect" in said
    assert "PREFECT_HOME" in said


def test_a_damaged_database_of_prefect_is_named(alone: Simgan) -> None:
    prefect_database(alone).write_bytes(b"garbage" * 1000)
    said = refused_soon(alone, *SIMULATE)
    assert "prefect.db is damaged" in said
    assert "move it away" in said


def test_a_server_of_the_users_that_is_down_is_named(alone: Simgan) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone.environment["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    said = refused_soon(alone, *SIMULATE)
    assert f"Prefect's server at http://127.0.0.1:{port}/api is down" in said
    assert "unset PREFECT_API_URL" in said


def test_a_server_that_is_not_prefects_is_named(alone: Simgan, environment: dict[str, str]) -> None:
    alone.environment["PREFECT_API_URL"] = environment["PREFECT_API_URL"] + "/no"
    assert "should end in /api" in refused_soon(alone, *SIMULATE)


def test_a_tracking_server_that_is_down_is_named_before_anything_starts(alone: Simgan) -> None:
    alone.environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    said = refused_soon(alone, "train", "--synthetic", "a.zarr", "--real", "b.zarr")
    assert "MLflow's server at http://127.0.0.1:9 is down" in said
    assert "unset MLFLOW_TRACKING_URI" in said
    assert not (Path(alone.environment["SIMGAN_HOME"]) / "prefect" / "prefect.db").exists()


def test_a_full_disk_as_prefect_first_starts_is_named(
    alone: Simgan, small_disk: Callable[[int], Path]
) -> None:
    folder = small_disk(400_000)
    alone.environment["SIMGAN_HOME"] = str(folder)
    done = alone(*SIMULATE)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "no space left" in done.stderr.splitlines()[-1]
