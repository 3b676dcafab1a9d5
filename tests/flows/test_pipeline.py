"""The file that newcomers read first, and what it refuses before it trains."""

from pathlib import Path
from typing import Any

import pytest

import flows.pipeline

QUICK = ("--training.steps", 2, "--training.batch-size", 4, "--training.stopping.evaluate-every", 0,
         "--estimator.steps", 2, "--comparison.match-labels", "never")  # fmt: skip


def test_the_diagram_joins_its_lines() -> None:
    lines = str(flows.pipeline.__doc__).splitlines()
    middle = next(number for number, line in enumerate(lines) if "├" in line)
    above, at, below = lines[middle - 1 : middle + 2]
    joints = [column for column, character in enumerate(at) if character in "├┤"]
    assert len(joints) == 3
    for column in joints:
        assert above[column] in "┐┌"
        assert below[column] in "┘└"


@pytest.mark.parametrize(
    ("tested", "more", "said"),
    [
        ("p01,p02", (), "are in the test dataset"),
        ("p02", ("--comparison.shares", 1.5), "between 0 and 1, found 1.5"),
        ("p02", ("--comparison.protocol.name", "leave-one-person-out"), "at least 2 people"),
    ],
)
def test_what_its_comparison_would_refuse_is_refused_before_the_training(
    simgan: Any, tmp_path: Path, tested: str, more: tuple[object, ...], said: str
) -> None:
    simgan("simulate", "synthetic", "--out", tmp_path / "synthetic", "--count", 6)
    simgan("simulate", "real", "--out", tmp_path / "real", "--count", 12, "--people", 3)
    done = simgan(
        *("pipeline", "--synthetic", tmp_path / "synthetic", "--real", tmp_path / "real"),
        *("--real-people", "p00,p01", "--test-people", tested, "--out", tmp_path, *QUICK, *more),
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert (tmp_path / "test.zarr").exists()
    assert not (tmp_path / "refined.zarr").exists()
