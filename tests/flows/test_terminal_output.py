"""Terminal output: lines in words, a bar that leaves nothing behind, Prefect's states on demand."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.simulate import simulate_synthetic
from tests.flows.conftest import Simgan


@pytest.fixture(scope="module")
def simgan(environment: dict[str, str], workplace: Path) -> Simgan:
    """The command in a process that imports Prefect after it has read `-v` and `-q`."""
    return Simgan(environment, workplace)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder in UnityEyes' layout."""
    simulate_synthetic.fn(tmp_path / "imgs", 20, 1)
    return tmp_path / "imgs"


def _on_a_terminal(environment: dict[str, str], *words: object) -> str:
    """All that a command writes to a terminal of 100 columns, control characters included."""
    screen, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, words)],
        env={**environment, "TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=end, stdout=end, stderr=end,
    )  # fmt: skip
    os.close(end)
    said = bytearray()
    while True:
        try:
            said += os.read(screen, 65536)
        except OSError:
            break
    os.close(screen)
    assert process.wait() == 0, said.decode()
    return said.decode()


def test_a_terminal_shows_a_bar_and_keeps_a_few_lines(
    environment: dict[str, str], frames: Path, tmp_path: Path
) -> None:
    said = _on_a_terminal(environment, "ingest", "unityeyes", frames, "--to", tmp_path / "a.zarr")
    assert "\x1b[?25h" in said  # the cursor, hidden while the bar moved, is back
    lines = [line for line in said.splitlines() if "a.zarr" in line or "samples" in line]
    assert len(lines) == 3
    assert "Task run" not in said


def test_a_pipe_gets_plain_lines_and_verbose_the_states(
    simgan: Any, frames: Path, tmp_path: Path
) -> None:
    plain = simgan("ingest", "unityeyes", frames, "--to", tmp_path / "a.zarr")
    assert "shard 1 of 1: 20 rows" in plain.stderr
    assert "\x1b" not in plain.stderr
    assert "Task run" not in plain.stderr
    verbose = simgan("-v", "ingest", "unityeyes", frames, "--to", tmp_path / "b.zarr")
    assert "Finished in state Completed()" in verbose.stderr
    quiet = simgan("-q", "ingest", "unityeyes", frames, "--to", tmp_path / "c.zarr")
    assert quiet.stderr.strip() == ""
