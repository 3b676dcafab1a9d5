"""`simgan refine` on a Dask cluster whose workers run other code than the command."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dask_processes import copy_with_next_recipe, scheduler, worker
from tests.refinement_inputs import make_refiner, make_synthetic


@pytest.fixture
def address(environment: dict[str, str]) -> Iterator[str]:
    """Address of a scheduler without workers."""
    with scheduler(environment) as found:
        yield found


@pytest.fixture
def words(address: str, tmp_path: Path) -> list[object]:
    """The command that refines on the cluster."""
    make_synthetic(str(tmp_path / "synthetic.zarr"), 16, 16)
    refiner = make_refiner(tmp_path / "refiner.pt")
    return ["refine", tmp_path / "synthetic.zarr", "--refiner", refiner, "--to",
            tmp_path / "refined.zarr", "--runner", "dask", "--dask-address", address]  # fmt: skip


def test_workers_with_other_code_are_refused_before_anything_is_written(
    simgan: Any, words: list[object], address: str, environment: dict[str, str], tmp_path: Path
) -> None:
    other = copy_with_next_recipe(tmp_path / "other")
    with worker(address, other, environment) as wrong:
        done = simgan(*words)
    assert done.returncode == 2
    assert f"worker {wrong} (" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "refined.zarr").exists()


def test_a_worker_with_other_code_that_joins_later_is_refused_by_its_first_task(
    simgan: Any, words: list[object], address: str, environment: dict[str, str], tmp_path: Path
) -> None:
    other = copy_with_next_recipe(tmp_path / "other")
    process = simgan.start(*words)
    while not (tmp_path / "refined.zarr").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    with worker(address, other, environment) as wrong:
        _, err = process.communicate()
    assert process.returncode == 2
    assert f"worker {wrong} (" in err
    assert "Traceback" not in err
