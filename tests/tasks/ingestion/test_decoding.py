"""Processes that decode."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import psutil
import pytest
from source_samples import SAMPLES

from storage.sources.formats.unityeyes import UnityEyesOptions, UnityEyesSource
from tasks.ingestion.decoding import DecodingProcess


@pytest.fixture
def source(tmp_path: Path) -> UnityEyesSource:
    SAMPLES["unityeyes"].write(tmp_path)
    return UnityEyesOptions(folder=tmp_path).open()


@pytest.fixture
def process(source: UnityEyesSource) -> Iterator[DecodingProcess]:
    process = DecodingProcess(source, "none")
    yield process
    process.close()


def test_what_reading_raises_is_raised_where_the_rows_are_wanted() -> None:
    process = DecodingProcess(BytesIO(), "none")  # its `read` takes one argument
    for _ in range(2):
        with pytest.raises(TypeError, match="at most 1 argument") as raised:
            process.read(0, 1)
        assert "decoding.py" in raised.value.__notes__[0]
    process.close()


def test_a_process_that_was_killed_is_said_to_be(process: DecodingProcess) -> None:
    process.read(0, 1)
    (child,) = (
        child
        for child in psutil.Process().children()
        if "tasks.ingestion.decoding" in child.cmdline()
    )
    child.kill()
    with pytest.raises(RuntimeError, match="ended in rows 1 to 2, with exit code -9"):
        process.read(1, 3)


def test_it_ends_with_a_parent_that_is_killed(source: UnityEyesSource, tmp_path: Path) -> None:
    code = (
        "import sys, time, psutil\n"
        "from storage.sources.formats.unityeyes import UnityEyesOptions\n"
        "from tasks.ingestion.decoding import DecodingProcess\n"
        "DecodingProcess(UnityEyesOptions(folder=sys.argv[1]).open(), 'none').read(0, 1)\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        assert parent.wait() == -signal.SIGKILL
        child.wait(timeout=60)
    assert not child.is_running()


def test_it_loads_neither_prefect_nor_pytorch() -> None:
    code = "import sys, tasks.ingestion.decoding; print({'prefect', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
