"""Prefect and MLflow before a command begins: servers answer, databases can be used.

They would say so themselves after minutes, or in a traceback. Nothing here loads Prefect, which
takes its settings from the environment once, when it is imported.
"""

# ruff: noqa: PLC0415  help answers before anything heavy is imported

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from simgan_core.errors import InputError, UnavailableError
from storage.errors import StorageError

SECONDS_BETWEEN_LOOKS = 1.0
# A server that restarts is back by then.
SECONDS_DOWN = 10.0
SECONDS_TO_STOP = 4.0
FAILED = 1
NO_HEARTBEATS = '{"heartbeat_frequency": null}'
"""Value of PREFECT_FLOWS for flows on the local server, where no automation looks for heartbeats:
each flow run would wait for up to a second, at its end, for the thread that sends them."""


def require_tracking() -> None:
    """Raise InputError or UnavailableError where MLflow cannot be used."""
    from tasks.runtime.processes.servers import require_mlflow
    from tasks.runtime.sqlite_schema import MLFLOW, sqlite_file

    uri = os.environ["MLFLOW_TRACKING_URI"]
    require_mlflow(uri)
    if (file := sqlite_file(uri)) is not None:
        MLFLOW.require_not_newer(file)


def use_prefect(home: Path) -> str:
    """Set PREFECT_API_URL to the local server of this home, unless a server is named already.

    Call it before Prefect is imported. Returns what to do when the server goes away. Raises
    InputError or UnavailableError where the server cannot be used.
    """
    from tasks.ops.local_server import LocalServer
    from tasks.runtime.processes.servers import require_prefect

    api = _api_of_settings()
    if api is None:
        server = LocalServer(home)
        os.environ["PREFECT_API_URL"] = server.use()
        if "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" not in os.environ:
            os.environ.setdefault("PREFECT_FLOWS", NO_HEARTBEATS)
        return f"its log is {server.log}"
    require_prefect(api)
    return "start it, or unset PREFECT_API_URL"


@contextmanager
def prefect_for_flows(home: Path) -> Iterator[None]:
    """Use Prefect's server as `use_prefect` for the length of a command.

    The process ends where the server stays away in the middle of the command.
    """
    remedy = use_prefect(home)
    api = _api_of_settings()
    assert api is not None
    watch = _Watch(api, f"Prefect's server at {api} does not answer any more: {remedy}")
    try:
        yield
    except (InputError, StorageError, UnavailableError):
        raise
    except BaseException as error:
        if watch.is_down():
            raise UnavailableError(watch.sentence) from error
        raise
    finally:
        watch.end()


def _api_of_settings() -> str | None:
    """Return the URL that Prefect's own settings name."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    if "PREFECT_PROFILE" not in os.environ:
        return None
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


class _Watch:
    """Watchdog that ends the process when nobody listens at a server's address."""

    def __init__(self, api: str, what: str) -> None:
        parts = urlsplit(api)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        self._address = (parts.hostname or "", port)
        self.sentence = f"{what}; then run the same command again: it goes on where it was"
        self._ending = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._look, name="prefect-watch", daemon=True).start()

    def is_down(self) -> bool:
        """Return true if nobody listens now, or if the watchdog ended the command."""
        return self._ending.is_set() or not self._listens()

    def end(self) -> None:
        """Stop watching; a process that is ending already still ends."""
        self._ended.set()

    def _listens(self) -> bool:
        try:
            with socket.create_connection(self._address, timeout=SECONDS_DOWN):
                return True
        except OSError:
            return False

    def _look(self) -> None:
        last_seen = time.monotonic()
        while time.monotonic() - last_seen < SECONDS_DOWN:
            if self._ended.wait(SECONDS_BETWEEN_LOOKS):
                return
            if self._listens():
                last_seen = time.monotonic()
        self._ending.set()
        # SIGTERM lets a training write its checkpoint. Calls that wait for the server would not
        # end for minutes, so the process exits after `SECONDS_TO_STOP`.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS_TO_STOP)
        print(f"failed: {self.sentence}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(FAILED)
