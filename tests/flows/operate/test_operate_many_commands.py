"""A day of small commands, some killed, some at once: one local server, none when it is over."""

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.flows.conftest import Simgan

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3600)]

NUM_ALONE, NUM_KILLED, NUM_PAIRS = 90, 20, 5
IDLE_S = 30.0


@pytest.fixture
def simgan(environment: dict[str, str], tmp_path: Path) -> Simgan:
    """The command in a new home without any server of the user's."""
    kept = {k: v for k, v in environment.items() if not k.startswith("PREFECT_")}
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "eyes.npz", images=rng.integers(0, 256, (8, 35, 55), dtype=np.uint8))
    own = {"SIMGAN_HOME": str(tmp_path / "home"), "SIMGAN_SERVER_IDLE_S": str(IDLE_S)}
    return Simgan(kept | own, tmp_path)


def start(simgan: Simgan, name: str) -> "subprocess.Popen[str]":
    """Start a command that runs a flow of tasks and writes a dataset of its own."""
    words = ["ingest", "arrays", "eyes.npz", "--images", "images", "--to", f"{name}.zarr"]
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words],
        env=simgan.environment,
        cwd=simgan.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def require_done(command: "subprocess.Popen[str]") -> None:
    out, err = command.communicate()
    assert command.returncode == 0, err
    assert "locked" not in out + err


def servers(home: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "tasks.ops.local_server" in (found := process.info["cmdline"] or [])
        and str(home / "prefect") in found
    ]


def test_a_hundred_commands_share_one_server_that_ends_after_them(simgan: Simgan) -> None:
    home = Path(simgan.environment["SIMGAN_HOME"])
    rng = random.Random(0)
    killed = set(rng.sample(range(2, NUM_ALONE), NUM_KILLED))
    require_done(start(simgan, "first"))  # makes the database
    began = time.monotonic()
    require_done(start(simgan, "second"))
    length_s = time.monotonic() - began
    for number in range(2, NUM_ALONE):
        command = start(simgan, f"alone-{number}")
        if number in killed:
            time.sleep(rng.uniform(0.1, 1.0) * length_s)
            command.kill()
            command.communicate()
        else:
            require_done(command)
    for number in range(NUM_PAIRS):
        for command in [start(simgan, f"pair-{number}-{half}") for half in range(2)]:
            require_done(command)
    assert len(servers(home)) == 1
    end = time.monotonic() + IDLE_S + 60
    while servers(home) and time.monotonic() < end:
        time.sleep(1)
    assert servers(home) == []
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        runs = database.execute("SELECT state_type, count(*) FROM flow_run GROUP BY state_type")
        assert dict(runs)["COMPLETED"] >= NUM_ALONE - NUM_KILLED + 2 * NUM_PAIRS
