"""The commands of docs/how-to/turing.md, run as they stand there."""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.reader import open_dataset

DOCUMENT = Path(__file__).parents[3] / "docs" / "how-to" / "turing.md"
COMMANDS = [
    shlex.split(line)[1:]
    for line in re.findall(r"^    (simgan .*)$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
]


@pytest.fixture
def folder(eyes: dict[str, str], tmp_path: Path) -> Path:
    """A working directory with the files that the page names."""
    (tmp_path / "data").mkdir()
    for domain, url in eyes.items():
        (tmp_path / "data" / f"{domain}.zarr").symlink_to(url)
    real = open_dataset(eyes["real"]).load()
    gaze = real.labels["gaze"]
    np.savez(tmp_path / "estimate.npz", id=np.array(real.ids), gaze=gaze, predicted=gaze)
    return tmp_path


def _start(words: list[str], folder: Path) -> "subprocess.Popen[str]":
    """Start a command, `turing …` or `gallery …`."""
    return subprocess.Popen(
        [sys.executable, "-c", f"from flows.cli.{words[0]} import app; app()", *words[1:]],
        cwd=folder,
        env={"SIMGAN_HOME": str(folder / "home"), "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_page_leads_from_serving_to_the_report(folder: Path, visit: Callable[[str], Any]) -> None:
    said = []
    for words in COMMANDS:
        # A port of our own; two checkouts may be tested at a time.
        serving = words[:2] == ["turing", "serve"]
        process = _start(words + ["--port", "0"] * serving, folder)
        if serving:
            assert process.stderr is not None
            subject = visit(process.stderr.readline().removeprefix("open ").strip())
            subject.begin("Ann")
            for _ in range(30):
                subject.answer("made")
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said.append(out)
    assert "30 answers of 1 subjects" in said[0]
    assert "| Ann (unfinished) |" in said[1]
    assert "MLflow    run" in said[2]
    assert "120 rows of synthetic" in said[3]
    assert (folder / "study.html").exists()
    assert (folder / "errors.html").exists()
