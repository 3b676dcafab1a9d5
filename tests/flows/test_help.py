"""What the command line answers without doing any work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows import cli
from flows.cli.main import FLOW_MODULES

COMMANDS = [
    "simulate",
    "ingest",
    "train",
    "refine",
    "evaluate",
    "compare",
    "choose",
    "pipeline",
    "demo",
    "doctor",
    "turing",
    "gallery",
    "inspect",
    "landmarks",
    "verify",
    "ablate",
]
HEAVY = {"torch", "prefect", "mlflow", "zarr", "matplotlib", "scipy", "PIL"}


def _run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, check=False
    )


def test_help_lists_every_command() -> None:
    done = _run("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["ingest", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys; sys.argv = ['simgan', *sys.argv[1:]]\n"
        "from flows.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


def test_help_shows_the_sentence_under_each_setting() -> None:
    assert "K_g: refiner updates in a round" in " ".join(_run("train", "--help").stdout.split())


def test_every_command_that_runs_a_flow_is_given_prefects_server() -> None:
    folder = Path(cli.__file__).parent
    imported = {
        module
        for path in folder.glob("*.py")
        for module in re.findall(r"^ +from (flows\.\w+) import", path.read_text("utf-8"), re.M)
    }
    assert imported == set(FLOW_MODULES.values())
