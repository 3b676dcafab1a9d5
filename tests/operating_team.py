"""`simgan up` in a place of its own, spoken to as a UI would, and what may go wrong there."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import psutil
import torch

from simgan_core.config import RefinerConfig, TrainingConfig
from simgan_core.models.checkpoint import save_refiner
from simgan_core.models.refiner import ConvolutionalRefiner
from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import GAZE, PUPIL_PX, DatasetSpec, Domain
from storage.writer import DatasetWriter

SECONDS_TO_CANCEL = 30
SECONDS_UNTIL_DEAD = 90
NUM_SHARDS, ROWS_PER_SHARD = 120, 8

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
SERVERS = ("PREFECT_API_URL", "PREFECT_PROFILE", "MLFLOW_TRACKING_URI", "PREFECT_HOME")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Team:
    """A place with its own SIMGAN_HOME where `simgan up` runs."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", **environment: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        inherited = {name: text for name, text in os.environ.items() if name not in SERVERS}
        self.environment = {**inherited, "SIMGAN_HOME": str(folder / "home"), **environment}
        self.prefect_port, self.mlflow_port = free_port(), free_port()
        self.prefect = f"http://{host}:{self.prefect_port}"
        self.mlflow = f"http://{host}:{self.mlflow_port}"
        user, _, password = environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
        auth = (user, password) if user else None
        self.supervisor = 0
        self.seconds_to_green = float("nan")
        self.api = httpx.Client(base_url=f"{self.prefect}/api/", timeout=30, auth=auth)

    def simgan(self, *words: object) -> "subprocess.CompletedProcess[str]":
        """Run a command of `simgan` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *map(str, words)],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def start_up(self, *words: object) -> "subprocess.Popen[str]":
        """Start `simgan up` at this place's ports and do not wait for it."""
        ports = ("--prefect-port", self.prefect_port, "--mlflow-port", self.mlflow_port)
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up", *map(str, (*ports, *words))],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def up(self, *words: object) -> dict[str, Any]:
        """Run `simgan up --background --json`; returns what it printed."""
        process = self.start_up("--background", "--json", *words)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        self.supervisor = found["supervisor"]
        return found

    def down(self) -> None:
        """Stop everything, whatever state it is in."""
        done = self.simgan("down")
        assert done.returncode == 0, done.stderr
        self.api.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Speak to Prefect's API.

        A server that is being restarted, or whose SQLite is locked (503), is asked again, as
        Prefect's own clients do.
        """
        for _ in range(600):
            try:
                reply = self.api.request(method, path, json=body)
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            if reply.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                time.sleep(0.2)
                continue
            assert reply.status_code < 400, reply.text
            return reply.json() if reply.content else None
        raise AssertionError("Prefect's server does not answer")

    def deployment(self, name: str) -> Any:
        """A deployment, by its own name."""
        (found,) = self.ask(
            "POST", "deployments/filter", {"deployments": {"name": {"any_": [name]}}}
        )
        return found

    def run(self, name: str, parameters: dict[str, Any]) -> str:
        """Press Run; returns the flow run's id."""
        url = f"deployments/{self.deployment(name)['id']}/create_flow_run"
        return str(self.ask("POST", url, {"parameters": parameters})["id"])

    def state(self, run_id: str) -> str:
        """The type of the run's state."""
        return str(self.ask("GET", f"flow_runs/{run_id}")["state"]["type"])

    def set_state(self, run_id: str, kind: str, name: str | None = None) -> None:
        """Change a run's state as the buttons of the UI do."""
        state = {"type": kind, **({"name": name} if name else {})}
        self.ask("POST", f"flow_runs/{run_id}/set_state", {"state": state})

    def retry(self, run_id: str) -> None:
        """Press Retry."""
        self.set_state(run_id, "SCHEDULED", "AwaitingRetry")

    def wait(self, run_id: str, timeout_s: float = 240) -> str:
        """Wait until a run has ended; returns how."""
        self.until(lambda: self.state(run_id) in ENDED, timeout_s, "the run to end")
        return self.state(run_id)

    def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> float:
        """Wait until something is so; returns how many seconds that took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < timeout_s, f"waited {timeout_s} s for {what}"
            time.sleep(0.1)
        return time.monotonic() - began

    def num_done(self, dataset: str) -> int:
        """How many shards of a dataset are done, of one that is being made too."""
        return len(list((self.folder / dataset).glob("records/*/zarr.json")))

    def history(self, run_id: str) -> list[str]:
        """The states that the run went through."""
        states = self.ask("GET", f"flow_run_states/?flow_run_id={run_id}")
        return [f"{state['timestamp']} {state['name']}: {state['message']}" for state in states]

    def log(self, run_id: str) -> str:
        """What the UI shows as the run's log."""
        query = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(line["message"] for line in self.ask("POST", "logs/filter", query))

    def log_with_subflows(self, run_id: str) -> str:
        """The run's log with those of the flows that it called."""
        query = {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}}
        children = self.ask("POST", "flow_runs/filter", query)
        logs = [self.log(run_id), *(self.log_with_subflows(child["id"]) for child in children)]
        return "\n".join(logs)

    def artifacts(self, run_id: str) -> dict[str, Any]:
        """The run's artifacts, by key."""
        query = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
        return {found["key"]: found for found in self.ask("POST", "artifacts/filter", query)}

    def events(self, name: str) -> list[Any]:
        """The events of this name, newest first."""
        found = self.ask("POST", "events/filter", {"filter": {"event": {"name": [name]}}})
        return list(found["events"])

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this place, runs included."""
        mine = str(self.folder / "home" / "services")
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SIMGAN_SERVICES") == mine:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def running(self, run_id: str) -> bool:
        """Whether a process of the flow run is alive."""
        for process in self.processes():
            try:
                if process.environ().get("PREFECT__FLOW_RUN_ID") == run_id:
                    return True
            except psutil.Error:
                continue
        return False

    def kill(self, *words: str) -> None:
        """`kill -9` on this place's processes whose command line has one of the words."""
        for process in self.processes():
            try:
                if any(word in " ".join(process.cmdline()) for word in words):
                    process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue


def write_eyes(
    path: Path, num_rows: int, rows_per_shard: int, domain: Domain = "synthetic"
) -> Path:
    """Write a labelled dataset of noise."""
    rng = np.random.default_rng(len(domain))
    spec = DatasetSpec(
        num_rows=num_rows,
        height=35,
        width=55,
        channels=1,
        dtype="uint8",
        labels=(GAZE, PUPIL_PX),
        domain=domain,
        source={"name": "test"},
        preprocess="none",
        rows_per_chunk=rows_per_shard,
        rows_per_shard=rows_per_shard,
    )
    writer = DatasetWriter.open(str(path), spec)
    for shard in range(spec.num_shards):
        rows = spec.shard_rows(shard)
        block = SampleBlock(
            images=rng.integers(0, 256, (len(rows), 35, 55, 1), dtype=np.uint8),
            valid=np.ones(len(rows), bool),
            ids=[f"f01/{row}" for row in rows],
            labels={
                "gaze": np.tile(np.float32([0, 0, -1]), (len(rows), 1)),
                "pupil_px": np.tile(np.float32([27.5, 17.5]), (len(rows), 1)),
            },
        )
        writer.write_shard(shard, block)
    writer.finish()
    return path


def make_work(team: Team, num_shards: int = NUM_SHARDS) -> dict[str, str]:
    """A dataset of many small shards, and a refiner slow enough to be interrupted."""
    torch.manual_seed(0)
    config = TrainingConfig(refiner=RefinerConfig(num_features=64, num_blocks=4))
    dataset = team.folder / "data" / "eyes.zarr"
    write_eyes(dataset, num_shards * ROWS_PER_SHARD, ROWS_PER_SHARD)
    weights = team.folder / "refiner.pt"
    metadata = {
        "refiner": "refiner-000000000000",
        "synthetic_digest": open_dataset(str(dataset)).info.digest,
        "real_digest": "0" * 64,
        "real_url": "nowhere",
        "preprocess": "none",
        "pixels": "uint8",
        "image_height": 35,
        "image_width": 55,
    }
    save_refiner(weights, ConvolutionalRefiner(config.refiner, channels=1), config, metadata)
    return {"dataset": "data/eyes.zarr", "refiner": str(weights)}


class Refinement(NamedTuple):
    """A bulk refinement under way, and what it makes."""

    run_id: str
    to: str


def start_refinement(
    team: Team, work: dict[str, str], name: str, num_shards: int = 3
) -> Refinement:
    """Press Run for a bulk refinement, and wait until it has done its first shards."""
    to = f"data/{name}.zarr"
    run_id = team.run("bulk-refine", {**work, "to": to})
    team.until(lambda: team.num_done(to) >= num_shards, 240, "the first shards")
    return Refinement(run_id, to)


def finish_by_retry(team: Team, run: Refinement) -> str:
    """Press Retry on a run that stopped midway; it does what was left, and no more.

    Returns the finished dataset's digest.
    """
    done = team.num_done(run.to)
    assert 3 <= done < NUM_SHARDS
    team.retry(run.run_id)
    assert team.wait(run.run_id) == "COMPLETED", team.history(run.run_id)
    left, whole = (ROWS_PER_SHARD * shards for shards in (NUM_SHARDS - done, NUM_SHARDS))
    assert f"{left} of {whole} rows to refine" in team.log(run.run_id)
    return digest_of(team, run.to)


def cancel(team: Team, run: Refinement) -> float:
    """Press Cancel; returns after how many seconds the work had stopped."""
    team.set_state(run.run_id, "CANCELLING")
    seconds = team.until(
        lambda: not team.running(run.run_id), SECONDS_TO_CANCEL, "the run's process to end"
    )
    team.until(lambda: team.state(run.run_id) == "CANCELLED", 120, "the server to know")
    return seconds


def kill_worker_with_its_runs(team: Team) -> None:
    """Nobody is left to tell the server."""
    team.kill("prefect worker start", "prefect.engine")


def wait_until_found_dead(team: Team, run: Refinement) -> float:
    """Wait until a run that died unheard is called crashed, and its slot is free."""
    seconds = team.until(
        lambda: team.state(run.run_id) == "CRASHED", SECONDS_UNTIL_DEAD + 60, "the automation"
    )
    assert team.ask("GET", "v2/concurrency_limits/gpu")["active_slots"] == 0
    return seconds


def take_a_small_run(team: Team) -> None:
    """A worker takes the next run and brings it to its end."""
    run_id = team.run("simulate", {"domain": "real", "out": "sim", "count": 15, "seed": 1})
    assert team.wait(run_id) == "COMPLETED", team.log(run_id)


def digest_of(team: Team, to: str) -> str:
    """The digest of a complete dataset."""
    return open_dataset(str(team.folder / to)).info.digest
