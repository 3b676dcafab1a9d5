"""The commands of docs/how-to/cluster.md, run as they stand there, all on this machine."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from simgan_core.simulator.eyes import sample_scenes
from storage.reader import open_dataset
from tasks.simulate import simulate_synthetic
from tests.flows.conftest import wait_until_healthy, write_eyes
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
def surroundings(environment: dict[str, str], s3_bucket: str, tmp_path: Path) -> dict[str, str]:
    """What the page's table asks for; `simgan`, `dask`, `mlflow` and `prefect` are on the PATH."""
    assert s3_bucket == "s3://datasets"
    simulate_synthetic.fn(str(tmp_path / "frames"), 64, seed=3)
    write_eyes(f"{s3_bucket}/test.zarr", "real", sample_scenes("real", 40, seed=4))
    on_path = Path(sys.executable).parent
    return {
        **environment,
        **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
        "PATH": f"{on_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(DOCUMENT.parents[2]),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "HEAD": "127.0.0.1",
        "FRAMES": str(tmp_path / "frames"),
        "REFINER": str(make_refiner(tmp_path / "refiner.pt")),
    }


def test_the_page_leads_from_bare_machines_to_refined_and_compared_datasets(
    surroundings: dict[str, str], tmp_path: Path
) -> None:
    # Ports of our own; two checkouts may be tested at a time.
    ports = {"8786": free_port(), "5000": free_port()}
    surroundings["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{ports['5000']}"
    with ExitStack() as cluster:
        done = []
        for number, line in enumerate(COMMANDS):
            command = line.replace("8786", ports["8786"]).replace("5000", ports["5000"])
            command = command.replace("--rows-per-shard 16384", "--rows-per-shard 16")
            command += next((more for start, more in SHORTER.items() if start in line), "")
            if command.startswith("prefect server start"):
                continue  # this session's own server was started by these words
            own = surroundings | {"SIMGAN_HOME": str(tmp_path / f"home-{number}")}
            if command.startswith("simgan"):
                own["SIMGAN_HOME"] = str(tmp_path / "home-head")
                finished = subprocess.run(
                    ["bash", "-ec", command],
                    env=own,
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert finished.returncode == 0, finished.stderr
                done.append(command)
                continue
            process = cluster.enter_context(running(command, own, tmp_path))
            if command.startswith("mlflow"):
                wait_until_healthy(own["MLFLOW_TRACKING_URI"], process)
        log = (tmp_path / "cluster.log").read_text()
    assert len(done) == 3
    assert log.count("Registered to:") == 3
    assert open_dataset("s3://datasets/refined.zarr").info.num_valid == 64
    # The worker that names a GPU trained all; what it made came to the head by MLflow.
    kept = tmp_path.glob("*/estimates")
    made = {folder.parent.name: len(list(folder.glob("*.npz"))) for folder in kept}
    (with_gpu,) = (f"home-{n}" for n, line in enumerate(COMMANDS) if "--resources gpu=1" in line)
    assert made == {with_gpu: 4, "home-head": 4}


def free_port() -> str:
    """Return a port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@contextmanager
def running(
    command: str, surroundings: dict[str, str], folder: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command that stays, until the block ends."""
    with (folder / "cluster.log").open("a") as log:
        process = subprocess.Popen(
            ["bash", "-ec", f"exec env {command}"],
            env=surroundings,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    time.sleep(0.5)
    assert process.poll() is None, (folder / "cluster.log").read_text()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
