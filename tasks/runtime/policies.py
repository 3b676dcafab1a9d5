"""Task policies: retries, cache, splitting of work, task runners."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self, cast

from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.settings import get_current_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field, model_validator

from simgan_core.config import Config
from simgan_core.errors import InputError
from tasks.runtime.paths import refused_place

# Steps are idempotent by content (a finished shard, training or comparison is found and reused),
# so Prefect's own result cache would only add hashing of the inputs.
CACHE = NO_CACHE

# Reading and writing may meet a full disk, a busy file server or a network that drops.
IO_RETRIES = 2
IO_RETRY_DELAYS_S = [1.0, 5.0]

# Prefect's database slows down beyond a few hundred task runs a flow run.
MAX_GROUPS = 200

# The name of the slots, one a GPU, that `simgan up` makes.
GPU_SLOT = "gpu"
# The server takes the slot of a dead holder back after this time, at least 60.
SLOT_LEASE_S = 60

# Heartbeat of a run; after three missed ones it counts as crashed (30 s is the least that Prefect
# takes).
HEARTBEAT_S = 30

# The event of a comparison that found refined images worse than synthetic ones.
REFINED_GOT_WORSE = "simgan.refined.got-worse"


# A cancelled run is killed by its worker after 30 s; it should be gone by then.
STOP_GRACE_S = 15
_STOP = threading.Event()


class Runner(Config):
    """Runner of bulk work: this process or a Dask cluster."""

    kind: Literal["local", "dask"] = "local"
    """local: in this process, on all its cores or its GPU; dask: by a Dask cluster's workers."""
    workers: int | None = Field(default=None, ge=1, le=1024)
    """With dask: number of workers to start on this machine, which share its cores."""
    dask_address: str | None = Field(default=None, pattern=r"^(tcp|tls|ucx|ws|wss)://.+:\d+$")
    """With dask: the scheduler of a running cluster, such as tcp://10.0.0.1:8786."""

    @model_validator(mode="after")
    def _require_one_place(self) -> Self:
        given = [name for name in ("workers", "dask_address") if getattr(self, name) is not None]
        if self.kind == "local" and given:
            raise ValueError(f"{given[0]} needs the runner to be dask, not local")
        if self.kind == "dask" and len(given) != 1:
            raise ValueError(
                "the dask runner needs either workers, to start them on this machine, or "
                "dask_address, the scheduler of a cluster"
            )
        return self


def retry_on_io(_task: object, _run: object, state: object) -> bool:
    """Return true for failures worth a retry: errors of the operating system alone."""
    try:
        state.result()  # type: ignore[attr-defined]
    except OSError as error:
        return refused_place(error) is None
    except Exception:  # noqa: BLE001  any other failure would only be repeated
        return False
    return False


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Hold the concurrency slot of a GPU, or of the processor, while a flow computes.

    One slot for a whole stage: taken for every task, it cost seconds a task on a busy server.
    Commands without a Prefect server have no other run to wait for.
    """
    if "PREFECT_API_URL" not in os.environ:
        yield
        return
    with concurrency(GPU_SLOT, lease_duration=SLOT_LEASE_S):
        yield


class StoppedError(Exception):
    """Task ended early because its flow was cancelled."""


@contextmanager
def tasks_stop_too() -> Iterator[None]:
    """Stop tasks in threads of this process when the flow that waits for them is cancelled.

    A signal reaches only the main thread; the others would go on to the end of their work. A
    cancelled run whose tasks are still busy after STOP_GRACE_S ends as by `kill -9`, which loses
    only unfinished shards.
    """
    _STOP.clear()
    try:
        yield
    except TerminationSignal:
        _STOP.set()
        last_resort = threading.Timer(STOP_GRACE_S, os._exit, [128 + signal.SIGTERM])
        last_resort.daemon = True
        last_resort.start()
        raise
    except KeyboardInterrupt:
        _STOP.set()
        raise


def stop_if_told() -> None:
    """Raise StoppedError if the flow was cancelled; call it between two pieces of work."""
    if _STOP.is_set():
        raise StoppedError("stopped with its flow")


def threads(max_workers: int) -> TaskRunner[PrefectFuture[Any]]:
    """Return a task runner for mapped tasks in threads of the flow's process."""
    return cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=max_workers))


def task_runner(runner: Runner, num_threads: int = 1) -> TaskRunner[PrefectFuture[Any]]:
    """Return the task runner for a flow's mapped tasks, locally with `num_threads` threads.

    One by default, since PyTorch uses every core within a task.
    """
    if runner.kind == "local":
        return threads(num_threads)
    # Loading Dask takes as long as the rest of a flow; most flows do without.
    from tasks.runtime.cluster import CheckingTaskRunner, local_scheduler  # noqa: PLC0415

    made = CheckingTaskRunner(address=runner.dask_address or local_scheduler(runner.workers or 1))
    return cast("TaskRunner[PrefectFuture[Any]]", made)


def is_dask_worker() -> bool:
    """Return true in a worker of a Dask cluster."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


@contextmanager
def placed(tasks: TaskRunner[PrefectFuture[Any]], on: Literal["gpu", "cpu"]) -> Iterator[None]:
    """Submit tasks to the workers of a mixed Dask cluster that suit them.

    Those of networks ("gpu") go to workers that offer the resource `gpu`, one at a time each;
    others ("cpu") to workers that do not, as long as there are any. Where no worker offers it, or
    all do, any worker takes any task.
    """
    client = getattr(tasks, "client", None)
    workers = {} if client is None else client.scheduler_info(n_workers=-1)["workers"]
    with_gpu = {name for name, worker in workers.items() if worker["resources"].get("gpu")}
    if not with_gpu:
        yield
        return
    from dask.base import annotate  # noqa: PLC0415  where Dask is loaded already

    others = sorted(set(workers) - with_gpu)
    wanted: dict[str, Any] = {"resources": {"gpu": 1}}
    if on == "cpu":
        wanted = {"workers": others, "allow_other_workers": True} if others else {}
    with annotate(**wanted):
        yield


def runner_of_flow() -> TaskRunner[PrefectFuture[Any]]:
    """Return the task runner of the running flow."""
    context = FlowRunContext.get()
    assert context is not None, "only a flow has a task runner"
    return context.task_runner


def require_runner(runner: Runner, *, to_mlflow: bool = False) -> None:
    """Raise InputError for a cluster that could not do the work of this process.

    So where its workers could not reach Prefect's or MLflow's server (a command's local ones
    listen on this machine only; MLflow's counts if workers use it), where no scheduler answers, and
    where workers run other code.
    """
    if runner.dask_address is not None and get_current_settings().api.url is None:
        raise InputError(
            f"workers of the cluster at {runner.dask_address} report to Prefect's server, and "
            "PREFECT_API_URL names none; start one (prefect server start) and set it here and for "
            "the workers"
        )
    mlflow = os.environ.get("MLFLOW_TRACKING_URI", "")
    if to_mlflow and runner.dask_address is not None and not mlflow.startswith("http"):
        raise InputError(
            f"workers of the cluster at {runner.dask_address} leave what they train in MLflow, and "
            f"MLFLOW_TRACKING_URI is {mlflow or 'not set'}: expected the URL of a server; start "
            "one (mlflow server) and set it here and for the workers"
        )
    if runner.dask_address is not None:
        from tasks.runtime.cluster import require_same_code  # noqa: PLC0415  as in task_runner

        require_same_code(runner.dask_address)


def groups_of_shards(shards: list[int]) -> list[list[int]]:
    """Split shards into at most MAX_GROUPS groups of neighbours of nearly equal size."""
    size = max(1, -(-len(shards) // MAX_GROUPS))
    return [shards[start : start + size] for start in range(0, len(shards), size)]
