"""Which failures are tried again, where bulk work runs, and how it is cut and stopped."""

import pytest
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError

from simgan_core.errors import InputError
from tasks.runtime import policies
from tasks.runtime.policies import (
    MAX_GROUPS,
    Runner,
    StoppedError,
    gpu_slot,
    groups_of_shards,
    require_runner,
    retry_on_io,
    stop_if_told,
    tasks_stop_too,
)
from tests.dask_processes import scheduler


class Failed:
    """A task's final state."""

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    def result(self) -> None:
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError("disk full"), True),
        (ConnectionResetError(), True),
        (InputError("wrong"), False),
        (None, False),
    ],
)
def test_only_failures_of_the_operating_system_are_tried_again(
    error: BaseException | None, again: bool
) -> None:
    assert retry_on_io(None, None, Failed(error)) is again


@pytest.mark.parametrize("count", [0, 1, MAX_GROUPS, MAX_GROUPS + 1, 1000])
def test_groups_hold_every_shard_once_and_in_order(count: int) -> None:
    groups = groups_of_shards(list(range(count)))
    assert [shard for group in groups for shard in group] == list(range(count))
    assert len(groups) <= MAX_GROUPS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": 2}, "workers needs the runner to be dask"),
        ({"kind": "dask"}, "needs either workers"),
        ({"kind": "dask", "workers": 2, "dask_address": "tcp://a:1"}, "needs either workers"),
        ({"kind": "dask", "dask_address": "a:1"}, "dask_address"),
    ],
)
def test_a_runner_is_in_one_place(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Runner.model_validate(fields)


def test_a_cluster_needs_a_server_that_it_can_reach() -> None:
    runner = Runner(kind="dask", dask_address="tcp://10.0.0.1:8786")
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(InputError, match="PREFECT_API_URL names none"),
    ):
        require_runner(runner)


@pytest.mark.parametrize("uri", [None, "sqlite:///mlflow.db"])
def test_a_cluster_that_trains_needs_an_mlflow_that_it_can_reach(
    uri: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    runner = Runner(kind="dask", dask_address="tcp://10.0.0.1:8786")
    with (
        temporary_settings({PREFECT_API_URL: "http://10.0.0.1:4200/api"}),
        pytest.raises(InputError, match=rf"MLFLOW_TRACKING_URI is {uri or 'not set'}"),
    ):
        require_runner(runner, to_mlflow=True)


def test_a_cluster_with_both_servers_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://10.0.0.1:5000")
    with (
        scheduler() as address,
        temporary_settings({PREFECT_API_URL: "http://10.0.0.1:4200/api"}),
    ):
        require_runner(Runner(kind="dask", dask_address=address), to_mlflow=True)


def test_no_slot_is_asked_for_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(policies, "concurrency", None)
    with gpu_slot():
        pass


@pytest.mark.parametrize("told", [KeyboardInterrupt, TerminationSignal])
def test_tasks_stop_with_the_flow_that_was_told_to(
    told: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.runtime.policies.os._exit", lambda _code: None)
    monkeypatch.setattr(policies, "STOP_GRACE_S", 0)

    def flow() -> None:
        with tasks_stop_too():
            stop_if_told()
            raise told(15)

    with pytest.raises(told):
        flow()
    with pytest.raises(StoppedError):
        stop_if_told()
    with tasks_stop_too():
        stop_if_told()  # the next flow is not told
