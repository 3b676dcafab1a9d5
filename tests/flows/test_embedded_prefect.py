"""Prefect's embedded server: used by one command, gone with it, and named where it cannot start."""

import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
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
    return Simgan({**inherited, "SIMGAN_HOME": str(tmp_path / "home")}, folder)


def servers_of(simgan: Simgan) -> list[psutil.Process]:
    """The embedded servers of a home."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                "tasks.ops.embedded_prefect" in process.cmdline()
                and process.environ().get("SIMGAN_HOME") == simgan.environment["SIMGAN_HOME"]
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


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


def test_modules_in_the_current_folder_are_not_imported(alone: Simgan) -> None:
    for name in SHADOWED:
        (alone.folder / f"{name}.py").write_text(f"open('ran-{name}', 'w')\nraise RuntimeError\n")
    command = [Path(sys.executable).parent / "simgan", *map(str, SIMULATE)]
    done = subprocess.run(
        command, env=alone.environment, cwd=alone.folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(alone.folder.glob("ran-*")) == []
    assert servers_of(alone) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_a_command_killed_in_its_first_seconds_leaves_no_server(
    alone: Simgan, number: signal.Signals
) -> None:
    process = alone.start(*SIMULATE)
    assert wait_for(lambda: bool(servers_of(alone)), 60)
    process.send_signal(number)
    process.communicate()
    assert wait_for(lambda: not servers_of(alone), 60)


def test_a_server_that_dies_is_replaced_and_the_flow_completes(alone: Simgan) -> None:
    process = alone.start("simulate", "synthetic", "--out", "sim", "--count", 60)
    assert wait_for(lambda: any(alone.folder.glob("sim/*.json")), 120)
    (server,) = servers_of(alone)
    server.kill()
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert "is started again" in said
    assert servers_of(alone) == []


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
    assert servers_of(alone) == []
