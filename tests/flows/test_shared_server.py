"""Commands without a server of the user's: they share the local one; `simgan ui` shows it."""

import json
import os
import shutil
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Simgan


@pytest.fixture
def alone(environment: dict[str, str], empty_prefect: Path) -> Iterator[Simgan]:
    """The command in a home without any server, whose path is short enough for a socket."""
    servers = ("PREFECT_API_URL", "PREFECT_HOME")
    rest = {name: value for name, value in environment.items() if name not in servers}
    with tempfile.TemporaryDirectory() as folder:
        prefect = Path(folder, "home", "prefect")
        prefect.mkdir(parents=True)
        shutil.copy(empty_prefect, prefect)
        yield Simgan(rest | {"SIMGAN_HOME": f"{folder}/home"}, Path(folder))


def _status(simgan: Simgan) -> Any:
    return json.loads(simgan("status", "--json").stdout)["local_server"]


def test_a_flow_starts_the_server_that_ui_shows_and_down_ends(alone: Simgan) -> None:
    assert alone("doctor").returncode == 0
    assert _status(alone) is None
    done = alone("simulate", "synthetic", "--out", "imgs", "--count", 4)
    assert done.returncode == 0, done.stderr
    url = _status(alone)
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{url}/ui-settings") as answer:  # whom its pages ask
        assert json.load(answer)["api_url"] == f"{url}/api"
    # As a shell starts a command in the background, which Ctrl-C of a foreground shell ends, too.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    shown = alone.start("ui", "--no-open-browser")
    signal.signal(signal.SIGINT, before)
    assert shown.stderr is not None
    assert shown.stderr.readline().strip() == url
    shown.stderr.readline()
    os.kill(shown.pid, signal.SIGINT)
    _, err = shown.communicate(timeout=60)
    assert shown.returncode == 0, err
    assert "the local Prefect server" in alone("down").stdout
    assert _status(alone) is None
