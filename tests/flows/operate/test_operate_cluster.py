"""What becomes of an ingestion and a comparison when parts of a Dask cluster fail.

A scheduler, two workers, MLflow and each command in processes of their own; datasets on S3, by a
proxy that breaks every connection while S3 is away. The variable REPEATS asks for more than one
time of each:

REPEATS=10 python -m pytest -m drill tests/flows/operate/test_operate_cluster.py -n 0 -v
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from simgan_core.simulator.eyes import sample_scenes
from storage.location import locate
from tasks.runtime.tracking.experiments import COMPARISONS
from tasks.simulate import simulate_synthetic
from tests.command_server import Command, CommandServer
from tests.flows.conftest import ForkedSimgan, wait_until_healthy, write_eyes
from tests.flows.test_cluster_docs import free_port
from tests.s3_proxy import S3Proxy

pytestmark = [pytest.mark.drill, pytest.mark.timeout(600)]

AWAY_S = 10.0
COMMANDS: dict[str, list[object]] = {
    "ingest": ["ingest", "unityeyes", "frames", "--to", "s3://datasets/drill/ingested.zarr",
               "--rows-per-shard", 8, "--json"],
    "compare": ["compare", *(word for role in ("synthetic", "refined", "test")
                             for word in (f"--{role}", f"s3://datasets/drill/{role}.zarr")),
                "--seeds", 6, "--steps", 40, "--batch-size", 16, "--arms", "synthetic", "--arms",
                "refined", "--empty-methods", "--empty-shares", "--json"],
}  # fmt: skip
ANSWERS = {"ingest": ("digest",), "compare": ("comparison", "arms", "differences", "verdict")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, s3_bucket: str) -> Path:
    """Frames in a folder, datasets on S3."""
    made = tmp_path_factory.mktemp("drill")
    simulate_synthetic.fn(str(made / "frames"), 320, seed=21)
    for role, domain, seed in (("synthetic", "synthetic", 22), ("refined", "refined", 23),
                               ("test", "real", 24)):  # fmt: skip
        scenes = sample_scenes("synthetic" if domain == "synthetic" else "real", 64, seed)
        write_eyes(f"{s3_bucket}/drill/{role}.zarr", domain, scenes)  # type: ignore[arg-type]
    return made


class Site:
    """Machines that begin with nothing done: a SIMGAN_HOME, a Dask cluster, none of MLflow's runs.

    Servers of Prefect and MLflow, which start slowly, are those of all sites.
    """

    def __init__(self, stack: ExitStack, folder: Path, commands: ForkedSimgan) -> None:
        self._stack, self._folder, self._commands = stack, folder, commands
        self.home = Path(commands.environment["SIMGAN_HOME"])
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        locate("s3://datasets/drill/ingested.zarr").delete_all()
        forget_comparisons(commands.environment["MLFLOW_TRACKING_URI"])
        self._workers: list[Command] = []

    def start(self, stage: str, *, on_dask: bool) -> Command:
        """Start the command of a stage."""
        if on_dask and not self._workers:
            self._start_cluster()
        runner = ("--runner", "dask", "--dask-address", self._address) if on_dask else ()
        return self._commands.start(*COMMANDS[stage], *runner)

    def num_done(self, stage: str) -> int:
        """Count the shards, or the estimators, that are finished."""
        if stage == "compare":
            return len(list((self.home / "estimates").glob("*.npz")))
        keys = locate("s3://datasets/drill/ingested.zarr").list_keys("records/")
        return sum(key.count("/") == 2 and key.endswith("zarr.json") for key in keys)

    def kill_worker(self) -> None:
        self._workers[0].kill()

    def kill_scheduler(self) -> None:
        """Kill the scheduler; its workers end too, and the next command starts another cluster."""
        for process in (self._scheduler, *self._workers):
            process.kill()
        self._workers = []

    def _start_cluster(self) -> None:
        port = free_port()
        self._address = f"tcp://127.0.0.1:{port}"
        self._scheduler = self._run("scheduler", "--host", "127.0.0.1", "--port", port,
                                    "--dashboard-address", "127.0.0.1:0")  # fmt: skip
        # Without the nanny, which would start a killed one again.
        worker = ("worker", self._address, "--nthreads", 1, "--no-nanny", "--no-dashboard")
        self._workers = [self._run(*worker) for _ in range(2)]

    def _run(self, *words: object) -> Command:
        process = self._commands.dask(*words)
        self._stack.callback(end, process)
        return process


def end(process: Command) -> None:
    """Kill a process unless it has ended, and wait for its end."""
    if process.poll() is None:
        process.kill()
        process.communicate()


@contextmanager
def running(
    folder: Path, environment: dict[str, str], *words: object
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a Python module, and kill it at the end with the processes that it started."""
    with (folder / "cluster.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def forget_comparisons(url: str) -> None:
    """Give the experiment of comparisons another name, so that the next one begins empty."""
    client = MlflowClient(url)
    found = client.get_experiment_by_name(COMPARISONS)
    if found is not None:
        client.rename_experiment(found.experiment_id, f"{COMPARISONS} until {time.time()}")


@pytest.fixture(scope="module")
def servers(folder: Path, environment: dict[str, str]) -> Iterator[ForkedSimgan]:
    """MLflow's server, and commands with all addresses but the one of S3 in their environment."""
    url = f"http://127.0.0.1:{free_port()}"
    own = {
        **environment,
        "SIMGAN_HOME": str(folder / "home"),
        "MLFLOW_TRACKING_URI": url,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    words = ("mlflow", "server", "--port", url.rpartition(":")[2], "--workers", 1,
             "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
             "--artifacts-destination", folder / "artifacts")  # fmt: skip
    with running(folder, own, *words) as mlflow:
        forking = CommandServer(own, folder / "commands")
        wait_until_healthy(url, mlflow)
        yield ForkedSimgan(forking, own, folder)
        forking.close()


@pytest.fixture
def site(
    folder: Path,
    servers: ForkedSimgan,
    s3_proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], AbstractContextManager[Site]]:
    """Open sites one after the other."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    s3 = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    commands = servers.with_environment(s3)

    @contextmanager
    def opened() -> Iterator[Site]:
        with ExitStack() as stack:
            yield Site(stack, folder, commands)

    return opened


def answer(stage: str, process: Command) -> dict[str, Any]:
    out, err = process.communicate()
    assert process.returncode == 0, err
    result = json.loads(out.splitlines()[-1])
    return {name: result[name] for name in ANSWERS[stage]}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, dict[str, Any]]:
    """What each stage answers where nothing fails, from the first time that it was asked."""
    return {}


@pytest.mark.parametrize("repeat", range(int(os.environ.get("REPEATS", "1"))))
@pytest.mark.parametrize("failure", ["worker killed", "scheduler killed", "S3 away"])
@pytest.mark.parametrize("stage", ["ingest", "compare"])
def test_digests_and_tables_are_the_same_whatever_fails(
    stage: str,
    failure: str,
    repeat: int,
    site: Callable[[], AbstractContextManager[Site]],
    s3_proxy: S3Proxy,
    undisturbed: dict[str, dict[str, Any]],
) -> None:
    if stage not in undisturbed:
        with site() as machines:
            undisturbed[stage] = answer(stage, machines.start(stage, on_dask=False))
    with site() as machines:
        process = machines.start(stage, on_dask=True)
        while machines.num_done(stage) < 2:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        done = machines.num_done(stage)
        if failure == "worker killed":
            machines.kill_worker()
        elif failure == "scheduler killed":
            machines.kill_scheduler()
            _, err = process.communicate()
            assert process.returncode != 0, err
            process = machines.start(stage, on_dask=True)
        else:
            back = time.monotonic() + AWAY_S
            s3_proxy.faults = lambda _: "reset" if time.monotonic() < back else None
        assert answer(stage, process) == undisturbed[stage]
        assert machines.num_done(stage) >= done
