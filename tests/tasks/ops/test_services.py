"""The processes of `simgan up` kept by supervisor, and what is said where it cannot start."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from simgan_core.errors import InputError
from tasks.ops.service import Service
from tasks.ops.services import Supervisor, require_free, wait_for

HOLD_LOCK = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


PRINTABLE = "".join(map(chr, range(32, 127))).replace("/", "")
ODD_NAMES = [PRINTABLE[:47], PRINTABLE[47:], " a ; b # c ", "äß漢\t\n'\"", "\udcff%(ENV_HOME)s{x}"]
REPORT = [
    sys.executable,
    "-c",
    "import json, os, time\n"
    "found = [os.getcwd(), os.environ['PART'], os.environ['SECRET']]\n"
    "open('report.partial', 'w').write(json.dumps(found))\n"
    "os.rename('report.partial', 'report')\n"
    "time.sleep(600)",
]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor that keeps two processes, stopped at the end."""
    supervisor = Supervisor(tmp_path / "services")
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    services = [Service("first", sleep, {"PART": "50%"}, 100), Service("second", sleep, {}, 200)]
    supervisor.launch(services, tmp_path, {"SECRET": "of 100%"})
    yield supervisor
    supervisor.shut_down()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose own path leaves room for odd names before a socket's."""
    with tempfile.TemporaryDirectory(prefix="s") as folder:
        yield Path(folder)


def processes(supervisor: Supervisor) -> dict[str, psutil.Process]:
    """The kept processes by the only thing in which they differ here."""
    assert supervisor.pid is not None
    found = {}
    for child in psutil.Process(supervisor.pid).children():
        with suppress(psutil.NoSuchProcess):  # one that ended since it was listed
            found["first" if "PART" in child.environ() else "second"] = child
    return found


def all_run(supervisor: Supervisor) -> bool:
    return set(supervisor.states().values()) == {"RUNNING"}


def test_what_died_is_started_again_and_shutting_down_leaves_nothing(
    supervisor: Supervisor,
) -> None:
    assert set(supervisor.states().values()) == {"STOPPED"}
    for name in ("first", "second"):
        supervisor.begin(name)
    assert wait_for(lambda: all_run(supervisor), 20)
    before = processes(supervisor)
    assert before["first"].environ()["PART"] == "50%"
    assert before["second"].environ()["SECRET"] == "of 100%"
    assert b"of 100" not in (supervisor.folder / "supervisord.conf").read_bytes()
    before["first"].kill()
    assert wait_for(lambda: processes(supervisor).get("first") not in (None, before["first"]), 20)
    left = list(processes(supervisor).values())
    assert wait_for(lambda: all_run(supervisor), 20)
    assert supervisor.shut_down() == ["first", "second"]
    assert not any(process.is_running() for process in left)
    assert supervisor.pid is None


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_folders_may_have_any_name(short_path: Path, name: str) -> None:
    """supervisor's file, a shell, a URL and a format string each read some characters otherwise."""
    directory = short_path / name
    directory.mkdir()
    supervisor = Supervisor(directory / "services")
    supervisor.launch([Service("first", REPORT, {"PART": name}, 100)], directory, {"SECRET": name})
    try:
        supervisor.begin("first")
        report = directory / "report"
        assert wait_for(report.exists, 20)
        assert json.loads(report.read_text()) == [str(directory), name, name]
        assert supervisor.states().keys() == {"first"}
    finally:
        supervisor.shut_down()
    assert supervisor.pid is None


def test_what_a_killed_supervisor_left_is_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.begin("first")
    assert wait_for(lambda: supervisor.states()["first"] == "RUNNING", 20)
    orphan = processes(supervisor)["first"]
    psutil.Process(supervisor.pid).kill()
    assert wait_for(lambda: supervisor.pid is None, 20)
    assert orphan.is_running()
    assert supervisor.end_what_was_left() == [orphan.pid]
    assert not orphan.is_running()
    # Its socket is still there, and is in nobody's way.
    again = Supervisor(supervisor.folder)
    again.launch([Service("third", ["sleep", "600"], {}, 100)], tmp_path, {})
    assert set(again.states()) == {"third"}
    again.shut_down()


def test_the_lock_of_a_killed_start_is_free_and_that_of_a_living_one_is_named(
    tmp_path: Path,
) -> None:
    supervisor = Supervisor(tmp_path)
    words = [sys.executable, "-c", HOLD_LOCK, str(tmp_path / "up.lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another `simgan up` has been starting"):
            supervisor.starting(0.1).__enter__()
        holder.send_signal(signal.SIGKILL)
    with supervisor.starting(5):
        pass


def test_a_busy_port_is_named_with_its_holder_and_the_option() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(InputError) as refusal:
            require_free(port, "127.0.0.1", "--mlflow-port", "MLflow")
    for word in (f"127.0.0.1:{port}", f"process {os.getpid()}", "--mlflow-port"):
        assert word in str(refusal.value)
    require_free(port, "127.0.0.1", "--mlflow-port", "MLflow")


def test_a_folder_that_is_none_is_named(short_path: Path) -> None:
    (short_path / "file").write_text("")
    with pytest.raises(InputError, match="set SIMGAN_HOME to a folder of yours"):
        Supervisor(short_path / "file" / "services")


def test_a_path_too_deep_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shorter path"):
        Supervisor(tmp_path / ("deep" * 25))
