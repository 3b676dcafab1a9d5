"""A Dask scheduler and workers in processes of their own, also with code that was changed."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tasks.runtime.recipes import recipe_version

ROOT = Path(__file__).parents[1]


@contextmanager
def scheduler(environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Run a scheduler without workers until the block ends; gives its address."""
    words = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    with _process(environment, ROOT, "scheduler", *words) as started:
        yield _said(started, r"Scheduler at:\s+(tcp://\S+)")


@contextmanager
def worker(
    scheduler: str, code: Path = ROOT, environment: Mapping[str, str] = os.environ
) -> Iterator[str]:
    """Run a worker with the code in a folder until the block ends; gives its address."""
    words = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
    with _process(environment, code, "worker", scheduler, *words) as started:
        address = _said(started, r"Start worker at:\s+(tcp://\S+)")
        _said(started, "(Registered to):")
        yield address


def copy_with_next_recipe(to: Path) -> Path:
    """Copy the code to a folder, where refinement gets the next recipe version."""
    for package in ("flows", "simgan_core", "storage", "tasks"):
        shutil.copytree(ROOT / package, to / package)
    recipes = to / "tasks" / "runtime" / "recipes.toml"
    text = recipes.read_text("utf-8")
    version = recipe_version("refine")
    changed = text.replace(
        f"refine = {{ version = {version},", f"refine = {{ version = {version + 1},"
    )
    assert changed != text
    recipes.write_text(changed, "utf-8")
    return to


@contextmanager
def _process(
    environment: Mapping[str, str], code: Path, *words: str
) -> Iterator["subprocess.Popen[str]"]:
    started = subprocess.Popen(
        [sys.executable, "-m", "dask", *words],
        env={**environment, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"},
        cwd=code,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


def _said(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Wait until a process has said this; returns the first group."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(f"it ended without {pattern}")
