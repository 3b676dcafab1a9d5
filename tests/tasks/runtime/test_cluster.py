"""Processes of a Dask cluster that run other code are refused: real ones, with code in a copy."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from distributed import Client

from simgan_core.errors import InputError
from tasks.runtime import cluster
from tasks.runtime.cluster import (
    code_of_this_process,
    local_scheduler,
    other_code,
    require_same_code,
)
from tasks.runtime.recipes import recipe_version
from tests.dask_processes import copy_with_next_recipe, scheduler, worker


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of a scheduler."""
    with scheduler() as found:
        yield found


def test_a_worker_with_other_code_is_named_with_what_differs(address: str, tmp_path: Path) -> None:
    with (
        worker(address) as right,
        worker(address, copy_with_next_recipe(tmp_path)) as wrong,
        pytest.raises(InputError) as refusal,
    ):
        require_same_code(address)
    message = str(refusal.value)
    version = recipe_version("refine")
    assert message.startswith(f"worker {wrong} (")
    assert right not in message
    assert f"recipe of refine: expected {version}, found {version + 1}" in message
    assert "Install the version of this machine there" in message


def test_a_worker_whose_code_has_no_version_is_refused(address: str, tmp_path: Path) -> None:
    old = copy_with_next_recipe(tmp_path)
    (old / "tasks" / "runtime" / "cluster.py").unlink()
    with (
        worker(address, old) as wrong,
        pytest.raises(InputError, match=rf"worker {wrong} \(expected version .+, found none"),
    ):
        require_same_code(address)


def test_a_cluster_with_this_code_is_accepted(address: str) -> None:
    with worker(address):
        require_same_code(address)


def test_an_address_without_a_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_SECONDS_TO_ANSWER", 0.5)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        require_same_code("tcp://127.0.0.1:9")


def test_the_version_alone_is_no_difference() -> None:
    ours = code_of_this_process()
    assert other_code(ours, {**ours, "version": "another", "commit": "another"}) is None
    assert other_code(ours, {**ours, "sources": "another", "commit": "another"}) == (
        f"commit: expected {ours['commit']}, found another, "
        f"sources: expected {ours['sources']}, found another"
    )


def test_workers_on_this_machine_are_started_once_and_again_where_they_are_gone() -> None:
    first = local_scheduler(1)
    assert local_scheduler(1) == first
    cluster._LOCAL[1].close()
    second = local_scheduler(1)
    assert second != first
    require_same_code(second)
    cluster._LOCAL.pop(1).close()


def test_a_worker_on_this_machine_computes_on_its_share_of_the_cores() -> None:
    with Client(local_scheduler(1)) as client:  # type: ignore[no-untyped-call]
        (threads,) = client.run(torch.get_num_threads).values()
    cluster._LOCAL.pop(1).close()
    assert threads == len(os.sched_getaffinity(0))
