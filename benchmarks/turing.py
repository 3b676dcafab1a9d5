"""Measure the visual Turing test on loopback: page load, and answer to next image with 50 subjects.

    python benchmarks/turing.py

Starts the real server on data of noise (55×35 grey) and drives it with 50 keep-alive connections in
this process. "at once": all 50 answer at the same moment, again and again, no one thinks; "people":
each thinks for 0.5 to 1.5 s. Page load is Chromium's, up to the field for the name, where Chromium
and Playwright are installed.
"""

import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None  # type: ignore[assignment]

from storage.samples import SampleBlock
from storage.schema import DatasetSpec, Domain
from storage.writer import DatasetWriter

NUM_SUBJECTS = 50
TRIALS = 200
ROUNDS_AT_ONCE = 100
ROUNDS_OF_PEOPLE = 10
PAGE_LOADS = 10


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        loads = page_loads(url)
        if loads:
            median = statistics.median(loads) * 1e3
            print(
                f"page load: first {loads[0] * 1e3:.0f} ms, median of {len(loads)}: {median:.0f} ms"
            )
        at_once, people = asyncio.run(answer_times(url))
        for name, found in (("at once", at_once), ("people", people)):
            median, late = np.percentile(np.array(found) * 1e3, [50, 95])
            print(
                f"answer to next image, {NUM_SUBJECTS} subjects, {name}: median {median:.1f} ms, "
                f"95th percentile {late:.1f} ms over {len(found)} answers"
            )


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serve a study of noise and return its address."""
    words = ["serve", "--trials", str(TRIALS), "--port", "0", "--results", str(folder / "a.sqlite")]
    domains: tuple[Domain, ...] = ("real", "refined")
    for seed, domain in enumerate(domains):
        words += [f"--{domain}", write_noise(folder / f"{domain}.zarr", domain, seed)]
    program = "from flows.cli.turing import app; app()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        yield process.stderr.readline().removeprefix("open ").strip()
    finally:
        process.kill()
        process.wait()


def write_noise(path: Path, domain: Domain, seed: int) -> str:
    """Write a dataset of 2 × TRIALS images of noise."""
    count = 2 * TRIALS
    spec = DatasetSpec(
        num_rows=count,
        height=35,
        width=55,
        channels=1,
        dtype="uint8",
        labels=(),
        domain=domain,
        source={"name": "noise", "seed": seed},
        preprocess="none",
    )
    images = np.random.default_rng(seed).integers(0, 256, (count, 35, 55, 1), dtype=np.uint8)
    writer = DatasetWriter.open(str(path), spec)
    ids = [f"noise/{row}" for row in range(count)]
    writer.write_shard(0, SampleBlock(images, np.ones(count, dtype=bool), ids, {}))
    writer.finish()
    return str(path)


def page_loads(url: str) -> list[float]:
    """Return seconds from asking for the page to its being usable; empty without a browser."""
    chromium = shutil.which("chromium")
    if chromium is None or sync_playwright is None:
        print("page load: not measured, Chromium or Playwright is not installed")
        return []
    seconds = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(PAGE_LOADS):
            page = browser.new_page()
            started = time.perf_counter()
            page.goto(url)
            page.wait_for_selector("#code")
            seconds.append(time.perf_counter() - started)
            page.close()
        browser.close()
    return seconds


class Subject:
    """One browser, as far as the server can tell."""

    def __init__(self, url: str, code: str) -> None:
        self._host = url.split("/")[2]
        self._code = code
        self._cookie = ""

    async def begin(self) -> None:
        """Connect and register."""
        name, port = self._host.split(":")
        self._reader, self._writer = await asyncio.open_connection(name, int(port))
        self._state = await self._send("GET", "/api/session", None)
        self._state = await self._send("POST", "/api/subjects", {"code": self._code})

    async def answer(self) -> float:
        """Answer, and return the seconds until the next image was here."""
        said = random.choice(["real", "made"])
        body = {"trial": self._state["trial"], "said": said, "reaction_ms": 500.0}
        started = time.perf_counter()
        self._state = await self._send("POST", "/api/answers", body)
        return time.perf_counter() - started

    async def _send(self, method: str, path: str, body: Any) -> dict[str, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        csrf = "" if body is None else self._state["csrf"]
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nOrigin: http://{self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            f"Cookie: {self._cookie}\r\nX-CSRF-Token: {csrf}\r\n\r\n".encode()
            + content
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert head[0] == "HTTP/1.1 200 OK", head[0]
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        if "set-cookie" in headers:
            self._cookie = headers["set-cookie"].split(";")[0]
        told = await self._reader.readexactly(int(headers["content-length"]))
        return dict(json.loads(told))


async def answer_times(url: str) -> tuple[list[float], list[float]]:
    """Return the seconds of all answers: given at once, and by people who think."""
    subjects = [Subject(url, f"P{number}") for number in range(NUM_SUBJECTS)]
    await asyncio.gather(*(subject.begin() for subject in subjects))
    at_once = []
    for _ in range(ROUNDS_AT_ONCE):
        at_once += await asyncio.gather(*(subject.answer() for subject in subjects))
    people = await asyncio.gather(*(think_and_answer(subject) for subject in subjects))
    return at_once, [seconds for of_one in people for seconds in of_one]


async def think_and_answer(subject: Subject) -> list[float]:
    """Answer some trials after a pause each, as a person would."""
    seconds = []
    for _ in range(ROUNDS_OF_PEOPLE):
        await asyncio.sleep(random.uniform(0.5, 1.5))
        seconds.append(await subject.answer())
    return seconds


if __name__ == "__main__":
    main()
