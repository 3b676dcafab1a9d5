"""`simgan up`, `simgan status`, `simgan down`: servers and workers for a team.

Everything heavy is imported inside the command that needs it, so that help answers at once.
"""

# ruff: noqa: PLC0415

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from flows.cli.arguments import Port
from flows.cli.outcome import Outcome
from simgan_core.errors import UnavailableError
from tasks.ops.local_server import LocalServer

if TYPE_CHECKING:
    from tasks.ops.services import Supervisor
    from tasks.ops.workplace import Addresses, Workplace

SECONDS_TO_START = 120


def up(
    *,
    host: str = "127.0.0.1",
    prefect_port: Port = 4200,
    mlflow_port: Port = 5000,
    background: bool = False,
) -> Outcome:
    """Start Prefect, MLflow and the workers, unless they run; Ctrl-C stops them all.

    Parameters
    ----------
    host
        Address to listen on. Beyond this machine, passwords have to be set: see
        docs/how-to/operate.md.
    prefect_port
        Port of Prefect's server.
    mlflow_port
        Port of MLflow's server.
    background
        Return when all services are healthy; `simgan down` stops them.
    """
    from tasks.ops.services import Supervisor
    from tasks.ops.workplace import require_password
    from tasks.runtime.paths import home

    require_password(host)
    supervisor = Supervisor(home() / "services")
    # `kill` and a closed terminal stop things as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with supervisor.starting(SECONDS_TO_START):
        found = supervisor.pid
        try:
            place = _workplace(supervisor, host, prefect_port, mlflow_port)
            addresses = _start(supervisor, place, already=found is not None)
        except BaseException:
            if found is None:
                supervisor.shut_down()
            raise
    say = f"Prefect  {addresses.prefect}\nMLflow   {addresses.mlflow}"
    result = {**addresses.model_dump(), "supervisor": supervisor.pid, "found": found is not None}
    if found is not None:
        return Outcome(result, f"{say}\nall of it was running; `simgan down` stops it")
    if background:
        return Outcome(result, f"{say}\nruns in the background; `simgan down` stops it")
    _say(f"{say}\nall green; Ctrl-C stops everything")
    with suppress(KeyboardInterrupt):
        while supervisor.pid is not None:
            time.sleep(1)
    _say("stopping, workers first")
    supervisor.shut_down()
    return Outcome(result, "stopped")


def status() -> Outcome:
    """Show which servers and workers run, and whether they answer."""
    from tasks.ops.services import Supervisor, answers
    from tasks.ops.workplace import Addresses
    from tasks.runtime.paths import home

    supervisor = Supervisor(home() / "services")
    states = supervisor.states()
    local = LocalServer(home()).url
    if not states:
        kept = f"\nPrefect's local server for commands: {local}" if local else ""
        return Outcome(
            {"green": False, "services": {}, "local_server": local},
            f"nothing of `simgan up` runs; `simgan up` starts it{kept}",
        )
    addresses = Addresses.read(supervisor.folder)
    lines = [f"{state:<9} {name:<15} {_log(supervisor, name)}" for name, state in states.items()]
    green = set(states.values()) == {"RUNNING"}
    healthy = {}
    if addresses is not None:
        healthy = {
            addresses.prefect: answers(f"{addresses.prefect}/api/health"),
            addresses.mlflow: answers(f"{addresses.mlflow}/health"),
        }
        lines += [f"{'answers' if well else 'SILENT':<9} {url}" for url, well in healthy.items()]
    green = green and bool(healthy) and all(healthy.values())
    return Outcome({"green": green, "services": states, "answers": healthy}, "\n".join(lines))


def down() -> Outcome:
    """Stop the servers, workers and runs of this SIMGAN_HOME; runs can be retried."""
    from tasks.ops.services import Supervisor
    from tasks.runtime.paths import home

    stopped = Supervisor(home() / "services").shut_down()
    if LocalServer(home()).stop():
        stopped.append("the local Prefect server")
    said = "stopped " + ", ".join(stopped) if stopped else "nothing ran"
    return Outcome({"stopped": stopped}, said)


def _workplace(
    supervisor: "Supervisor", host: str, prefect_port: int, mlflow_port: int
) -> "Workplace":
    """Choose the servers: those that the user named, else our own."""
    from tasks.ops.workplace import Addresses, Workplace
    from tasks.runtime.devices import num_gpus
    from tasks.runtime.paths import home

    last = Addresses.read(supervisor.folder)
    prefect, mlflow = os.environ.get("PREFECT_API_URL"), os.environ.get("MLFLOW_TRACKING_URI", "")
    return Workplace(
        home=home(),
        # Relative paths in forms mean what they mean in commands given here.
        directory=Path.cwd(),
        host=host,
        prefect_port=prefect_port,
        mlflow_port=mlflow_port,
        num_gpus=num_gpus(),
        # What `prepare` took from our own servers is not the user's.
        own_prefect=prefect is None
        or (last is not None and last.own_prefect and prefect == f"{last.prefect}/api"),
        own_mlflow=not mlflow.startswith("http")
        or (last is not None and last.own_mlflow and mlflow == last.mlflow),
    )


def _start(supervisor: "Supervisor", place: "Workplace", *, already: bool) -> "Addresses":
    from tasks.ops.prefect_setup import prepare_server, workers_online
    from tasks.ops.services import answers
    from tasks.ops.workplace import MLFLOW, PREFECT, Addresses, services
    from tasks.runtime.processes.servers import require_mlflow, require_prefect

    addresses = Addresses.read(supervisor.folder) if already else None
    if addresses is None:
        addresses = place.addresses()
        _launch(supervisor, place)
    else:
        running = supervisor.states()
        place = place._replace(own_prefect=PREFECT in running, own_mlflow=MLFLOW in running)
    if not place.own_prefect:
        require_prefect(f"{addresses.prefect}/api")
    if not place.own_mlflow:
        require_mlflow(addresses.mlflow)
    wanted = services(place)
    started = datetime.now(UTC)
    servers = [service.name for service in wanted if service.name in (PREFECT, MLFLOW)]
    for name in servers:
        supervisor.begin(name)
    api = f"{addresses.prefect}/api"
    _wait(supervisor, "Prefect", lambda: answers(f"{api}/health"), servers)
    _say("work pools, slots, automations and deployments …")
    asyncio.run(prepare_server(api, place.num_gpus, place.directory))
    workers = [service.name for service in wanted if service.name not in servers]
    for name in workers:
        supervisor.begin(name)
    _wait(supervisor, "MLflow", lambda: answers(f"{addresses.mlflow}/health"), servers)
    online = lambda: asyncio.run(workers_online(api, started, place.num_gpus))  # noqa: E731
    _wait(supervisor, "workers", online, workers)
    addresses.write(supervisor.folder)
    return addresses


def _launch(supervisor: "Supervisor", place: "Workplace") -> None:
    """Start the supervisor where the ports are free and nothing of an earlier one is left."""
    if place.own_prefect:
        LocalServer(place.home).make_way()
    from tasks.ops.services import require_free
    from tasks.ops.workplace import passwords, require_databases, services

    require_databases(place)
    left = supervisor.end_what_was_left()
    if left:
        _say(f"ended {len(left)} processes of an earlier `simgan up` that was killed")
    if place.own_prefect:
        require_free(place.prefect_port, place.host, "--prefect-port", "Prefect")
    if place.own_mlflow:
        require_free(place.mlflow_port, place.host, "--mlflow-port", "MLflow")
    supervisor.launch(services(place), place.directory, passwords(place))


def _wait(supervisor: "Supervisor", what: str, ready: Callable[[], bool], names: list[str]) -> None:
    """Wait until something is ready; raises UnavailableError with the logs' last lines if not."""
    from tasks.ops.services import wait_for

    began = time.monotonic()

    def ready_or_given_up() -> bool:
        states = supervisor.states()
        return ready() or any(states.get(name) == "FATAL" for name in names)

    if not wait_for(ready_or_given_up, SECONDS_TO_START) or not ready():
        logs = [_log(supervisor, name) for name in names]
        last = "".join(f"\n{log} ends in: {_last_line(log)}" for log in logs)
        raise UnavailableError(f"{what} did not start within {SECONDS_TO_START} s{last}")
    _say(f"{what} ready after {time.monotonic() - began:.0f} s")


def _log(supervisor: "Supervisor", name: str) -> Path:
    return supervisor.folder / f"{name}.log"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "(nothing)")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
