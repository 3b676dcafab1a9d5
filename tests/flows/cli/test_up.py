"""`simgan up`, `status` and `down` without servers: whose servers are whose, and what is said."""

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import up as command
from simgan_core.errors import InputError, UnavailableError
from tasks.ops.service import Service
from tasks.ops.services import Supervisor
from tasks.ops.workplace import Addresses

OURS = Addresses(prefect="http://127.0.0.1:4200", mlflow="http://127.0.0.1:5000")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A SIMGAN_HOME without servers, whose path is short enough for a socket."""
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("SIMGAN_HOME", folder)
        yield Path(folder)


def owned(home: Path) -> tuple[bool, bool]:
    """Whether Prefect's and MLflow's servers are to be our own."""
    place = command._workplace(Supervisor(home / "services"), "127.0.0.1", 4200, 5000)
    return place.own_prefect, place.own_mlflow


def test_where_nothing_runs_status_says_how_to_start_it_and_down_has_nothing_to_stop(
    home: Path,
) -> None:
    found = command.status()
    assert found.result == {"green": False, "services": {}, "local_server": None}
    assert "`simgan up` starts it" in found.text
    assert command.down().text == "nothing ran"


def test_servers_that_the_environment_names_are_the_users(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert owned(home) == (True, True)
    monkeypatch.setenv("PREFECT_API_URL", "http://team:4200/api")
    assert owned(home) == (False, True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    assert owned(home) == (False, False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////data/mlflow.db")
    assert owned(home) == (False, True)


@pytest.mark.parametrize("own", [True, False])
def test_addresses_of_the_last_up_stay_whose_they_were(
    home: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    (home / "services").mkdir()
    last = OURS.model_copy(update={"own_prefect": own, "own_mlflow": own})
    last.write(home / "services")
    # As commands name them to themselves where `simgan up` ran.
    monkeypatch.setenv("PREFECT_API_URL", f"{last.prefect}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", last.mlflow)
    assert owned(home) == (own, own)


def test_beyond_this_machine_nothing_starts_without_passwords(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InputError, match="set PREFECT_API_AUTH_STRING"):
        command.up(host="0.0.0.0")
    assert list(home.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_server_that_does_not_come_up_is_named_with_the_last_line_of_its_log(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SECONDS_TO_START", 2)
    supervisor = Supervisor(home / "services")
    says = [sys.executable, "-S", "-c", "print('first'); print('port taken'); print()"]
    supervisor.launch([Service("server", says, {}, 100)], home, {})
    try:
        supervisor.begin("server")
        with pytest.raises(UnavailableError) as failed:
            command._wait(supervisor, "The server", lambda: False, ["server"])
    finally:
        supervisor.shut_down()
    assert str(failed.value).startswith("The server did not start within 2 s\n")
    assert str(failed.value).endswith("server.log ends in: port taken")
