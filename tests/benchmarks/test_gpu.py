"""The script that measures on a GPU, rehearsed on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.summary import goals
from benchmarks.gpu.trace import Interval, busy_and_gaps

ROOT = Path(__file__).parents[2]
TOTAL_S = 480


def gpu_sh(out: Path, *parts: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(ROOT / "benchmarks/gpu.sh"), str(out), *parts],
        env={**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu", **environment},
        check=False,
        capture_output=True,
        text=True,
    )


def parts_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "gpu.json").read_text())["parts"]


@pytest.mark.timeout(TOTAL_S)
def test_every_part_ends_within_its_limit_and_gives_what_it_is_for(tmp_path: Path) -> None:
    done = gpu_sh(tmp_path)
    parts = parts_of(tmp_path)
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(
        ("estimators", "eyes", "machine", "rates", "tests", "trace_refinement", "trace_training",
         "train", "waiting"), "done"
    ), done.stdout  # fmt: skip
    assert done.returncode == 0
    assert all(part["seconds"] <= part["limit_s"] for part in parts.values())
    results = {name: part["results"] for name, part in parts.items()}
    assert results["machine"]["kind"] == "cpu"
    assert results["machine"]["versions"]["torch"]
    assert results["machine"]["bf16_matrix_tflops"] > 0
    assert results["rates"]["end to end / computing alone"] > 0
    assert results["rates"]["a_second"]["end to end, by 1 processes"]
    assert results["waiting"]["ours"]["images_a_second"]
    assert results["train"]["ratio"] > 0
    assert results["eyes"]["images_a_second"]["80x120, 2 samples"] > 0
    assert results["estimators"]["ratio"] > 0
    for name in ("trace_refinement", "trace_training"):
        assert 0 < results[name]["computing_share"] <= 1
        assert results[name]["kernels"]
        assert (tmp_path / f"{name}.trace.json.gz").stat().st_size > 0
    tests = results["tests"]["tests"].values()
    assert len(tests) > 20
    for test in tests:
        assert test["outcome"] == "skipped"
        assert test["reason"].startswith("needs a GPU: ")


def test_a_part_that_hangs_or_fails_costs_only_itself(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
case "$*" in
*waiting*) echo $$ > {tmp_path}/pid; exec sleep 1000;;
*train*) for last; do :; done; echo '{{"begun": 1}}' > "$last"; echo broken; exit 3;;
esac
exec {sys.executable} "$@"
"""
    )
    python.chmod(0o755)
    done = gpu_sh(tmp_path, "waiting=1", "train", "machine", PYTHON=str(python))
    assert done.returncode == 1
    parts = parts_of(tmp_path)
    found = {name: (part["status"], part["exit_code"]) for name, part in parts.items()}
    assert found == {"waiting": ("timed out", 124), "train": ("failed", 3), "machine": ("done", 0)}
    assert parts["train"]["results"] == {"begun": 1}
    assert "broken" in parts["train"]["log_tail"]
    assert parts["machine"]["results"]["kind"] == "cpu"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_without_a_gpu_nothing_is_measured_but_a_rehearsal(tmp_path: Path) -> None:
    done = gpu_sh(tmp_path, DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "rehearse with DEVICE=cpu" in done.stderr


def test_an_unknown_part_is_named_with_those_there_are(tmp_path: Path) -> None:
    done = gpu_sh(tmp_path, "speed")
    assert done.returncode == 2
    assert "there is no part speed; the parts are:" in done.stderr
    assert "trace_training" in done.stderr


def test_overlapping_kernels_count_once_and_leave_gaps_between_them() -> None:
    kernels = [Interval(7, 9), Interval(0, 4), Interval(1, 2), Interval(3, 5), Interval(5, 6)]
    assert busy_and_gaps(kernels) == (8, [Interval(6, 7)])
    assert busy_and_gaps([]) == (0, [])


def test_goals_are_judged_by_what_was_measured_and_else_are_not_met() -> None:
    results = {
        "machine": {"bf16_matrix_tflops": 800.0},
        "tests": {"counts": {"passed": 30, "failed": 10}},
        "rates": {"a_second": {"end to end, zarr to zarr": [1e5, 2e5]}},
        "train": {"batch_size": 512, "refiner_steps_a_second": {"ours": 180.0}, "ratio": 8.5},
        "eyes": {"images_a_second": {"80x120, 2 samples": 9e3}},
    }
    found = {goal.name: goal.found for goal in goals(results)}
    assert found["share of GPU tests that pass"] == 0.75
    assert found["images a second, end to end"] == 2e5
    assert found["end to end / computing alone"] is None
    assert found["eyes rendered a second"] == 9e3
    assert found["training / bf16 matrix rate"] == pytest.approx(0.3997, abs=1e-3)
    met = {goal.name for goal in goals(results) if goal.as_json()["met"]}
    assert met == {
        "images a second, end to end", "training / plain loop", "training / bf16 matrix rate"
    }  # fmt: skip
    assert not any(goal.as_json()["met"] for goal in goals({}))
