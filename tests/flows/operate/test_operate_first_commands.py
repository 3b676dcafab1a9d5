"""A first command that is killed, or that fills the disk, leaves a home in which the next works."""

import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import Simgan
from tests.operating_team import SERVERS, write_eyes

pytestmark = pytest.mark.drill

LATEST_KILL_S = 15.0
TRAINING = (
    *("--batch-size", 4, "--history-size", 8, "--warmup-steps", 0),
    *("--discriminator-pretraining-steps", 1, "--refiner.num-features", 4),
    *("--refiner.num-blocks", 1, "--stopping.evaluate-every", 0, "--precision", "fp32"),
)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of noise."""
    folder = tmp_path_factory.mktemp("datasets")
    write_eyes(folder / "synthetic.zarr", 8, 8, "synthetic")
    write_eyes(folder / "real.zarr", 8, 8, "real")
    return folder


def simgan_in(home: Path) -> Simgan:
    """The `simgan` command in a home of its own, with embedded servers."""
    inherited = {name: text for name, text in os.environ.items() if name not in SERVERS}
    home.mkdir(exist_ok=True)
    return Simgan({**inherited, "SIMGAN_HOME": str(home), "SIMGAN_SERVER_IDLE_S": "1"}, home)


def training_of(datasets: Path, num_steps: int = 2) -> tuple[object, ...]:
    words = ("train", "--synthetic", datasets / "synthetic.zarr", "--real", datasets / "real.zarr")
    return (*words, "--steps", num_steps, *TRAINING)


def require_that_the_next_works(simgan: Simgan, datasets: Path) -> None:
    """A training needs both databases, and an ingestion's place."""
    done = simgan(*training_of(datasets))
    assert done.returncode == 0, done.stderr[-3000:]


def left_behind(simgan: Simgan) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SIMGAN_HOME") == simgan.environment["SIMGAN_HOME"]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(20))
def test_a_first_command_killed_at_any_moment(number: int, datasets: Path, tmp_path: Path) -> None:
    simgan = simgan_in(tmp_path / "home")
    words: tuple[object, ...] = [
        training_of(datasets),
        ("simulate", "synthetic", "--out", tmp_path / "pairs", "--count", 400),
        ("demo", "--out", tmp_path / "demo"),
    ][number % 3]
    process = simgan.start(*words)
    time.sleep(random.Random(number).uniform(0, LATEST_KILL_S))
    process.kill()
    process.communicate()
    require_that_the_next_works(simgan, datasets)
    assert wait_for(lambda: left_behind(simgan) == [], 60)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("num_bytes", [300_000, 1_500_000, 2_500_000, 3_500_000, 5_000_000])
def test_a_first_command_on_a_disk_that_fills(
    num_bytes: int, datasets: Path, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(num_bytes)
    simgan = simgan_in(disk / "home")
    done = simgan(*training_of(datasets))
    assert done.returncode == 1, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert "space" in done.stderr.splitlines()[-1]
    subprocess.run(["mount", "-o", "remount,size=500m", str(disk)], check=True)
    require_that_the_next_works(simgan, datasets)
    assert wait_for(lambda: left_behind(simgan) == [], 60)
