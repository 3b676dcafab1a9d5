"""A real Prefect server for the session, and small simulated data that flows run on."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli.servers import NO_HEARTBEATS
from simgan_core.simulator.eyes import Scenes, render
from storage.schema import GAZE, PUPIL_PX, Domain
from tasks.ops.prefect_setup import connect, prepare_server
from tasks.runtime.policies import GPU_SLOT
from tests.command_server import Command, CommandServer
from tests.tasks.comparison.conftest import write_dataset

SECONDS_TO_START = 90


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder under which everything of this session is kept."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="session")
def environment(
    workplace: Path, empty_prefect: Path, empty_mlflow: Path
) -> Iterator[dict[str, str]]:
    """Surroundings of every command: a Prefect server of our own, MLflow on SQLite.

    The server is that of commands with all of Prefect's services, which they leave out. Commands
    have as many threads as each of two Dask workers: other numbers of them sum in another order.
    """
    folder = workplace / "prefect"
    for home, database in ((folder, empty_prefect), (workplace / "home", empty_mlflow)):
        home.mkdir()
        shutil.copy(database, home)
    own = {
        "SIMGAN_HOME": str(workplace / "home"),
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_FLOWS": NO_HEARTBEATS,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // 2)),
    }
    surroundings = {**os.environ, **own}
    surroundings.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-P", "-m", "tasks.ops.local_server", str(folder), "36000"]
    log = (workplace / "prefect-server.log").open("w")
    server = subprocess.Popen(command, env=surroundings, stdout=log, stderr=log)
    try:
        api = f"{_address(folder / 'local-server.json', server)}/api"
        wait_until_healthy(api, server)
        yield surroundings | {"PREFECT_API_URL": api}
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


def _address(record: Path, server: "subprocess.Popen[bytes]") -> str:
    """Wait for the address that the server writes down before it answers."""
    for _ in range(SECONDS_TO_START * 4):
        assert server.poll() is None, "Prefect's server ended while it was starting"
        if record.exists():
            return str(json.loads(record.read_bytes())["url"])
        time.sleep(0.25)
    raise AssertionError("Prefect's server did not start")


def wait_until_healthy(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Wait for a server whose url/health answers."""
    for _ in range(SECONDS_TO_START * 4):
        assert server.poll() is None, f"the server of {url} ended while it was starting"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise AssertionError(f"the server of {url} did not start")


@pytest.fixture(scope="module")
def api_with_deployments(environment: dict[str, str], workplace: Path) -> Iterator[str]:
    """Prefect's API where the pools, limits, automations and deployments of `simgan up` are.

    The slot for computing is gone with the module: a command that another one kills leaves its
    slot taken until the lease ends, and the command after it would wait for that minute.
    """
    url = environment["PREFECT_API_URL"]
    asyncio.run(prepare_server(url, num_gpus=0, folder=workplace))
    yield url
    asyncio.run(_remove_slot(url))


async def _remove_slot(url: str) -> None:
    async with connect(url) as client:
        await client.delete_global_concurrency_limit_by_name(GPU_SLOT)


class Simgan:
    """Runs the `simgan` command as a user would, in a process of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self.folder = folder

    def start(self, *words: object) -> "subprocess.Popen[str]":
        """Start a command and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *map(str, words)],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: object) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        process = self.start(*words)
        out, err = process.communicate()
        assert process.returncode is not None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class ForkedSimgan(Simgan):
    """The same, in a process that is forked where all is imported."""

    def __init__(self, server: CommandServer, environment: dict[str, str], folder: Path) -> None:
        super().__init__(environment, folder)
        self._server = server

    def within(self, folder: Path) -> "ForkedSimgan":
        """Return the command in another working directory."""
        return ForkedSimgan(self._server, self.environment, folder)

    def with_environment(self, more: dict[str, str]) -> "ForkedSimgan":
        """Return the command with more variables in its environment."""
        return ForkedSimgan(self._server, self.environment | more, self.folder)

    def dask(self, *words: object) -> Command:
        """Start a scheduler or a worker of Dask's."""
        return self._server.start(list(map(str, words)), self.environment, self.folder, "dask")

    def start(self, *words: object) -> Command:  # type: ignore[override]
        """Start a command and do not wait for it."""
        return self._server.start(list(map(str, words)), self.environment, self.folder)


@pytest.fixture(scope="session")
def simgan(environment: dict[str, str], workplace: Path) -> Iterator[ForkedSimgan]:
    """The `simgan` command in this session's surroundings."""
    server = CommandServer(environment, workplace / "commands")
    yield ForkedSimgan(server, environment, workplace)
    server.close()


def write_eyes(to: Path | str, domain: Domain, scenes: Scenes) -> str:
    """Render eyes with gaze and pupils as a dataset, ids by person; returns its place."""
    eyes = render(scenes, "crop", 35, 55)
    labels = {"gaze": (GAZE, scenes.gaze), "pupil_px": (PUPIL_PX, eyes.pupil_px)}
    ids = [f"p{person:02d}/{row}" for row, person in enumerate(scenes.person)]
    return write_dataset(to, domain, eyes.images, ids, labels)
