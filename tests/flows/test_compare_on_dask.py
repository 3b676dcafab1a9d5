"""`simgan compare` on Dask's workers: the same bits as in one process, whatever dies on the way."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from simgan_core.simulator.eyes import sample_scenes
from tests.flows.conftest import ForkedSimgan, write_eyes
from tests.flows.test_refine_flow import result_of, workers_of

NUM_WORKERS = 2
NUM_ESTIMATES = 2 * 3 + 4


class Place:
    """Datasets that are shared, and a SIMGAN_HOME of its own for each command."""

    def __init__(self, folder: Path, simgan: ForkedSimgan, empty_mlflow: Path) -> None:
        self.folder, self._empty_mlflow = folder, empty_mlflow
        self._simgan = simgan.within(folder)
        scenes = sample_scenes("synthetic", 64, seed=11)
        write_eyes(folder / "synthetic.zarr", "synthetic", scenes)
        write_eyes(folder / "refined.zarr", "refined", sample_scenes("real", 64, seed=12))
        write_eyes(folder / "test.zarr", "real", sample_scenes("real", 40, seed=13))
        write_eyes(folder / "unlabelled.zarr", "real", sample_scenes("real", 40, seed=14))

    def command(self, home: str) -> ForkedSimgan:
        """Return the command with an empty SIMGAN_HOME of this name."""
        (self.folder / home).mkdir()
        shutil.copy(self._empty_mlflow, self.folder / home)
        return self._simgan.with_environment({"SIMGAN_HOME": str(self.folder / home)})

    def words(self, *more: object) -> tuple[object, ...]:
        return ("compare", "--synthetic", "synthetic.zarr", "--refined", "refined.zarr", "--test",
                "test.zarr", "--seeds", 3, "--steps", 30, "--batch-size", 16, "--arms", "synthetic",
                "--arms", "refined", "--empty-shares", "--methods", "knn", "--methods", "ridge",
                "--unlabelled", "unlabelled.zarr", "--match-labels", "never", "--json",
                *more)  # fmt: skip


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, simgan: ForkedSimgan, empty_mlflow: Path
) -> Place:
    return Place(tmp_path_factory.mktemp("compared-on-dask"), simgan, empty_mlflow)


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> dict[str, Any]:
    """The comparison in one process."""
    return result_of(place.command("local")(*place.words()))


def require_same_results(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for what in ("comparison", "arms", "differences", "verdict", "num_test"):
        assert found[what] == expected[what]
    assert found["arms"]["refined"]["pseudo_label_error_deg"] is not None


def test_a_killed_worker_costs_its_unfinished_trainings_only(
    place: Place, undisturbed: dict[str, Any]
) -> None:
    simgan = place.command("dask")
    process = simgan.start(*place.words("--runner", "dask", "--workers", NUM_WORKERS))
    estimates = place.folder / "dask" / "estimates"
    while len(list(estimates.glob("*.npz"))) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    done_before = {path: path.stat().st_mtime_ns for path in estimates.glob("*.npz")}
    workers = workers_of(process)
    assert len(workers) == NUM_WORKERS
    workers[0].kill()
    out, err = process.communicate()
    assert process.returncode == 0, err
    require_same_results(json.loads(out.splitlines()[-1]), undisturbed)
    assert {path: path.stat().st_mtime_ns for path in done_before} == done_before
    assert len(list(estimates.glob("*.npz"))) == NUM_ESTIMATES
    assert not any(psutil.pid_exists(worker.pid) for worker in workers)
