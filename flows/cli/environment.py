"""Default environment variables for commands; variables that are set already are kept.

Prefect and MLflow read their settings from the environment when they are imported, so the
command line calls `prepare` before it imports a flow. What the user has set stays as it is.
"""

import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from simgan_core.errors import InputError
from tasks.runtime.paths import home as default_home
from tasks.runtime.paths import mlflow_database
from tasks.runtime.processes.child_path import without_current_folder

OWN_LOGGERS = ("simgan_core", "storage", "tasks")


def prepare(home: Path | None = None) -> Path:
    """Set defaults: SIMGAN_HOME, Prefect's and MLflow's addresses, telemetry off.

    PYTHONSAFEPATH and PYTHONPATH alone are always rewritten: children never import modules from the
    current folder.

    They are the servers of `simgan up` where it runs in this SIMGAN_HOME, so that commands and
    the UI show the same runs; else MLflow is on SQLite, and Prefect's local server is started by
    `prefect_for_flows`. Raises InputError where the folder cannot be made.
    """
    folder = home.expanduser().resolve() if home is not None else default_home()
    defaults = {
        "SIMGAN_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Prefect's client has telemetry of its own, which it announces on a terminal.
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(OWN_LOGGERS),
        # OpenMP threads that spin while they wait take cores from other processes: on two busy
        # cores a training step took six times as long as with threads that sleep.
        "OMP_WAIT_POLICY": "PASSIVE",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Retry for 12 s while a server restarts, not four minutes: somebody waits at the terminal.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }
    servers = _running_servers(folder)
    if not any(name in os.environ for name in ("PREFECT_API_URL", "PREFECT_PROFILE")):
        defaults["PREFECT_HOME"] = str(folder / "prefect")
        if "prefect" in servers:
            defaults["PREFECT_API_URL"] = f"{servers['prefect']}/api"
    defaults["MLFLOW_TRACKING_URI"] = servers.get("mlflow", mlflow_database(folder))
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ |= without_current_folder()
    try:
        (folder / "prefect").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write to {folder} ({error.strerror}): set SIMGAN_HOME to a folder of yours"
        ) from error
    return folder


def _running_servers(folder: Path) -> dict[str, str]:
    """Return the addresses of `simgan up` at which a server listens."""
    try:
        addresses = json.loads((folder / "services" / "addresses.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    urls = {name: addresses[name] for name in ("prefect", "mlflow")}
    return {name: url for name, url in urls.items() if _listens(url)}


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=0.5):
            return True
    except OSError:
        return False
