"""What becomes of an ingestion and a comparison when parts of a Dask cluster fail.

A scheduler, two workers and MLflow in processes of their own; datasets on S3, by a proxy that
breaks every connection while S3 is away. The variable REPEATS asks for more than one time of each.
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

from simgan_core.simulator.eyes import sample_scenes
from storage.location import locate
from tasks.simulate import simulate_synthetic
from tests.flows.conftest import Simgan, wait_until_healthy, write_eyes
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
    """Machines that begin with nothing done: MLflow, a SIMGAN_HOME, and a Dask cluster."""

    def __init__(self, stack: ExitStack, folder: Path, environment: dict[str, str]) -> None:
        self._stack, self._folder = stack, folder
        self.home = folder / "home"
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        locate("s3://datasets/drill/ingested.zarr").delete_all()
        url = f"http://127.0.0.1:{free_port()}"
        self._environment = {
            **environment,
            **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            "SIMGAN_HOME": str(self.home),
            "MLFLOW_TRACKING_URI": url,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[3]),
        }
        mlflow = self._run("mlflow", "server", "--port", url.rpartition(":")[2], "--workers", 1,
                           "--backend-store-uri", f"sqlite:///{self.home}/mlflow.db",
                           "--artifacts-destination", self.home / "artifacts")  # fmt: skip
        wait_until_healthy(url, mlflow)
        self._start_cluster()

    def start(self, stage: str, *, on_dask: bool) -> "subprocess.Popen[str]":
        """Start the command of a stage."""
        runner = ("--runner", "dask", "--dask-address", self._address) if on_dask else ()
        command = Simgan(self._environment, self._folder).start(*COMMANDS[stage], *runner)
        assert isinstance(command, subprocess.Popen)
        return command

    def num_done(self, stage: str) -> int:
        """Count the shards, or the estimators, that are finished."""
        if stage == "compare":
            return len(list((self.home / "estimates").glob("*.npz")))
        keys = locate("s3://datasets/drill/ingested.zarr").list_keys("records/")
        return sum(key.count("/") == 2 and key.endswith("zarr.json") for key in keys)

    def kill_worker(self) -> None:
        self._workers[0].kill()

    def kill_scheduler(self) -> None:
        """Kill the scheduler; its workers end too, and another cluster is started."""
        for process in (self._scheduler, *self._workers):
            process.kill()
        self._start_cluster()

    def _start_cluster(self) -> None:
        port = free_port()
        self._address = f"tcp://127.0.0.1:{port}"
        self._scheduler = self._run("dask", "scheduler", "--host", "127.0.0.1", "--port", port)
        # Without the nanny, which would start a killed one again.
        worker = ("dask", "worker", self._address, "--nthreads", 1, "--no-nanny")
        self._workers = [self._run(*worker) for _ in range(2)]

    def _run(self, *words: object) -> "subprocess.Popen[bytes]":
        with (self._folder / "cluster.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *map(str, words)],
                env=self._environment,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # With the processes that it started: those of MLflow's server outlive it.
        self._stack.callback(process.wait)
        self._stack.callback(os.killpg, process.pid, signal.SIGKILL)
        return process


@pytest.fixture
def site(
    folder: Path,
    environment: dict[str, str],
    s3_proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], AbstractContextManager[Site]]:
    """Open sites one after the other."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)

    @contextmanager
    def opened() -> Iterator[Site]:
        with ExitStack() as stack:
            yield Site(stack, folder, environment)

    return opened


def answer(stage: str, process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = process.communicate()
    assert process.returncode == 0, err
    result = json.loads(out.splitlines()[-1])
    return {name: result[name] for name in ANSWERS[stage]}


@pytest.mark.parametrize("stage", ["ingest", "compare"])
def test_digests_and_tables_are_the_same_whatever_fails(
    stage: str, site: Callable[[], AbstractContextManager[Site]], s3_proxy: S3Proxy
) -> None:
    with site() as machines:
        expected = answer(stage, machines.start(stage, on_dask=False))
    for _ in range(int(os.environ.get("REPEATS", "1"))):
        for failure in ("worker killed", "scheduler killed", "S3 away"):
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
                    assert process.communicate() is not None
                    assert process.returncode != 0
                    process = machines.start(stage, on_dask=True)
                else:
                    back = time.monotonic() + AWAY_S
                    s3_proxy.faults = lambda _, at=back: "reset" if time.monotonic() < at else None
                assert answer(stage, process) == expected, failure
                assert machines.num_done(stage) >= done
