"""Servers that a command needs: named before it begins, and when they go away during it."""

import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest
from prefect.settings import Settings

from flows.cli.servers import prefect_for_flows, require_tracking, use_prefect
from simgan_core.errors import InputError, UnavailableError
from tasks.ops.local_server import LocalServer
from tests.http_statuses import StatusServer


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatusServer]:
    """A server that answers as Prefect's does, named by the environment."""
    with StatusServer() as server:
        monkeypatch.setenv("PREFECT_API_URL", f"{server.url}/api")
        yield server


def gone(prefect: StatusServer, error: Exception) -> Exception:
    """Stop the server, and return what a command met then."""
    prefect.close()
    return error


def test_a_server_that_is_named_is_used_and_no_other_is_started(
    prefect: StatusServer, tmp_path: Path
) -> None:
    assert use_prefect(tmp_path) == "start it, or unset PREFECT_API_URL"
    assert prefect.asked == ["/api/health"]
    assert list(tmp_path.iterdir()) == []


def test_flows_send_heartbeats_to_a_server_that_is_named_and_none_to_the_local_one(
    prefect: StatusServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with patch.dict(os.environ):
        use_prefect(tmp_path)
        assert Settings().flows.heartbeat_frequency is not None
        monkeypatch.setattr(LocalServer, "use", lambda _: f"{prefect.url}/api")
        del os.environ["PREFECT_API_URL"]
        use_prefect(tmp_path)
        assert Settings().flows.heartbeat_frequency is None


def test_an_error_while_the_server_answers_stays_what_it_was(
    prefect: StatusServer, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="of its own"), prefect_for_flows(tmp_path):
        raise RuntimeError("of its own")


def test_an_error_after_the_server_went_away_names_the_server(
    prefect: StatusServer, tmp_path: Path
) -> None:
    said = "does not answer any more: start it, .* it goes on where it was"
    with pytest.raises(UnavailableError, match=said), prefect_for_flows(tmp_path):
        raise gone(prefect, RuntimeError("connection refused"))


def test_wrong_input_stays_wrong_input_without_the_server(
    prefect: StatusServer, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no such refiner"), prefect_for_flows(tmp_path):
        raise gone(prefect, InputError("no such refiner"))


def test_after_the_command_a_server_that_goes_away_ends_nothing(
    prefect: StatusServer, tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    with prefect_for_flows(tmp_path):
        (watch,) = {each for each in threading.enumerate() if each.name == "prefect-watch"} - before
    watch.join(10)
    assert not watch.is_alive()


def test_a_newer_database_of_mlflow_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    require_tracking()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        database.execute("INSERT INTO experiments VALUES (0)")
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
        database.commit()
    with pytest.raises(InputError, match="newer"):
        require_tracking()


def test_an_mlflow_server_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with pytest.raises(UnavailableError, match=f"MLflow's server at {url} is down"):
        require_tracking()
