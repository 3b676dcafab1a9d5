"""Prefect's embedded server: a child of the command that needs it, gone when the command is gone.

    with embedded_prefect() as api:         # "http://127.0.0.1:PORT/api"
        ...                                 # flows that find it in PREFECT_API_URL

Prefect starts one by itself too, but with the current folder on its path, waits two minutes for
one that cannot start, and leaves it behind when the command is killed. Here the parent holds the
listening socket, so that a server that died is replaced without a refused connection; and the
server holds the end of a pipe, which closes when the parent is gone, however that ended.
"""

import logging
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
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from simgan_core.errors import InputError, UnavailableError
from tasks.runtime.child_path import without_current_folder
from tasks.runtime.parent import PARENT_PIPE, end_with_parent
from tasks.runtime.sqlite_schema import (
    PREFECT,
    has_prefect_database_of_its_own,
    named_error,
    prefect_database,
)

logger = logging.getLogger(__name__)

# A new database takes 13 s to set up on two idle cores.
SECONDS_TO_START = 120
SECONDS_TO_STOP = 5
MAX_RESTARTS = 3
# A new database takes 2 MB.
FULL_BYTES = 4_000_000

_SQLITE_ERRORS = (
    *("database or disk is full", "No space left", "database is locked", "disk I/O error"),
    *("database disk image is malformed", "file is not a database", "readonly database"),
    "unable to open database file",
)
"""SQLite's messages that a server's log may end in."""


@contextmanager
def embedded_prefect() -> Iterator[str]:
    """Run a server of this command's own; yields its API's URL.

    Raises InputError where Prefect's database is damaged or newer, UnavailableError where the
    server does not start.
    """
    database = prefect_database()
    if not has_prefect_database_of_its_own():
        PREFECT.require_not_newer(database)
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(socket.SOMAXCONN)
        server = _Server(listening, database)
        server.start()
        try:
            yield server.api
        finally:
            server.stop()


class _Server:
    """A server process that is replaced when it dies."""

    def __init__(self, listening: socket.socket, database: Path) -> None:
        self.api = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        self._socket = listening
        self._database = database
        self._log = database.with_name("embedded-server.log")
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when the server answers."""
        self._process = self._launch()
        try:
            self._wait_for_an_answer(self._process)
        except BaseException:
            self.stop()
            raise
        threading.Thread(target=self._replace_when_dead, daemon=True).start()

    def _wait_for_an_answer(self, process: "subprocess.Popen[bytes]") -> None:
        began = time.monotonic()
        while not _answers(f"{self.api}/health"):
            if process.poll() is not None:
                raise self._why_it_ended(process.returncode)
            if time.monotonic() - began > SECONDS_TO_START:
                raise UnavailableError(
                    f"Prefect's embedded server did not answer within {SECONDS_TO_START} s; its "
                    f"log is {self._log}"
                )

    def stop(self) -> None:
        """End the server; what it was told is in its database."""
        self._stopping.set()
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _end_of_pipe(process).close()

    def _launch(self) -> "subprocess.Popen[bytes]":
        environment = {
            **without_current_folder(),
            **PARENT_PIPE,
            # As Prefect starts its own: no pages, few services.
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
        }
        environment.pop("PREFECT_API_URL", None)
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("wb") as log:
                return subprocess.Popen(
                    [sys.executable, "-P", "-m", __name__, str(self._socket.fileno())],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=[self._socket.fileno()],
                    # Ctrl-C is for the command, which still has to report to the server.
                    start_new_session=True,
                )
        except OSError as error:
            raise UnavailableError(
                f"Prefect's embedded server cannot write to {self._log.parent} "
                f"({error.strerror}): make room there, or set SIMGAN_HOME to a folder of yours"
            ) from error

    def _replace_when_dead(self) -> None:
        for restarts_left in reversed(range(MAX_RESTARTS + 1)):
            assert self._process is not None
            code = self._process.wait()
            if self._stopping.is_set():
                return
            _end_of_pipe(self._process).close()
            if restarts_left == 0:
                break
            logger.warning("Prefect's embedded server ended (%d) and is started again", code)
            try:
                self._process = self._launch()
            except UnavailableError as error:
                logger.error("%s", error)  # noqa: TRY400  the sentence says it
                break
        # Connections are refused from now on, which tells the command.
        self._socket.close()

    def _why_it_ended(self, code: int) -> InputError | UnavailableError:
        if shutil.disk_usage(self._log.parent).free < FULL_BYTES:
            # Where nothing can be written, the log says nothing.
            return named_error("No space left", self._database, PREFECT)
        log = self._log.read_text("utf-8", errors="replace")
        for reason in _SQLITE_ERRORS:
            if reason in log:
                return named_error(reason, self._database, PREFECT)
        last = next((line for line in reversed(log.splitlines()) if line.strip()), "nothing")
        return UnavailableError(
            f"Prefect's embedded server ended with exit code {code} as it "
            f"started, and said last: {last.strip()[:300]}; its log is {self._log}"
        )


def _end_of_pipe(process: "subprocess.Popen[bytes]") -> "IO[bytes]":
    assert process.stdin is not None
    return process.stdin


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (OSError, urllib.error.URLError):
        time.sleep(0.05)
        return False


def main(listening: int) -> None:
    """Serve at a socket that is bound already, until the parent is gone."""
    # Loading Prefect takes seconds, in which the parent may go.
    end_with_parent()
    # The log is a file; the pages' colours would be noise in it.
    import uvicorn  # noqa: PLC0415

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        log_level="error",
        lifespan="on",
    )
    server = uvicorn.Server(config)
    server.run(sockets=[socket.socket(fileno=listening)])
    sys.exit(0 if server.started else 3)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(int(sys.argv[1]))
