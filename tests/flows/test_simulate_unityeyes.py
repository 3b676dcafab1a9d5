"""`simgan simulate unityeyes`: killed and run again, by several processes, and with bad input."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unityeyes_folder import write_assets

EMPTY = object()
"""Stands for an empty folder."""
WORDS = ("--count", 48, "--seed", 4, "--rows-per-shard", 4, "--size", "80x120", "--samples", 2)

TRAINING = ("--training.steps", 4, "--training.batch-size", 8, "--training.history-size", 16,
            "--training.refiner.num-features", 4, "--training.refiner.num-blocks", 1,
            "--training.discriminator-pretraining-steps", 1,
            "--training.stopping.evaluate-every", 0)  # fmt: skip


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny folder of assets."""
    return write_assets(tmp_path_factory.mktemp("assets"))


def digest(simgan: Any, assets: Path, to: Path, *more: object) -> str:
    done = simgan("simulate", "unityeyes", "--assets", assets, "--to", to, *WORDS, *more, "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout.splitlines()[-1])["digest"])


def test_killed_and_run_again_or_by_two_processes_the_dataset_is_the_same(
    simgan: Any, assets: Path, tmp_path: Path
) -> None:
    whole = digest(simgan, assets, tmp_path / "whole.zarr")
    to = tmp_path / "killed.zarr"
    process = simgan.start("simulate", "unityeyes", "--assets", assets, "--to", to, *WORDS)
    while len(list((to / "records").glob("*/zarr.json"))) < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert digest(simgan, assets, to) == whole
    assert digest(simgan, assets, tmp_path / "two.zarr", "--workers", 2) == whole


@pytest.mark.parametrize("real", [False, True])
def test_its_files_go_the_whole_way_round_in_one_command(
    simgan: Any, assets: Path, tmp_path: Path, real: bool
) -> None:
    if real:
        assets = Path(__file__).parents[3] / "shared" / "data" / "unityeyes2"
        if not assets.is_dir():
            pytest.skip("UnityEyes2's assets are not here")
    done = simgan("simulate", "unityeyes", "--assets", assets, "--out", tmp_path / "UnityEyes",
                  "--count", 20, "--size", "240x320")  # fmt: skip
    assert done.returncode == 0, done.stderr
    simgan("simulate", "real", "--out", tmp_path / "MPIIGaze", "--count", 80)
    done = simgan(
        "pipeline", "--synthetic", tmp_path / "UnityEyes", "--real", tmp_path / "MPIIGaze",
        "--real-people", "p00,p01", "--test-people", "p02,p03", "--out", tmp_path / "piped",
        *TRAINING, "--seeds", 1, "--estimator.steps", 20, "--comparison.arms", "synthetic",
        "--comparison.arms", "refined", "--comparison.shares", 0.5, "--comparison.methods", "ridge",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert {"synthetic", "refined"} <= result["arms"].keys()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--assets", "nowhere", "--out", "pairs"), "--assets nowhere is no folder"),
        (("--assets", EMPTY, "--out", "pairs"), "lacks Resources/ShapePCA/mesh_mean.txt"),
        (("--assets", EMPTY), "either --out FOLDER or --to DATASET"),
        (("--assets", EMPTY, "--out", "pairs", "--size", "big"), "expected height x width"),
        (("--assets", EMPTY, "--out", "pairs", "--distance-mm", 9, 5), "distance_mm should be two"),
    ],
)
def test_bad_input_is_exit_code_2_and_a_message(
    simgan: Any, words: tuple[object, ...], expected: str, tmp_path: Path
) -> None:
    given = (tmp_path if word is EMPTY else word for word in words)
    done = simgan("simulate", "unityeyes", *given)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
