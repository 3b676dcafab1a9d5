"""Trainings that are killed, or whose disk fills: nothing goes on alone, and all can be resumed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Simgan
from tests.flows.operate.test_operate_first_commands import (
    datasets,
    left_behind,
    simgan_in,
    training_of,
)

pytestmark = pytest.mark.drill

__all__ = ["datasets"]  # a fixture


def endless(datasets: Path) -> tuple[object, ...]:
    return (*training_of(datasets, num_steps=1_000_000), "--checkpoint-every", 20)


def wait_for(condition: Callable[[], bool], seconds: float, process: Any = None) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        assert process is None or process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    return condition()


def test_killed_command_takes_its_processes_with_it(datasets: Path, tmp_path: Path) -> None:
    simgan = simgan_in(tmp_path / "home")
    process = simgan.start(*endless(datasets), "--processes", 2)
    checkpoints = (tmp_path / "home" / "refiners").glob
    assert wait_for(lambda: any(checkpoints("*/training.ckpt")), 300, process)
    process.kill()
    process.communicate()
    assert wait_for(lambda: left_behind(simgan) == [], 60)


def test_full_disk_is_named_and_the_training_resumed(
    datasets: Path, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(100_000_000)
    simgan: Simgan = simgan_in(disk / "home")
    process = simgan.start(*endless(datasets))
    checkpoints = (disk / "home" / "refiners").glob
    assert wait_for(lambda: any(checkpoints("*/training.ckpt")), 300, process)
    with pytest.raises(OSError, match="No space left"):
        (disk / "filler").write_bytes(bytes(100_000_000))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "no space left" in said.splitlines()[-1].lower()
    (checkpoint,) = checkpoints("*/training.ckpt")
    written = checkpoint.stat().st_mtime_ns
    (disk / "filler").unlink()
    again = simgan.start(*endless(datasets))
    assert wait_for(lambda: checkpoint.stat().st_mtime_ns > written, 300, again)
    again.terminate()
    _, said = again.communicate()
    assert "the checkpoint is written" in said
