"""The environment of commands: what is set stays, what is not is under SIMGAN_HOME."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli.environment import prepare
from simgan_core.errors import InputError


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kept = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "MLFLOW_", "SIMGAN_")):
            monkeypatch.delenv(name)
    yield
    os.environ.clear()
    os.environ.update(kept)


def test_everything_is_embedded_under_home(tmp_path: Path) -> None:
    home = prepare(tmp_path / "home")
    assert os.environ["SIMGAN_HOME"] == str(home)
    assert os.environ["PREFECT_HOME"] == str(home / "prefect")
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{home / 'mlflow.db'}"
    assert "PREFECT_API_URL" not in os.environ


def test_what_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://team:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    prepare(tmp_path / "home")
    assert os.environ["PREFECT_API_URL"] == "http://team:4200/api"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://team:5000"
    assert "PREFECT_HOME" not in os.environ


def test_servers_that_run_are_used_and_those_that_do_not_are_not(tmp_path: Path) -> None:
    services = tmp_path / "home" / "services"
    services.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        running = f"http://127.0.0.1:{server.getsockname()[1]}"
        with socket.create_server(("127.0.0.1", 0)) as other:
            gone = f"http://127.0.0.1:{other.getsockname()[1]}"
        (services / "addresses.json").write_text(json.dumps({"prefect": running, "mlflow": gone}))
        home = prepare(tmp_path / "home")
    assert os.environ["PREFECT_API_URL"] == f"{running}/api"
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{home / 'mlflow.db'}"


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="set SIMGAN_HOME to a folder of yours"):
        prepare(tmp_path / "file")
