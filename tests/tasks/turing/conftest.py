"""Small datasets of three domains, the real server on loopback, and two ways to talk to it."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import sync_playwright

from storage.answers import AnswerBook
from storage.samples import SampleBlock
from storage.schema import GAZE, PUPIL_PX, DatasetSpec, Domain
from storage.writer import DatasetWriter
from tasks.turing.server import create_app
from tasks.turing.study import open_study

NUM_ROWS, HEIGHT, WIDTH = 120, 35, 55
CHROMIUM = shutil.which("chromium")
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def write_eyes(path: Path, domain: Domain, images: np.ndarray[Any, Any], prefix: str) -> str:
    """Write a labelled dataset; rows of one prefix have the same ids and labels."""
    count = len(images)
    rng = np.random.default_rng(5)
    pitchyaw = rng.uniform(-0.3, 0.3, (count, 2))
    gaze = np.column_stack([-np.sin(pitchyaw[:, 1]), -np.sin(pitchyaw[:, 0]), -np.ones(count)])
    gaze /= np.linalg.norm(gaze, axis=1, keepdims=True)
    spec = DatasetSpec(
        num_rows=count,
        height=images.shape[1],
        width=images.shape[2],
        channels=1,
        dtype="uint8",
        labels=(GAZE, PUPIL_PX),
        domain=domain,
        source={"name": "test", "sum": int(images.sum())},
        preprocess="none",
        provenance={"refiner": "refiner-0123456789ab"} if domain == "refined" else {},
    )
    middle = np.array([images.shape[2] / 2, images.shape[1] / 2])
    labels = {
        "gaze": gaze.astype(np.float32),
        "pupil_px": (middle + 20 * gaze[:, :2]).astype(np.float32),
    }
    ids = [f"{prefix}/{row}" for row in range(count)]
    writer = DatasetWriter.open(str(path), spec)
    writer.write_shard(0, SampleBlock(images, np.ones(count, dtype=bool), ids, labels))
    return writer.finish().url


@pytest.fixture(scope="session")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Datasets as unlike as can be: real images are noise, the others smooth: PNG would tell."""
    folder = tmp_path_factory.mktemp("eyes")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (NUM_ROWS, HEIGHT, WIDTH, 1), dtype=np.uint8)
    ramp = np.linspace(0, 200, WIDTH)[None, :, None] + rng.uniform(0, 40, (NUM_ROWS, 1, 1, 1))
    smooth = np.broadcast_to(ramp, noise.shape).astype(np.uint8)
    return {
        "real": write_eyes(folder / "real.zarr", "real", noise, "p00"),
        "refined": write_eyes(folder / "refined.zarr", "refined", smooth, "f01"),
        "synthetic": write_eyes(folder / "synthetic.zarr", "synthetic", 255 - smooth, "f01"),
    }


@pytest.fixture
def book(eyes: dict[str, str], tmp_path: Path) -> Iterator[AnswerBook]:
    """A study of 10 refined-or-real and 2 synthetic-or-real trials."""
    study = open_study(
        eyes["real"], eyes["refined"], eyes["synthetic"], 10, 0, tmp_path / "answers.sqlite"
    )
    with closing(study) as book:
        yield book


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[AnswerBook], str]]:
    """Serve a study over HTTP from this process until the module ends; returns its address."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(book: AnswerBook) -> str:
        config = uvicorn.Config(
            create_app(book, "127.0.0.1"),
            port=0,
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join()


class Visitor:
    """A browser without eyes: keeps its cookie and its token, and sees every byte."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc
        self._connection = http.client.HTTPConnection(self.host, timeout=30)
        self.cookie = ""
        self.state: dict[str, Any] = {}
        self.headers: list[tuple[str, str]] = []
        self.size = 0

    def send(self, method: str, path: str, body: Any = None, **headers: str | None) -> int:
        """Send a request as our own page would; a header of None is left out."""
        own = {
            "Host": self.host,
            "Cookie": self.cookie,
            "Origin": f"http://{self.host}",
            "Content-Type": "application/json",
            "X-CSRF-Token": self.state.get("csrf", ""),
        }
        all_headers = own | {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(
            method,
            path,
            content if method == "POST" else None,
            {name: value for name, value in all_headers.items() if value is not None},
        )
        reply = self._connection.getresponse()
        self.headers = reply.getheaders()
        if "set-cookie" in dict(self.headers):
            self.cookie = dict(self.headers)["set-cookie"].split(";")[0]
        raw = reply.read()
        self.size = len(raw)
        if reply.status == 200 and path.startswith("/api/"):
            self.state = json.loads(raw)
        return reply.status

    def begin(self, code: str) -> None:
        """Open the page and register."""
        assert self.send("GET", "/api/session") == 200
        assert self.send("POST", "/api/subjects", {"code": code}) == 200

    def answer(self, said: str = "real", reaction_ms: float = 500.0, **headers: str | None) -> int:
        """Answer the trial at hand."""
        body = {"trial": self.state["trial"], "said": said, "reaction_ms": reaction_ms}
        return self.send("POST", "/api/answers", body, **headers)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@pytest.fixture(scope="module")
def visit() -> Iterator[Callable[[str], Visitor]]:
    """Visitors of a server, by its address, until the module ends."""
    with ExitStack() as visitors:
        yield lambda url: visitors.enter_context(closing(Visitor(url)))


class ServerProcess:
    """`simgan turing serve` in a process of its own, which can be killed and started again."""

    def __init__(self, *words: str) -> None:
        self._words = [*words, "--port", "0"]
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start it, at the same port as before."""
        program = "from flows.cli.turing import app; app()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", *self._words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        self.url = self._process.stderr.readline().removeprefix("open ").strip()
        assert self.url.startswith("http://"), self.url + self._process.stderr.read()
        self._words[-1] = str(urlsplit(self.url).port)

    def stop(self, number: int) -> tuple[int, str]:
        """Send a signal and return the exit code and what was printed."""
        self._process.send_signal(number)
        out, _ = self._process.communicate(timeout=30)
        return self._process.returncode, out


@pytest.fixture
def server_process() -> Iterator[Callable[..., ServerProcess]]:
    """Start servers in processes, which end with the test."""
    started: list[ServerProcess] = []

    def start(*words: str) -> ServerProcess:
        started.append(ServerProcess(*words))
        return started[-1]

    yield start
    for process in started:
        process.stop(signal.SIGKILL)


# For a module only: while Playwright's loop runs, no test of asyncio can in the same process.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; without it these tests skip, except in CI, where that is a failure."""
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()
