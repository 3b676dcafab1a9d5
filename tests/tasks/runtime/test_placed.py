"""Mixed Dask clusters: networks run on the workers with a GPU, decoding on the others."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from distributed import Scheduler, SpecCluster, Worker, get_worker
from prefect_dask.task_runners import DaskTaskRunner

from tasks.runtime.policies import placed, threads


@contextmanager
def cluster(resources: Mapping[str, Mapping[str, float]]) -> Iterator[SpecCluster]:
    """Run workers of these names, with what each offers, in this process."""
    workers = {
        name: {"cls": Worker, "options": {"nthreads": 1, "resources": offered, "dashboard": False}}
        for name, offered in resources.items()
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"},
    }
    with SpecCluster(workers=workers, scheduler=scheduler) as made:
        made.wait_for_workers(len(workers))
        yield made


def name_of_worker(_number: int) -> str:
    return str(get_worker().name)


@pytest.mark.parametrize(
    ("resources", "on", "used"),
    [
        ({"a": {"gpu": 1}, "b": {}, "c": {}}, "gpu", {"a"}),
        ({"a": {"gpu": 1}, "b": {}, "c": {}}, "cpu", {"b", "c"}),
        ({"a": {"gpu": 1}}, "cpu", {"a"}),
        ({"a": {}, "b": {}}, "gpu", {"a", "b"}),
    ],
)
def test_tasks_go_to_the_workers_that_suit_them(
    resources: Mapping[str, Mapping[str, float]], on: Literal["gpu", "cpu"], used: set[str]
) -> None:
    with cluster(resources) as made, DaskTaskRunner(cluster=made) as tasks:
        runner: Any = tasks
        with placed(runner, on):
            sent = [tasks.client.submit(name_of_worker, n, pure=False) for n in range(12)]
        names = {each.result() for each in sent}
    assert names <= used


def test_tasks_of_this_process_need_no_placing() -> None:
    with threads(1) as tasks, placed(tasks, "gpu"):
        pass
