"""`simgan refine` as a user runs it: on this machine, on Dask's workers, and what Prefect shows."""

import json
import os
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterParentFlowRunId,
)

from storage.exclusive_lock import exclusive_lock
from tests.refinement_inputs import make_refiner, make_synthetic

NUM_ROWS, ROWS_PER_SHARD = 320, 16


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with synthetic.zarr and refiner.pt."""
    folder = tmp_path_factory.mktemp("inputs")
    make_synthetic(str(folder / "synthetic.zarr"), NUM_ROWS, ROWS_PER_SHARD)
    make_refiner(folder / "refiner.pt")
    return folder


@pytest.fixture(scope="module")
def undisturbed(simgan: Any, inputs: Path) -> dict[str, Any]:
    """The dataset refined in one process."""
    return result_of(simgan(*words(inputs, inputs / "undisturbed.zarr")))


def words(inputs: Path, to: object, *more: object) -> tuple[object, ...]:
    return ("refine", inputs / "synthetic.zarr", "--refiner", inputs / "refiner.pt", "--to", to,
            "--dtype", "fp32", "--json", *more)  # fmt: skip


def result_of(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def num_records(dataset: Path) -> int:
    return len(list((dataset / "records").glob("*/zarr.json")))


def workers_of(process: Any) -> list[psutil.Process]:
    """Dask's worker processes: the children of a fork server (tests/command_server.py)."""
    children = psutil.Process(process.pid).children()
    return [worker for child in children for worker in child.children()]


def test_a_killed_dask_worker_costs_its_unfinished_shards_only(
    simgan: Any, inputs: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    to = tmp_path / "refined.zarr"
    process = simgan.start(*words(inputs, to, "--runner", "dask", "--workers", 2))
    while num_records(to) < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    done_before = {path: path.stat().st_mtime_ns for path in (to / "records").glob("*/zarr.json")}
    workers = workers_of(process)
    assert len(workers) == 2
    workers[0].kill()
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["digest"] == undisturbed["digest"]
    assert {path: path.stat().st_mtime_ns for path in done_before} == done_before


def test_a_second_refinement_into_one_place_is_refused(
    simgan: Any, inputs: Path, tmp_path: Path
) -> None:
    to = tmp_path / "refined.zarr"
    with exclusive_lock(str(to), "refining"):
        done = simgan(*words(inputs, to, "--overwrite"))
    assert done.returncode == 2
    assert f"process {os.getpid()} on " in done.stderr
    assert not to.exists()


def test_a_finished_dataset_is_returned_at_once(
    simgan: Any, inputs: Path, undisturbed: dict[str, Any], environment: dict[str, str]
) -> None:
    assert result_of(simgan(*words(inputs, inputs / "undisturbed.zarr"))) == undisturbed
    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
        # By name: the server may hold runs that are scheduled for later.
        named = FlowRunFilter(name=FlowRunFilterName(any_=["refine synthetic into undisturbed"]))
        newest, *_, first = client.read_flow_runs(flow_run_filter=named, sort="START_TIME_DESC")
    assert subflows_of(first.id, environment) != []
    assert subflows_of(newest.id, environment) == []


def subflows_of(flow_run_id: UUID, environment: dict[str, str]) -> list[Any]:
    parent = FlowRunFilterParentFlowRunId(any_=[flow_run_id])
    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
        found: list[Any] = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id=parent)
        )
    return found


def test_prefect_shows_progress_counts_shifts_and_pictures(
    undisturbed: dict[str, Any], environment: dict[str, str]
) -> None:
    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
        found = client.read_artifacts()
    progress = [artifact for artifact in found if artifact.key == "refinement-progress"]
    assert (100.0, True) in {
        (each.data, "320 of 320 images" in each.description) for each in progress
    }
    summary = next(each for each in found if undisturbed["dataset"] in (each.description or ""))
    for row in ("| rows | 320 |", "| valid | 320 |", "images a second", "| from 0.00 | "):
        assert row in summary.data
    pictures = [artifact for artifact in found if artifact.flow_run_id == summary.flow_run_id]
    assert any(str(each.data).startswith("data:image/png;base64,") for each in pictures)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--workers", 2), "workers needs the runner to be dask"),
        (("--runner", "dask"), "needs either workers"),
        (("--runner", "dask", "--dask-address", "10.0.0.1"), "dask_address"),
        (("--gate-shift", -1), "--gate-shift"),
    ],
)
def test_contradictions_are_refused(
    simgan: Any, inputs: Path, tmp_path: Path, more: tuple[object, ...], said: str
) -> None:
    done = simgan(*words(inputs, tmp_path / "r", *more))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "r").exists()
