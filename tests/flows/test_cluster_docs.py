"""The commands of docs/how-to/cluster.md, run as they stand there, all on this machine."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from string import Template

import pytest
from distributed import Client

from simgan_core.simulator.eyes import sample_scenes
from storage.reader import open_dataset
from tasks.simulate import simulate_synthetic
from tests.command_server import Command
from tests.flows.conftest import ForkedSimgan, wait_until_healthy, write_eyes
from tests.refinement_inputs import make_refiner

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "cluster.md"
# Indented lines; what is fenced needs Slurm or Kubernetes.
_OUTSIDE_FENCES = re.sub(r"^```.*?^```", "", DOCUMENT.read_text("utf-8"), flags=re.M | re.S)
COMMANDS = re.findall(r"^    (\S.*)$", _OUTSIDE_FENCES, re.MULTILINE)


SHORTER = {
    "simgan compare": " --seeds 1 --steps 4 --batch-size 8 --arms synthetic --arms refined "
    "--methods ridge --empty-shares",
    "mlflow server": " --workers 1",
}
"""Options that a test adds to commands that take long."""


@pytest.fixture
def surroundings(s3_bucket: str, tmp_path: Path) -> dict[str, str]:
    """What the page's table asks for, beside Prefect's address, and where the frames are."""
    assert s3_bucket == "s3://datasets"
    simulate_synthetic.fn(str(tmp_path / "frames"), 64, seed=3)
    write_eyes(f"{s3_bucket}/test.zarr", "real", sample_scenes("real", 40, seed=4))
    return {
        **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
        "HEAD": "127.0.0.1",
        "FRAMES": str(tmp_path / "frames"),
        "REFINER": str(make_refiner(tmp_path / "refiner.pt")),
    }


def test_the_page_leads_from_bare_machines_to_refined_and_compared_datasets(
    simgan: ForkedSimgan, surroundings: dict[str, str], tmp_path: Path
) -> None:
    # Ports of our own; two checkouts may be tested at a time.
    ports = {"8786": free_port(), "5000": free_port()}
    surroundings["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{ports['5000']}"
    done = []
    with ExitStack() as cluster:
        for number, line in enumerate(COMMANDS):
            command = line.replace("8786", ports["8786"]).replace("5000", ports["5000"])
            command = command.replace("--rows-per-shard 16384", "--rows-per-shard 16")
            command += next((more for start, more in SHORTER.items() if start in line), "")
            if command.startswith("prefect server start"):
                continue  # this session's own server was started by these words
            own, program, words = parsed(command, surroundings)
            home = "home-head" if program == "simgan" else f"home-{number}"
            own["SIMGAN_HOME"] = str(tmp_path / home)
            machine = simgan.within(tmp_path).with_environment(own)
            if program == "simgan":
                finished = machine(*words)
                assert finished.returncode == 0, finished.stderr
                done.append(command)
            elif program == "dask":
                cluster.callback(end, machine.dask(*words))
            else:
                assert program == "mlflow"
                process = cluster.enter_context(mlflow(words, machine.environment, tmp_path))
                wait_until_healthy(own["MLFLOW_TRACKING_URI"], process)
        with Client(f"tcp://127.0.0.1:{ports['8786']}", set_as_default=False) as client:
            threads_of_workers = list(client.nthreads().values())
    assert len(done) == 3
    assert threads_of_workers == [1, 1, 1]
    assert open_dataset("s3://datasets/refined.zarr").info.num_valid == 64
    # The worker that names a GPU trained all; what it made came to the head by MLflow.
    kept = tmp_path.glob("*/estimates")
    made = {folder.parent.name: len(list(folder.glob("*.npz"))) for folder in kept}
    (with_gpu,) = (f"home-{n}" for n, line in enumerate(COMMANDS) if "--resources gpu=1" in line)
    assert made == {with_gpu: 4, "home-head": 4}


def parsed(command: str, variables: dict[str, str]) -> tuple[dict[str, str], str, list[str]]:
    """Return a command's environment, with what is set before it, its program and its words."""
    words = shlex.split(Template(command).substitute(variables))
    own = dict(variables)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        own[name] = value
    return own, words[0], words[1:]


def end(process: Command) -> None:
    """Ask a scheduler or a worker to end, and wait until it has."""
    process.terminate()
    process.communicate()


def free_port() -> str:
    """Return a port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@contextmanager
def mlflow(
    words: list[str], environment: dict[str, str], folder: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run MLflow's server until the block ends."""
    with (folder / "mlflow.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            env=environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
