"""Whatever state Prefect and MLflow are in: a sentence that names the remedy, soon, or mended."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tests.flows.conftest import Simgan, wait_until_healthy
from tests.flows.operate.test_operate_first_commands import datasets, simgan_in, training_of
from tests.operating_team import free_port

pytestmark = pytest.mark.drill

__all__ = ["datasets"]  # a fixture

SECONDS_TO_SAY_SO = 15
Record = Callable[[str, float], None]


@pytest.fixture
def simgan(tmp_path: Path) -> Simgan:
    """The command in a new home with embedded servers."""
    return simgan_in(tmp_path / "home")


def refused_soon(simgan: Simgan, words: tuple[object, ...], record_property: Record) -> str:
    """Run a command that cannot work; returns the sentence that says why."""
    began = time.monotonic()
    done = simgan(*words)
    seconds = time.monotonic() - began
    record_property("seconds", seconds)
    assert done.returncode in {1, 2}, done.stderr
    assert "Traceback" not in done.stderr
    assert seconds < SECONDS_TO_SAY_SO
    return done.stderr.splitlines()[-1]


def home_of(simgan: Simgan) -> Path:
    return Path(simgan.environment["SIMGAN_HOME"])


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_mlflows_server_is_down(simgan: Simgan, datasets: Path, record_property: Record) -> None:
    simgan.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{free_port()}"
    said = refused_soon(simgan, training_of(datasets), record_property)
    assert "unset MLFLOW_TRACKING_URI" in said


def test_mlflows_server_is_silent(simgan: Simgan, datasets: Path, record_property: Record) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        simgan.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        said = refused_soon(simgan, training_of(datasets), record_property)
    assert "no answer within 3 s" in said


def test_mlflows_database_is_newer(simgan: Simgan, datasets: Path, record_property: Record) -> None:
    execute(
        home_of(simgan) / "mlflow.db",
        "CREATE TABLE experiments (name TEXT)",
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES ('ffffffffffff')",
    )
    said = refused_soon(simgan, training_of(datasets), record_property)
    assert "made by a newer version of MLflow" in said


def test_mlflows_database_is_garbage(
    simgan: Simgan, datasets: Path, record_property: Record
) -> None:
    (home_of(simgan) / "mlflow.db").write_bytes(os.urandom(10_000))
    said = refused_soon(simgan, training_of(datasets), record_property)
    assert "move it away" in said


def test_an_experiment_was_deleted_in_the_ui(simgan: Simgan, datasets: Path) -> None:
    assert simgan(*training_of(datasets)).returncode == 0
    client = MlflowClient(f"sqlite:///{home_of(simgan) / 'mlflow.db'}")
    for experiment in client.search_experiments():
        client.delete_experiment(experiment.experiment_id)
    done = simgan(*training_of(datasets))
    assert done.returncode == 0, done.stderr
    assert "was deleted in MLflow and is restored" in done.stderr


def test_prefects_server_is_down(simgan: Simgan, datasets: Path, record_property: Record) -> None:
    simgan.environment["PREFECT_API_URL"] = f"http://127.0.0.1:{free_port()}/api"
    said = refused_soon(simgan, training_of(datasets), record_property)
    assert "unset PREFECT_API_URL" in said


@pytest.mark.parametrize("content", [b"garbage" * 1000, None], ids=["garbage", "newer"])
def test_prefects_database_cannot_be_used(
    simgan: Simgan, datasets: Path, record_property: Record, content: bytes | None
) -> None:
    path = home_of(simgan) / "prefect" / "prefect.db"
    path.parent.mkdir()
    if content is None:
        execute(
            path,
            "CREATE TABLE flow_run (id TEXT)",
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('ffffffffffff')",
        )
    else:
        path.write_bytes(content)
    said = refused_soon(simgan, training_of(datasets), record_property)
    assert "move it away" in said or "move the file away" in said


@pytest.fixture
def prefect(simgan: Simgan, tmp_path: Path) -> Iterator[psutil.Process]:
    """A Prefect server of the user's, which the command uses."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {**simgan.environment, "PREFECT_HOME": str(tmp_path / "own")}
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
        wait_until_healthy(api, server)
        simgan.environment["PREFECT_API_URL"] = api
        yield psutil.Process(server.pid)
        with suppress(psutil.NoSuchProcess):
            psutil.Process(server.pid).kill()


def test_prefects_server_goes_down_during_a_flow(
    simgan: Simgan, prefect: psutil.Process, tmp_path: Path, record_property: Record
) -> None:
    pairs = tmp_path / "pairs"
    process = simgan.start("simulate", "synthetic", "--out", pairs, "--count", 5000)
    while not any(pairs.glob("*.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    for child in [*prefect.children(recursive=True), prefect]:
        child.kill()
    began = time.monotonic()
    _, said = process.communicate()
    seconds = time.monotonic() - began
    record_property("seconds", seconds)
    assert process.returncode == 1, said
    assert seconds < SECONDS_TO_SAY_SO + 5  # the last 4 s are for the work under way to be saved
    assert "Traceback" not in said
    assert "does not answer any more" in said.splitlines()[-1]
