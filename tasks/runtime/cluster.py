"""Dask cluster: a task runner, and a check that workers run the same code as this process.

A worker with other code would make other results under the same ids, or fail in the middle. All
workers that are there are checked before anything is computed; one that joins later is checked by
each task that it gets.
"""

import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import cache, wraps
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.config
from distributed import Client, LocalCluster, Status, get_worker
from prefect import Task
from prefect_dask.task_runners import DaskTaskRunner

from simgan_core.errors import InputError
from tasks.runtime.code_version import code_version
from tasks.runtime.recipes import STAGES, recipe_version

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("flows", "simgan_core", "storage", "tasks")
_LIBRARIES = ("numpy", "prefect", "torch")
"""Libraries whose versions decide bits of results, or what runs say to Prefect's server."""
_SECONDS_TO_ANSWER: float = 10
_MAX_NAMED = 5
"""Processes that a message names, at most."""

Code = dict[str, str]
"""Description of the code of a process, by what it says: of plain types alone, since a process
with other code has to read it."""


@cache
def code_of_this_process() -> Code:
    """Describe the code of this process: digest of the sources, versions of recipes and libraries.

    `version` and `commit` are for people: the digest tells sources apart without git, too.
    """
    found = code_version()
    commit = "unknown" if found.commit is None else found.commit[:9]
    return {
        "version": found.version,
        "commit": f"{commit} with changes" if found.dirty else commit,
        "sources": _digest_of_sources(),
        "Python": ".".join(platform.python_version_tuple()[:2]),
        # A build for GPUs and one for processors (2.13.0+cpu) are of one version.
        **{name: version(name).partition("+")[0] for name in _LIBRARIES},
        **{f"recipe of {stage}": str(recipe_version(stage)) for stage in STAGES},
    }


def _digest_of_sources() -> str:
    digest = sha256()
    for package in _PACKAGES:
        folder = _ROOT / package
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("recipes.toml")]):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(_ROOT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


def other_code(expected: Code, found: Code) -> str | None:
    """Return in words how the code of two processes differs; None where results are the same."""
    names = [name for name in expected if name not in ("version", "commit")]
    if all(expected[name] == found.get(name) for name in names):
        return None
    differing = [name for name in expected if expected[name] != found.get(name)]
    return ", ".join(
        f"{name}: expected {expected[name]}, found {found.get(name, 'none')}" for name in differing
    )


def require_same_code(address: str) -> None:
    """Raise InputError where processes of the cluster at `address` run other code than this one.

    So, too, where no scheduler answers there. The scheduler counts, since it unpickles what tasks
    are given. A cluster without workers is waited for by its tasks.
    """
    with _client(address) as client:
        found = client.run(code_of_this_process, on_error="return")
        codes = {f"worker {worker}": code for worker, code in found.items()}
        if not codes:
            logger.warning("cluster at %s: no workers yet, tasks wait for the first", address)
        try:
            codes[f"scheduler {address}"] = client.run_on_scheduler(  # type: ignore[no-untyped-call]
                code_of_this_process
            )
        except Exception as error:  # noqa: BLE001  whatever importing another version raises
            codes[f"scheduler {address}"] = error
    if wrong := dict(_differences(codes)):
        raise InputError(_refusal(wrong))


@contextmanager
def _client(address: str) -> Iterator[Client]:
    try:
        client = Client(  # type: ignore[no-untyped-call]
            address, timeout=_SECONDS_TO_ANSWER, set_as_default=False
        )
    except (OSError, MemoryError) as error:
        # MemoryError: what a server of another kind answers is read as a length.
        raise InputError(
            f"no Dask scheduler answers at {address}: start one (dask scheduler), or give its "
            "address as --dask-address"
        ) from error
    with client:
        yield client


def _differences(codes: Mapping[str, Code | BaseException]) -> Iterator[tuple[str, str]]:
    """Yield processes with other code, by address, and what is other about it."""
    ours = code_of_this_process()
    for process, code in sorted(codes.items()):
        if isinstance(code, OSError):
            continue  # it left the cluster meanwhile
        if isinstance(code, BaseException):
            expected = f"version {ours['version']}, commit {ours['commit']}"
            yield process, f"expected {expected}, found none that says its version ({code})"
        elif difference := other_code(ours, code):
            yield process, difference


def _refusal(wrong: Mapping[str, str]) -> str:
    named = [f"{process} ({difference})" for process, difference in wrong.items()]
    if len(named) > _MAX_NAMED:
        named = [*named[:_MAX_NAMED], f"and {len(named) - _MAX_NAMED} more"]
    return (
        f"{'; '.join(named)}: other code than that of this command runs in the Dask cluster. "
        "Install the version of this machine there, start these processes again, and repeat the "
        "command"
    )


_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LOCAL: dict[int, LocalCluster] = {}
"""Clusters that this process has started, by number of workers."""


def local_scheduler(num_workers: int) -> str:
    """Return the scheduler's address of workers on this machine, which share its cores.

    They are started once, since each imports the flows anew, and stay until this process ends: an
    ablation has a dozen stages.
    """
    cluster = _LOCAL.get(num_workers)
    if cluster is None or cluster.status != Status.running:
        cores = max(1, len(os.sched_getaffinity(0)) // num_workers)
        # Dask's own numbers are 1. They are set before a worker's process begins, since libraries
        # count their threads as they are loaded; PyTorch takes MKL's number before OpenMP's.
        threads = {f"distributed.nanny.pre-spawn-environ.{name}": cores for name in _THREADS}
        with dask.config.set(threads):
            _LOCAL[num_workers] = cluster = LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=num_workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
            )
    return str(cluster.scheduler_address)


class CheckingTaskRunner(DaskTaskRunner):
    """Dask task runner whose tasks fail on a worker that runs other code than this process."""

    def submit(self, task: Task[Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Submit a task that first compares the worker's code with this process'."""
        return super().submit(_checked(task, code_of_this_process()), *args, **kwargs)


def _checked(task: Task[Any, Any], expected: Code) -> Task[Any, Any]:
    function = task.fn

    @wraps(function)
    def with_same_code(*args: Any, **kwargs: Any) -> Any:
        require_code_of_worker(expected)
        return function(*args, **kwargs)

    checked = copy(task)
    checked.fn = with_same_code
    return checked


def require_code_of_worker(
    expected: Code, found: Callable[[], Code] = code_of_this_process
) -> None:
    """Raise InputError where this worker runs other code than the process that gave it a task."""
    if difference := other_code(expected, found()):
        raise InputError(_refusal({f"worker {get_worker().address}": difference}))
