"""Terminal output: lines in words, a bar that leaves nothing behind, Prefect's states on demand."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.simulate import simulate_synthetic
from tests.flows.conftest import Simgan
from tests.terminal_screen import run_on_terminal


@pytest.fixture(scope="module")
def simgan(environment: dict[str, str], workplace: Path) -> Simgan:
    """The command in a process that imports Prefect after it has read `-v` and `-q`."""
    return Simgan(environment, workplace)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder in UnityEyes' layout."""
    simulate_synthetic.fn(tmp_path / "imgs", 20, 1)
    return tmp_path / "imgs"


def test_a_terminal_shows_a_bar_and_keeps_a_few_lines(
    environment: dict[str, str], frames: Path, tmp_path: Path
) -> None:
    words = ("ingest", "unityeyes", str(frames), "--to", str(tmp_path / "a.zarr"))
    shown = run_on_terminal([sys.executable, "-m", "flows.cli", *words], environment, tmp_path)
    assert shown.returncode == 0, shown.written
    assert "ingesting" in shown.written  # the bar
    assert "\x1b[?25h" in shown.written  # the cursor, hidden while the bar moved, is back
    assert shown.lines[0] == "✓ a.zarr: 20 images ingested, 0 rejected"
    assert len(shown.lines) <= 3


def test_a_pipe_gets_plain_lines_and_verbose_the_states(
    simgan: Any, frames: Path, tmp_path: Path
) -> None:
    plain = simgan("ingest", "unityeyes", frames, "--to", tmp_path / "a.zarr")
    assert plain.stderr.splitlines() == ["a.zarr: 20 images ingested, 0 rejected"]
    verbose = simgan("-v", "ingest", "unityeyes", frames, "--to", tmp_path / "b.zarr")
    assert "Finished in state Completed()" in verbose.stderr
    quiet = simgan("-q", "ingest", "unityeyes", frames, "--to", tmp_path / "c.zarr")
    assert quiet.stderr.strip() == ""


def test_what_a_task_refuses_is_said_once(simgan: Any, tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing.zarr")
    refused = simgan("label-prior", "--synthetic", nothing, "--unlabelled", nothing)
    assert refused.returncode == 2
    assert [line for line in refused.stderr.splitlines() if "there is no dataset" in line] == [
        refused.stderr.splitlines()[-1]
    ]
    assert refused.stderr.startswith("error: ")
