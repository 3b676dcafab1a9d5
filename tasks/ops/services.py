"""Services of a team under supervisor: Prefect, MLflow and the workers.

supervisor (supervisord.org) starts them, starts again what died, turns their logs over and stops
them in reverse order. It is told what to run by a file made anew at each start, and answers on a
Unix socket that only the same user can open. A supervisor that was killed leaves its processes
behind; they are known by a mark in their environment.
"""

import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psutil
from filelock import FileLock, Timeout
from supervisor.xmlrpc import SupervisorTransport

from simgan_core.errors import InputError
from tasks.ops.service import Service, write_services
from tasks.runtime.processes.child_path import without_current_folder

MARK = "SIMGAN_SERVICES"
SECONDS_TO_STOP = 40
# Linux takes 107 bytes for the path of a Unix socket; supervisor first adds a dot and its number.
MAX_SOCKET_PATH = 107 - len(".4194304")
# No name that a person chose is in here (see tasks/ops/service.py); paths start at the folder.
CONFIGURATION = """\
[unix_http_server]
file=supervisor.sock
chmod=0700

[supervisord]
nodaemon=true
silent=true
logfile=supervisor.log
logfile_maxbytes=5MB
pidfile=supervisor.pid

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
PROGRAM = """
[program:{name}]
command=%(ENV_SIMGAN_PYTHON)s -P -m tasks.ops.service {name}
priority={priority}
autostart=false
autorestart=true
startsecs=2
startretries=20
stopasgroup=true
killasgroup=true
stopwaitsecs={seconds_to_stop}
redirect_stderr=true
stdout_logfile={name}.log
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=3
"""


class Supervisor:
    """Supervisor of the processes of one folder, whichever command started it."""

    def __init__(self, folder: Path) -> None:
        """Supervise the processes of `folder`, which is created if missing.

        Raises InputError where it cannot be written to, or is too deep for a socket's path.
        """
        self.folder = folder
        self._socket = folder / "supervisor.sock"
        self._process: subprocess.Popen[bytes] | None = None
        if len(os.fsencode(self._socket)) > MAX_SOCKET_PATH:
            raise InputError(
                f"{folder} is too deep for a Unix socket (at most {MAX_SOCKET_PATH} bytes with the "
                "socket's name): set SIMGAN_HOME to a shorter path"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / "up.lock").touch()
        except OSError as error:
            raise InputError(
                f"cannot write to {folder} ({error.strerror}): set SIMGAN_HOME to a folder of yours"
            ) from error

    @contextmanager
    def starting(self, timeout_s: float) -> Iterator[None]:
        """Hold the start lock: of two commands at once, one waits and finds what runs.

        The system frees the lock of a process that died, so that it never goes stale.
        """
        try:
            with FileLock(self.folder / "up.lock", timeout=timeout_s):
                yield
        except Timeout:
            raise InputError(
                f"another `simgan up` has been starting in {self.folder} for {timeout_s:.0f} s; "
                "end it, or run `simgan down`"
            ) from None

    @property
    def pid(self) -> int | None:
        """Process id of the running supervisor, None without one."""
        try:
            return cast("int", self._ask("supervisor.getPID"))
        except (OSError, xmlrpc.client.Error):
            return None

    def launch(
        self, services: list[Service], directory: Path, environment: Mapping[str, str]
    ) -> None:
        """Start the supervisor, none of its processes yet; the caller holds `starting`.

        They work in `directory`, unless they have one of their own, and inherit `environment`,
        which is written nowhere.
        """
        write_services(services, self.folder, directory)
        programs = [
            PROGRAM.format(
                name=service.name, priority=service.priority, seconds_to_stop=SECONDS_TO_STOP
            )
            for service in services
        ]
        text = CONFIGURATION + "".join(programs)
        (self.folder / "supervisord.conf").write_text(text, encoding="ascii")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", "supervisord.conf"],
            env={
                **without_current_folder(),
                **environment,
                MARK: str(self.folder),
                "SIMGAN_PYTHON": shlex.quote(sys.executable),
            },
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for `simgan up`, which then stops things in their order.
            start_new_session=True,
        )
        wait_for(lambda: self.pid is not None or self._ended(), 20)
        if self.pid is None:
            raise RuntimeError(f"supervisor did not start: see {self.folder}/supervisor.log")

    def begin(self, name: str) -> None:
        """Start one process, if it does not run."""
        if self.states()[name] not in {"RUNNING", "STARTING", "BACKOFF"}:
            self._ask("supervisor.startProcess", name, False)

    def states(self) -> dict[str, str]:
        """Return each process' state: STOPPED, STARTING, RUNNING, BACKOFF or FATAL."""
        try:
            found = cast("list[dict[str, Any]]", self._ask("supervisor.getAllProcessInfo"))
        except (OSError, xmlrpc.client.Error):
            return {}
        return {str(process["name"]): str(process["statename"]) for process in found}

    def shut_down(self) -> list[str]:
        """Stop everything, workers first; returns the names of what ran."""
        pid, ran = self.pid, [name for name, state in self.states().items() if state == "RUNNING"]
        if pid is not None:
            self._ask("supervisor.shutdown")
            # Each of three priorities may take its time.
            wait_for(lambda: not _alive(pid), 3 * SECONDS_TO_STOP)
        self._ended()
        ran += [f"process {left}" for left in self.end_what_was_left()]
        (self.folder / "addresses.json").unlink(missing_ok=True)
        return ran

    def end_what_was_left(self) -> list[int]:
        """End the processes of a supervisor that was killed, and of its runs."""
        left = list(self._marked())
        for process in left:
            with _already_gone():
                process.terminate()
        _, deaf = psutil.wait_procs(left, timeout=10)
        for process in deaf:
            with _already_gone():
                process.kill()
        psutil.wait_procs(deaf, timeout=10)
        return [process.pid for process in left]

    def _marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with _already_gone():
                if process.environ().get(MARK) == str(self.folder) and process.pid != os.getpid():
                    yield process

    def _ended(self) -> bool:
        """Return true where the supervisor that this process started has ended; reaps it."""
        return self._process is not None and self._process.poll() is not None

    def _ask(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport)
            return getattr(server, method)(*arguments)
        finally:
            transport.close()


@contextmanager
def _already_gone() -> Iterator[None]:
    """Pass over a process that ended meanwhile or is another user's."""
    with suppress(psutil.Error):
        yield


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll a condition twice a second; returns False after the timeout."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def answers(url: str) -> bool:
    """Return true where a server's health check succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=3):
            return True
    except (OSError, ValueError, urllib.error.URLError):
        return False


def require_free(port: int, host: str, option: str, what: str) -> None:
    """Raise InputError that names who holds the port, where somebody does."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"{what} cannot listen at {host}:{port} ({error.strerror}; {_holder(port)}): "
                f"end that, or choose another port with {option}"
            ) from error


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr and connection.laddr.port == port
            if here and connection.status == psutil.CONN_LISTEN:
                process = psutil.Process(connection.pid)
                return f"process {process.pid}, {' '.join(process.cmdline())[:80]}"
    except (psutil.Error, TypeError):
        pass
    return "by another user's process"
