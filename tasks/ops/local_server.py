"""Local Prefect server: started by the first command, shared by those that follow, ended when idle.

It serves one SIMGAN_HOME on a free port of loopback, with the database there, so that the history
of commands stays and the UI shows it. A command that uses it holds a lock for as long as it lives;
the kernel gives the lock up however the command ends. Once nobody has held it for `IDLE_S`, or the
home was deleted, the server ends itself. It holds a lock of its own from before it is started, so
that no second one is started while it is slow to answer.

python -P -m tasks.ops.local_server FOLDER IDLE_SECONDS
"""

import fcntl
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from simgan_core.atomic_file import atomic_write
from simgan_core.errors import InputError, UnavailableError
from tasks.ops.locked_database import repeating_when_locked
from tasks.runtime.processes.child_path import without_current_folder
from tasks.runtime.sqlite_schema import (
    PREFECT,
    SQLITE_REASONS,
    has_prefect_database_of_its_own,
    named_error,
)

if TYPE_CHECKING:
    import uvicorn

IDLE_S = 300.0
"""Seconds that the server outlives the last command; SIMGAN_SERVER_IDLE_S overrides it."""
SECONDS_TO_START = 120.0
SECONDS_TO_STOP = 15.0
# A new database takes 2 MB.
FULL_BYTES = 4_000_000

# Not needed for flows that are started by hand; each costs processor time of an idle server.
_SERVICES_OFF = ("SCHEDULER", "LATE_RUNS", "FOREMAN", "TRIGGERS", "PAUSE_EXPIRATIONS")


class LocalServer:
    """Prefect server of one SIMGAN_HOME, shared by its commands."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "prefect"
        self._record = self._folder / "local-server.json"
        self.log = self._folder / "local-server.log"

    def use(self) -> str:
        """Return the API's URL, of a server that stays until this process ends; start it if needed.

        Raises InputError where Prefect's database is damaged or newer, UnavailableError where the
        server does not start, both with what to do.
        """
        idle_s = _idle_s()
        self._folder.mkdir(parents=True, exist_ok=True)
        _hold(_open_lock(self._folder / "in-use.lock"), fcntl.LOCK_SH)
        with (
            _locked(self._folder / "starting.lock"),
            _open_lock(self._folder / "serving.lock") as serving,
        ):
            end = time.monotonic() + SECONDS_TO_START
            while (url := self.url) is None:
                if _try(serving):
                    url = self._start(serving, idle_s)
                    break
                if time.monotonic() > end:
                    raise UnavailableError(
                        f"Prefect's local server has not answered for {SECONDS_TO_START:.0f} s; "
                        f"end it (simgan down), then run the same command again; its log is "
                        f"{self.log}"
                    )
                time.sleep(0.05)
        return f"{url}/api"

    @property
    def url(self) -> str | None:
        """URL of the running server, or None."""
        found = self._read()
        return found[0] if found and _answers(f"{found[0]}/api/health") else None

    def stop(self) -> bool:
        """End the server, whoever uses it; false where none runs."""
        with _locked(self._folder / "starting.lock"):
            found = self._read()
            if found is None:
                return False
            url, pid = found
            running = _answers(f"{url}/api/health")
            if running:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                end = time.monotonic() + SECONDS_TO_STOP
                while _answers(f"{url}/api/health") and time.monotonic() < end:
                    time.sleep(0.1)
            self._record.unlink(missing_ok=True)
            return running

    def make_way(self) -> None:
        """End the server, for another one on its database; raises InputError while it is used."""
        with _open_lock(self._folder / "in-use.lock") as lock:
            if self.url is not None and not _try(lock):
                raise InputError(
                    "commands of this SIMGAN_HOME are using Prefect's local server, whose database "
                    "`simgan up` would open a second time; wait for them, or stop them"
                )
            self.stop()

    def _read(self) -> tuple[str, int] | None:
        try:
            record = json.loads(self._record.read_bytes())
            return str(record["url"]), int(record["pid"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def _start(self, serving: IO[bytes], idle_s: float) -> str:
        """Start a server that inherits the lock `serving`; returns its address."""
        if not has_prefect_database_of_its_own():
            PREFECT.require_not_newer(self._folder / "prefect.db")
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                # -P: a folder of the user's may hold a token.py, which must not be imported.
                [sys.executable, "-P", "-m", __spec__.name, str(self._folder), str(idle_s)],
                cwd=self._folder,
                env={**without_current_folder(), **self._environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[serving.fileno()],
            )
        _kept.append(process)
        end = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < end and process.poll() is None:
            found = self._read()
            if found and found[1] == process.pid and _answers(f"{found[0]}/api/health"):
                return found[0]
            time.sleep(0.05)
        process.kill()
        raise self._why_it_did_not_start()

    def _why_it_did_not_start(self) -> InputError | UnavailableError:
        database = self._folder / "prefect.db"
        if shutil.disk_usage(self._folder).free < FULL_BYTES:
            # Where nothing can be written, the log says nothing.
            return named_error("No space left", database, PREFECT)
        said = self.log.read_text(errors="replace")
        for reason in SQLITE_REASONS:
            if reason in said:
                return named_error(reason, database, PREFECT)
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "nothing")
        return UnavailableError(
            f"Prefect's local server did not start, and said last: {last.strip()[:300]}; its log "
            f"is {self.log}"
        )

    def _environment(self) -> dict[str, str]:
        off = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _SERVICES_OFF}
        return off | {
            "PREFECT_HOME": str(self._folder),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }


def _idle_s() -> float:
    given = os.environ.get("SIMGAN_SERVER_IDLE_S", str(IDLE_S))
    try:
        idle_s = float(given)
    except ValueError:
        idle_s = -1.0
    if not 0 <= idle_s < float("inf"):
        raise InputError(f"SIMGAN_SERVER_IDLE_S is {given!r}; give seconds, 0 or more")
    return idle_s


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _open_lock(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


_kept: list[IO[bytes] | subprocess.Popen[bytes]] = []
"""Kept until this process ends: locks, which a closed file would give up, and the server, which
outlives this process on purpose."""


def _hold(lock: IO[bytes], kind: int) -> None:
    fcntl.flock(lock, kind)
    _kept.append(lock)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with _open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def serve(folder: Path, idle_s: float) -> None:
    """Serve Prefect until nobody has used it for `idle_s` seconds."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # The UI's pages ask this API. Prefect reads its settings as it is imported.
    os.environ["PREFECT_UI_API_URL"] = f"{url}/api"

    gc.disable()  # what is imported stays, and there is much of it
    import uvicorn  # noqa: PLC0415  commands that only read the record need neither
    from prefect.server.api.server import create_app  # noqa: PLC0415

    config = uvicorn.Config(
        repeating_when_locked(create_app()), log_level="warning", timeout_graceful_shutdown=5
    )
    gc.freeze()
    gc.enable()
    server = uvicorn.Server(config)
    record = folder / "local-server.json"
    with atomic_write(record) as file:
        file.write(json.dumps({"url": url, "pid": os.getpid()}).encode())
    threading.Thread(target=_end_when_idle, args=(server, folder, idle_s), daemon=True).start()
    server.run(sockets=[listener])
    # A home that was deleted may have been made again, with a server of its own.
    with suppress(OSError, ValueError):
        if json.loads(record.read_bytes())["pid"] == os.getpid():
            record.unlink()


def _end_when_idle(server: "uvicorn.Server", folder: Path, idle_s: float) -> None:
    in_use, starting = _open_lock(folder / "in-use.lock"), _open_lock(folder / "starting.lock")
    idle_since = time.monotonic()
    while not server.should_exit:
        time.sleep(min(1.0, max(0.05, idle_s / 4)))
        if not _is_at(in_use, folder / "in-use.lock"):
            server.should_exit = True
        elif not _is_free(in_use):
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since >= idle_s and _try(starting):
            # Commands take `in-use` before `starting`: who has not by now waits for our end.
            if _is_free(in_use):
                _kept.append(starting)  # until this process has ended
                server.should_exit = True
                return
            fcntl.flock(starting, fcntl.LOCK_UN)


def _is_at(lock: IO[bytes], path: Path) -> bool:
    """Return true while the open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except OSError:
        return False


def _is_free(lock: IO[bytes]) -> bool:
    free = _try(lock)
    if free:
        fcntl.flock(lock, fcntl.LOCK_UN)
    return free


def _try(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]))
