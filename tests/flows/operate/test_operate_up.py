"""`simgan up`, `status` and `down`: found when it runs, refused with a word where it cannot."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import wait_until_healthy

pytestmark = pytest.mark.drill

SECONDS_TO_GREEN = 60


def test_all_green_within_a_minute(team: Any, record_property: Any) -> None:
    record_property("seconds_to_green", team.seconds_to_green)
    assert team.seconds_to_green <= SECONDS_TO_GREEN
    status = json.loads(team.simgan("status", "--json").stdout)
    assert status["green"]
    assert set(status["services"].values()) == {"RUNNING"}
    assert set(status["answers"]) == {team.prefect, team.mlflow}


def test_up_again_finds_what_runs(team: Any) -> None:
    before = {process.pid for process in team.processes() if process.ppid() == team.supervisor}
    found = team.up()
    assert found["found"]
    assert (found["prefect"], found["mlflow"]) == (team.prefect, team.mlflow)
    assert before <= {process.pid for process in team.processes()}


def test_a_command_in_the_same_place_shows_in_the_same_ui(team: Any) -> None:
    done = team.simgan("simulate", "real", "--out", "by-command", "--count", 16)
    assert done.returncode == 0, done.stderr
    query = {"flow_runs": {"name": {"any_": ["simulate-real-16"]}}}
    (run,) = team.ask("POST", "flow_runs/filter", query)
    assert run["state"]["type"] == "COMPLETED"


@pytest.mark.parametrize("option", ["--prefect-port", "--mlflow-port"])
def test_a_busy_port_is_named_with_its_holder(
    team: Any, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        monkeypatch.setitem(team.environment, "SIMGAN_HOME", str(tmp_path / "home"))
        done = team.simgan("up", option, port)
    assert done.returncode == 2, done.stderr
    said = done.stderr.splitlines()[-1]
    assert f"127.0.0.1:{port}" in said
    assert f"process {os.getpid()}" in said
    assert option in said


def test_others_are_let_in_with_passwords_only(team: Any) -> None:
    done = team.simgan("up", "--host", "0.0.0.0")
    assert done.returncode == 2, done.stderr
    said = done.stderr.splitlines()[-1]
    assert "PREFECT_API_AUTH_STRING" in said
    assert "MLFLOW_TRACKING_PASSWORD" in said


@pytest.fixture
def every_minute(team: Any) -> Iterator[str]:
    """A deployment on a one-minute schedule, set as in the UI."""
    deployment = team.deployment("simulate")["id"]
    schedule = {
        "schedule": {"cron": "* * * * *", "timezone": "UTC"},
        "active": True,
        "parameters": {"domain": "real", "out": "by-schedule", "count": 15, "seed": 3},
    }
    schedules = f"deployments/{deployment}/schedules"
    (made,) = team.ask("POST", schedules, [schedule])
    yield str(deployment)
    team.ask("DELETE", f"{schedules}/{made['id']}")


def test_a_scheduled_run_fires_by_itself_and_completes(team: Any, every_minute: str) -> None:
    query = {
        "flow_runs": {
            "deployment_id": {"any_": [every_minute]},
            "tags": {"all_": ["auto-scheduled"]},
        },
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": 1,
    }

    def fired() -> bool:
        found = team.ask("POST", "flow_runs/filter", query)
        return bool(found) and found[0]["state"]["type"] == "COMPLETED"

    team.until(fired, 240, "a scheduled run")
    assert list((team.folder / "by-schedule").rglob("*.mat"))
    assert team.ask("POST", "flow_runs/filter", query)[0]["name"] == "simulate-real-15"


@pytest.fixture
def beside_own_prefect(new_team: Any, new_port: Any) -> Iterator[Any]:
    """A place of which Prefect's server is the user's."""
    port = new_port()
    api = f"http://127.0.0.1:{port}/api"
    place = new_team("beside", PREFECT_API_URL=api)
    environment = {**place.environment, "PREFECT_HOME": str(place.folder / "own")}
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
        wait_until_healthy(api, server)
        yield place
        place.down()
        server.terminate()


def services_of(place: Any) -> set[str]:
    return set(json.loads(place.simgan("status", "--json").stdout)["services"])


def test_up_again_beside_a_server_of_the_users(beside_own_prefect: Any) -> None:
    place = beside_own_prefect
    first = place.up()
    again = place.up()
    assert again["found"]
    assert again["prefect"] == first["prefect"]
    assert services_of(place) == {"mlflow-server", "worker-cpu"}
    os.kill(first["supervisor"], signal.SIGKILL)
    after = place.up()
    assert not after["found"]
    assert services_of(place) == {"mlflow-server", "worker-cpu"}
