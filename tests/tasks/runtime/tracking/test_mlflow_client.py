"""What MLflow does wrong becomes a sentence with what to do, soon."""

import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from simgan_core.errors import InputError, UnavailableError
from tasks.runtime.tracking.mlflow_client import connect
from tasks.runtime.tracking.runs import begin_run, tracked_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SIMGAN_HOME whose MLflow is a database that is not there yet, and short waits."""
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    return tmp_path


@contextmanager
def server(status: Callable[[str], int]) -> Iterator[str]:
    """An HTTP server that answers each path with a status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status(self.path))
            self.end_headers()
            self.wfile.write(b'{"error_code": "INTERNAL_ERROR", "message": "disk I/O error"}')

        do_POST = do_GET  # noqa: N815  the library's name

        def log_message(self, *_: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_port}"
    finally:
        made.shutdown()
        made.server_close()


def test_a_server_that_is_down_is_named_at_once_with_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"is down \(.*refused.*unset MLFLOW_TRACKING_URI"):
        connect(f"http://127.0.0.1:{port}")
    assert time.monotonic() - began < 5


def test_a_server_that_says_nothing_is_named_soon() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="no answer within 3 s"):
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 12


def test_a_proxy_without_its_server_is_named() -> None:
    with server(lambda _: 502) as url, pytest.raises(UnavailableError, match="HTTP 502"):
        connect(url)


def test_a_server_that_fails_later_is_named() -> None:
    with server(lambda path: 200 if path == "/health" else 500) as url:
        client = connect(url)
        with pytest.raises(UnavailableError, match=r"MLflow at http.*does not work.*start it"):
            client.search_experiments()


@pytest.mark.parametrize("uri", ["http://", "http://host:port/", "https://[::1"])
def test_a_uri_that_is_none_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI should be a URL such as"):
        connect(uri)


def test_an_experiment_deleted_in_the_ui_is_restored(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = begin_run("refiners", "a", "key-a")
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    client.delete_experiment(first.experiment_id)
    again = begin_run("refiners", "a", "key-a")
    assert again.run_id == first.run_id
    assert client.get_experiment(first.experiment_id).lifecycle_stage == "active"
    assert "experiment refiners was deleted in MLflow and is restored" in caplog.text


def test_a_run_deleted_while_it_is_written_is_named(home: Path) -> None:
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    run = begin_run("refiners", "a", "key-a")
    client.delete_run(run.run_id)
    with pytest.raises(InputError, match="a run was deleted in MLflow while it was written"):
        run.params({"steps": 1})


def test_a_failure_of_mlflow_itself_is_not_recorded_in_mlflow(home: Path) -> None:
    """Each further call would wait for the same server."""
    with pytest.raises(UnavailableError), tracked_run("refiners", "a", "key-a") as run:
        raise UnavailableError("MLflow is down")
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    assert client.get_run(run.run_id).info.status == "RUNNING"


def test_a_database_damaged_while_it_is_used_is_named(home: Path) -> None:
    run = begin_run("refiners", "a", "key-a")
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        database.execute("DROP TABLE params")
    with pytest.raises(InputError, match=r"mlflow\.db is damaged.*move it away"):
        run.params({"steps": 1})


def test_mlflows_own_refusals_stay_what_they_are() -> None:
    client = begin_run("refiners", "a", "key-a").client
    with pytest.raises(MlflowException) as refusal:
        client.get_run("0" * 32)
    assert refusal.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_full_disk_is_named(
    small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_disk(4_000_000)
    monkeypatch.setenv("SIMGAN_HOME", str(folder))
    run = begin_run("refiners", "a", "key-a")
    left = folder / "left"
    with left.open("wb") as file, pytest.raises(OSError, match="No space left"):
        file.write(bytes(8_000_000))
    with pytest.raises(UnavailableError, match=r"[Nn]o space left"):
        run.text("report.txt", "x" * 100_000)
