"""Fork server for the commands `simgan` and `dask`: a process of its own for each, no imports.

To import the flows with PyTorch, Prefect and MLflow costs a command 7 s of processor time. The
server imports them once and forks for each command: arguments, working directory, environment,
output, signals and the exit are those of a command that a user starts. What a user's command
imports, and how fast `--help` is, is tested on real ones (test_help.py, test_wheel.py, the drills).

Prefect reads its settings when it is imported: every command has the server's PREFECT_ variables,
and the verbosity of a command without `-v` and `-q`.
"""

import atexit
import gc
import io
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.connection import arbitrary_address  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, Literal, NoReturn

LOOKS_EVERY_S = 0.02
LOADED_AT_FIRST_USE = (
    "anyio._backends._asyncio",
    "mlflow.store.tracking.sqlalchemy_store",
    "prefect.utilities.visualization",
    "scipy.io",
    "torch._dynamo",
    "torch.onnx",
)


class Command:
    """A command under way, in the manner of `subprocess.Popen` with text pipes."""

    def __init__(self, args: list[str], pid: int, scratch: Path) -> None:
        self.args, self.pid = args, pid
        self.returncode: int | None = None
        self._scratch = scratch

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        status = self._scratch / "status"
        if self.returncode is None and status.exists():
            self.returncode = os.waitstatus_to_exitcode(int(status.read_text()))
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Wait for the end; returns what it wrote to stdout and stderr."""
        while self.poll() is None:
            time.sleep(LOOKS_EVERY_S)
        out, err = ((self._scratch / name).read_text("utf-8") for name in ("out", "err"))
        return out, err

    def terminate(self) -> None:
        """Send SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)


class CommandServer:
    """The server's process, from the tests' side."""

    def __init__(self, environment: dict[str, str], scratch: Path) -> None:
        self._scratch, self._num_started = scratch, 0
        scratch.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.command_server"],
            env=environment,
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        words: list[str],
        environment: dict[str, str],
        folder: Path,
        program: Literal["simgan", "dask"] = "simgan",
    ) -> Command:
        """Start a program with these words."""
        self._num_started += 1
        scratch = self._scratch / str(self._num_started)
        scratch.mkdir()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "words": [program, *words],
            "environment": environment,
            "folder": str(folder),
            "scratch": str(scratch),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Command([program, *words], int(self._process.stdout.readline()), scratch)

    def close(self) -> None:
        """End the server; commands that still run go on."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


def serve() -> dict[str, Any] | None:
    """Fork for each request of stdin; returns the request in the child, None at the end."""
    scratch: dict[int, Path] = {}
    while True:
        readable, _, _ = select.select([sys.stdin.buffer.raw], [], [], LOOKS_EVERY_S)  # type: ignore[attr-defined]
        if readable:
            line = _read_line()
            if not line:
                return None
            request: dict[str, Any] = json.loads(line)
            pid = os.fork()
            if pid == 0:
                return request
            scratch[pid] = Path(request["scratch"])
            os.write(1, f"{pid}\n".encode())
        for pid in list(scratch):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                folder = scratch.pop(pid)
                (folder / "partial").write_text(str(status))
                (folder / "partial").rename(folder / "status")


def _read_line() -> bytes:
    """Read one line without reading ahead, which `select` would not see."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def run(request: dict[str, Any]) -> int:
    """Become the command; returns its exit code."""
    if request["words"][0] == "dask":
        from dask.cli import run_cli as main  # noqa: PLC0415  as below
    else:
        from flows.cli.main import main  # noqa: PLC0415  the server has set the environment by now

    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    scratch = Path(request["scratch"])
    for descriptor, name in ((0, os.devnull), (1, scratch / "out"), (2, scratch / "err")):
        opened = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = request["words"]
    if "--workers" in sys.argv or sys.argv[:2] == ["dask", "worker"]:
        fork_workers()
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001  as the interpreter does at the end of a program
        traceback.print_exc()
        return 1
    return 0


def fork_workers() -> None:
    """Let Dask's local workers, too, be forked where all is imported, as this command was.

    A worker imports the flows for 6 s of processor time, so does one that replaces a killed one.
    This is `multiprocessing.forkserver.ForkServer.ensure_running` with a fork in place of a new
    interpreter, while this process has one thread.
    """
    import dask.config  # noqa: PLC0415  the server has loaded it
    from distributed.utils import get_mp_context  # noqa: PLC0415

    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    get_mp_context()
    fork_server: Any = forkserver._forkserver
    alive, stays_open = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        address = arbitrary_address("AF_UNIX")
        listener.bind(address)
        listener.listen()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(stays_open)
                forkserver.main(listener.detach(), alive, ())
            finally:
                os._exit(0)
    os.close(alive)
    fork_server._forkserver_address = address
    fork_server._forkserver_alive_fd = stays_open
    fork_server._forkserver_pid = pid


def leave(code: int) -> NoReturn:
    """End the process as the interpreter does, but take no modules apart.

    That writes to every page that is shared with the server, and costs a second.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def import_everything() -> None:
    """Import what any command may need, as a command does: the environment first."""
    from flows.cli.environment import prepare  # noqa: PLC0415
    from flows.cli.terminal import terminal_output  # noqa: PLC0415

    prepare()
    with terminal_output("normal"):  # it sets what Prefect reads
        for name in ("flows", "tasks"):
            package = import_module(name)
            for module in pkgutil.walk_packages(package.__path__, f"{name}."):
                import_module(module.name)
    warm_up()
    gc.freeze()  # no collection in a command looks at what is imported


def warm_up() -> None:
    """Load and look up what libraries do at their first use in a process, 2.5 s of a training."""
    import matplotlib.figure  # noqa: PLC0415  the environment is set by now
    import mlflow.pytorch  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    for name in LOADED_AT_FIRST_USE:
        import_module(name)
    Image.init()
    matplotlib.figure.Figure().savefig(io.BytesIO())
    with tempfile.TemporaryDirectory() as folder:  # it lists the files of every distribution
        mlflow.pytorch.save_model(
            torch.nn.Identity(),
            f"{folder}/model",
            input_example=np.zeros((2, 1), np.float32),
            serialization_format="pt2",
            pip_requirements=["numpy"],
        )
    # A forked process has none of the threads of its parent.
    assert threading.active_count() == 1, threading.enumerate()


if __name__ == "__main__":
    import_everything()
    given = serve()
    if given is not None:
        leave(run(given))
