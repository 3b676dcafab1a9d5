"""The local Prefect server: one for all commands of a home, gone when idle."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from simgan_core.errors import InputError
from tasks.ops.local_server import LocalServer

USER = """
import sys, time
from pathlib import Path
from tasks.ops.local_server import LocalServer
print(LocalServer(Path(sys.argv[1])).use(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def new_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home whose server outlives its last user by two seconds."""
    monkeypatch.setenv("SIMGAN_SERVER_IDLE_S", "2")
    yield tmp_path
    LocalServer(tmp_path).stop()


@pytest.fixture
def home(new_home: Path, empty_prefect: Path) -> Path:
    """One that has been used before: its server starts sooner."""
    (new_home / "prefect").mkdir()
    shutil.copy(empty_prefect, new_home / "prefect")
    return new_home


def _user(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-c", USER, str(home)], stdout=subprocess.PIPE, text=True, cwd=home
    )


def _url(user: "subprocess.Popen[str]") -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def _servers(home: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "tasks.ops.local_server" in (found := process.info["cmdline"] or [])
        and str(home / "prefect") in found
    ]


def _wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> bool:
    end = time.monotonic() + timeout_s
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return met


def test_commands_at_once_share_one_server_that_ends_after_they_were_killed(new_home: Path) -> None:
    # A module of the user's, of a name that Prefect imports, is not run.
    (new_home / "token.py").write_text("raise SystemExit('a file of the user was run')")
    users = [_user(new_home), _user(new_home)]
    first, second = (_url(user) for user in users)
    assert first == second
    assert first.startswith("http://127.0.0.1:")
    assert len(_servers(new_home)) == 1
    with pytest.raises(InputError, match="are using Prefect's local server"):
        LocalServer(new_home).make_way()
    for user in users:
        user.kill()
        user.communicate()
    assert _wait_for(lambda: not _servers(new_home))
    assert LocalServer(new_home).url is None


def test_a_server_that_was_killed_is_started_again_and_stop_ends_it(home: Path) -> None:
    user = _user(home)
    first = _url(user)
    os.kill(_servers(home)[0], signal.SIGKILL)
    assert _wait_for(lambda: not _servers(home))
    again = _user(home)
    assert _url(again)
    assert first
    assert LocalServer(home).stop()
    assert _wait_for(lambda: not _servers(home))
    assert not LocalServer(home).stop()
    for each in (user, again):
        each.kill()
        each.communicate()


def test_of_a_command_killed_while_it_starts_the_server_the_next_one_takes_it(home: Path) -> None:
    killed = _user(home)
    assert _wait_for(lambda: len(_servers(home)) == 1)
    killed.kill()
    killed.communicate()
    (server,) = _servers(home)
    user = _user(home)
    assert _url(user)
    assert _servers(home) == [server]
    user.kill()
    user.communicate()


def test_a_server_that_is_slow_to_answer_gets_no_second_one_beside_it(home: Path) -> None:
    user = _user(home)
    url = _url(user)
    (server,) = _servers(home)
    os.kill(server, signal.SIGSTOP)
    other = _user(home)
    time.sleep(3)  # longer than a request waits for its answer
    os.kill(server, signal.SIGCONT)
    assert _url(other) == url
    assert _servers(home) == [server]
    for each in (user, other):
        each.kill()
        each.communicate()


def test_the_server_of_a_home_that_was_deleted_ends(home: Path) -> None:
    user = _user(home)
    assert _url(user)
    shutil.rmtree(home / "prefect")
    assert _wait_for(lambda: not _servers(home))
    user.kill()
    user.communicate()


def test_a_time_out_that_is_no_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGAN_SERVER_IDLE_S", "soon")
    with pytest.raises(InputError, match="SIMGAN_SERVER_IDLE_S is 'soon'; give seconds"):
        LocalServer(tmp_path).use()
