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

from storage.reader import open_dataset
from tests.refinement_inputs import make_refiner, make_synthetic

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "cluster.md"
COMMANDS = re.findall(r"^    (\S.*)$", DOCUMENT.read_text("utf-8"), re.MULTILINE)


@pytest.fixture
def surroundings(environment: dict[str, str], s3_bucket: str, tmp_path: Path) -> dict[str, str]:
    """What the page's table asks for; `simgan`, `dask` and `prefect` are on the PATH."""
    assert s3_bucket == "s3://datasets"
    make_synthetic("s3://datasets/synthetic.zarr", 64, 16)
    on_path = Path(sys.executable).parent
    return {
        **environment,
        **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
        "PATH": f"{on_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(DOCUMENT.parents[2]),
        "HEAD": "127.0.0.1",
        "REFINER": str(make_refiner(tmp_path / "refiner.pt")),
    }


def test_the_page_leads_from_bare_machines_to_refined_datasets(
    surroundings: dict[str, str], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ExitStack() as cluster:
        done = []
        for line in COMMANDS:
            # A port of our own; two checkouts may be tested at a time.
            command = line.replace("8786", str(port))
            if command.startswith("prefect server start"):
                continue  # this session's own server was started by these words
            if "dask scheduler" in command or "dask worker" in command:
                cluster.enter_context(running(command, surroundings, tmp_path))
                continue
            finished = subprocess.run(
                ["bash", "-ec", command],
                env=surroundings,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert finished.returncode == 0, finished.stderr
            done.append(command)
        log = (tmp_path / "cluster.log").read_text()
    assert len(done) == 1
    assert log.count("Registered to:") == 3
    assert open_dataset("s3://datasets/refined.zarr").info.num_valid == 64


@contextmanager
def running(command: str, surroundings: dict[str, str], folder: Path) -> Iterator[None]:
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
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
