"""Service definitions and addresses of the servers and workers, with their access rules."""

import os
import secrets
import sys
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from simgan_core.atomic_file import atomic_write
from simgan_core.errors import InputError
from tasks.ops.prefect_setup import CPU_POOL, GPU_POOL
from tasks.ops.service import Service
from tasks.runtime.paths import mlflow_database, sqlite_url
from tasks.runtime.policies import HEARTBEAT_S
from tasks.runtime.sqlite_schema import (
    PREFECT as PREFECT_SCHEMA,
)
from tasks.runtime.sqlite_schema import (
    has_prefect_database_of_its_own,
    prefect_database,
    sqlite_file,
)

LOOPBACK = ("127.0.0.1", "localhost")
PREFECT, MLFLOW = "prefect-server", "mlflow-server"
# Runs side by side on the processor; those that compute hold the `gpu` slot and go one by one.
CPU_RUNS = 4
# Seconds between two looks of a worker for new runs, by default 10: it is part of the time from
# pressing Run to the first image.
WORKER_LOOKS_EVERY_S = 2


class Addresses(BaseModel):
    """URLs of the servers, for other commands in the same SIMGAN_HOME."""

    model_config = ConfigDict(frozen=True)

    prefect: str
    """Prefect's UI; its API is below it at `/api`."""
    mlflow: str
    own_prefect: bool = True
    """True where `simgan up` started Prefect's server; False: it is the user's."""
    own_mlflow: bool = True

    @classmethod
    def read(cls, services: Path) -> Self | None:
        """Read the record of the last `simgan up`, None where there is none."""
        try:
            return cls.model_validate_json((services / "addresses.json").read_bytes())
        except FileNotFoundError:
            return None

    def write(self, services: Path) -> None:
        """Write the record for other commands."""
        with atomic_write(services / "addresses.json") as file:
            file.write(self.model_dump_json().encode())


class Workplace(NamedTuple):
    """Settings of `simgan up`."""

    home: Path
    directory: Path
    """Working directory of runs: relative paths in forms start here."""
    host: str
    prefect_port: int
    mlflow_port: int
    num_gpus: int
    own_prefect: bool
    """False where PREFECT_API_URL names a server of the user's."""
    own_mlflow: bool
    """False where MLFLOW_TRACKING_URI names a server of the user's."""

    def addresses(self) -> Addresses:
        """Return the URLs to open in a browser on this machine."""
        host = "127.0.0.1" if self.host in (*LOOPBACK, "0.0.0.0") else self.host
        prefect, mlflow = f"http://{host}:{self.prefect_port}", f"http://{host}:{self.mlflow_port}"
        return Addresses(
            prefect=prefect
            if self.own_prefect
            else os.environ["PREFECT_API_URL"].removesuffix("/").removesuffix("/api"),
            mlflow=mlflow if self.own_mlflow else os.environ["MLFLOW_TRACKING_URI"],
            own_prefect=self.own_prefect,
            own_mlflow=self.own_mlflow,
        )


def require_password(host: str) -> None:
    """Refuse to listen beyond this machine without passwords; raises InputError that says which."""
    if host in LOOPBACK:
        return
    missing = [
        name
        for name in (
            "PREFECT_API_AUTH_STRING",
            "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_TRACKING_PASSWORD",
        )
        if not os.environ.get(name)
    ]
    if missing:
        raise InputError(
            f"--host {host} lets others in, who could then run code here: set "
            f"{', '.join(missing)} first (PREFECT_API_AUTH_STRING is user:password; "
            "docs/how-to/operate.md, Access for others), or leave out --host"
        )


def passwords(place: Workplace) -> dict[str, str]:
    """Return server settings for the passwords in the clients' environment variables.

    They reach the servers through the environment alone and are in no file and no command line.
    """
    found = {}
    if "PREFECT_API_AUTH_STRING" in os.environ:
        found["PREFECT_SERVER_API_AUTH_STRING"] = os.environ["PREFECT_API_AUTH_STRING"]
    if _mlflow_asks():
        found |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(_write_mlflow_auth(place.home)),
            "MLFLOW_AUTH_ADMIN_USERNAME": os.environ["MLFLOW_TRACKING_USERNAME"],
            "MLFLOW_AUTH_ADMIN_PASSWORD": os.environ["MLFLOW_TRACKING_PASSWORD"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        }
    return found


def _mlflow_asks() -> bool:
    return bool(os.environ.get("MLFLOW_TRACKING_USERNAME"))


def _write_mlflow_auth(home: Path) -> Path:
    """MLflow's users are in a database of their own; who is not in it may do nothing."""
    path = home / "services" / "mlflow-auth.ini"
    # A percent sign begins a reference in such a file.
    users = sqlite_url(home / "mlflow-users.db").replace("%", "%%")
    path.write_text(
        f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = {users}\n",
        encoding="utf-8",
    )
    return path


def services(place: Workplace) -> list[Service]:
    """Return the services of this workplace in starting order."""
    found = []
    if place.own_prefect:
        found.append(_prefect(place))
    if place.own_mlflow:
        found.append(_mlflow(place))
    found.append(_worker(place, "worker-cpu", CPU_POOL, CPU_RUNS, {}))
    for gpu in range(place.num_gpus):
        own_gpu = {"CUDA_VISIBLE_DEVICES": str(gpu)}
        found.append(_worker(place, f"worker-gpu-{gpu}", GPU_POOL, 1, own_gpu))
    return found


def _prefect(place: Workplace) -> Service:
    environment = {
        # Slots are leased; kept in memory, leases would be forgotten when the server is started
        # again, and their slots taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
        # The page asks the server that it came from, under whatever name people reach it.
        "PREFECT_UI_API_URL": "/api",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", place.host]
    return Service(PREFECT, [*command, "--port", str(place.prefect_port)], environment, 100)


def _mlflow(place: Workplace) -> Service:
    artifacts = os.environ.get(
        "MLFLOW_ARTIFACTS_DESTINATION", (place.home / "mlartifacts").as_uri()
    )
    if "://" not in artifacts:
        artifacts = (place.directory / artifacts).as_uri()
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--host", place.host,
        "--port", str(place.mlflow_port),
        "--backend-store-uri", mlflow_store(place),
        "--artifacts-destination", artifacts,
        "--workers", "1",
    ]  # fmt: skip
    if _mlflow_asks():
        command += ["--app-name", "basic-auth"]
    # MLflow's jobs evaluate language models, which nothing here needs; they cost memory.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if place.host not in (*LOOPBACK, "0.0.0.0") and "MLFLOW_SERVER_ALLOWED_HOSTS" not in os.environ:
        # It answers under these names alone, so that no web page can reach it by a name of its own.
        names = (place.host, *LOOPBACK)
        environment["MLFLOW_SERVER_ALLOWED_HOSTS"] = ",".join(f"{n},{n}:*" for n in names)
    # uvicorn, which MLflow starts, puts the current folder first on its path.
    return Service(MLFLOW, command, environment, 200, str(place.home / "services"))


def mlflow_store(place: Workplace) -> str:
    """URI of the database of MLflow's server."""
    store = os.environ.get("MLFLOW_BACKEND_STORE_URI")
    if store is None:
        return mlflow_database(place.home)
    file = sqlite_file(store)
    return store if file is None or "file:" in store else f"sqlite:///{file}"


def require_databases(place: Workplace) -> None:
    """Make or check the SQLite databases of the servers that this place starts.

    Raises InputError where one is damaged or from a newer version, UnavailableError where one
    cannot be made.
    """
    if place.own_prefect and not has_prefect_database_of_its_own():
        PREFECT_SCHEMA.require_not_newer(prefect_database())
    if place.own_mlflow:
        # Loading MLflow takes seconds, and nothing is to be made most times.
        from tasks.runtime.tracking.mlflow_database import (  # noqa: PLC0415
            require_tracking_database,
            require_users_database,
        )

        if (file := sqlite_file(mlflow_store(place))) is not None:
            require_tracking_database(file)
        if _mlflow_asks():
            require_users_database(place.home / "mlflow-users.db")


def _worker(
    place: Workplace, name: str, pool: str, limit: int, environment: dict[str, str]
) -> Service:
    addresses = place.addresses()
    shared = {
        "PREFECT_API_URL": f"{addresses.prefect}/api",
        "MLFLOW_TRACKING_URI": addresses.mlflow,
        "PREFECT_WORKER_QUERY_SECONDS": str(WORKER_LOOKS_EVERY_S),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        # The level of our own loggers, which then show in a run's log.
        "PREFECT_LOGGING_ROOT_LEVEL": "INFO",
        "SIMGAN_FOLDER": str(place.directory),
    }
    command = [
        sys.executable, "-m", "prefect", "worker", "start",
        "--type", "process",
        "--pool", pool,
        "--name", name,
        "--limit", str(limit),
    ]  # fmt: skip
    return Service(name, command, {**shared, **environment}, 300)
