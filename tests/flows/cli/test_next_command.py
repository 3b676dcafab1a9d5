"""What a person is told to go on with."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.main import app
from flows.cli.next_command import after_error, gallery_of
from simgan_core.errors import InputError, UnavailableError
from storage.errors import CorruptDatasetError, DatasetNotFoundError


@pytest.mark.parametrize(
    ("error", "words", "named"),
    [
        (InputError("wrong"), ["ingest", "arrays", "a.npz"], "simgan ingest arrays --help"),
        (InputError("wrong"), ["trian"], "simgan --help"),
        (DatasetNotFoundError("none"), ["train", "--real", "a"], "simgan ingest --help"),
        (CorruptDatasetError("bad"), ["verify", "a.zarr"], "simgan verify --help"),
        (UnavailableError("down"), ["train"], "simgan doctor"),
        (PermissionError("no right"), ["train"], "simgan doctor"),
    ],
)
def test_an_error_names_the_next_command(error: Exception, words: list[str], named: str) -> None:
    assert after_error(error, app, words) == f"; next: {named}"


def test_an_error_that_names_a_command_itself_has_no_other() -> None:
    assert after_error(InputError("stop it by `simgan down`"), app, ["up"]) == ""


def test_datasets_are_named_as_a_shell_takes_them_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = gallery_of(f"{tmp_path}/my data/a.zarr", "s3://bucket/b.zarr", "/else/c.zarr")
    shown = "'my data/a.zarr' s3://bucket/b.zarr /else/c.zarr"
    assert command.startswith(f"simgan gallery {shown} --out gallery.html")


def _simgan(*words: str, home: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_arguments_simgan_says_what_to_begin_with(tmp_path: Path) -> None:
    done = _simgan(home=tmp_path)
    assert done.returncode == 0
    assert "First steps: simgan demo" in done.stdout


def test_a_wrong_option_is_a_sentence_that_ends_in_the_help_to_ask_for(tmp_path: Path) -> None:
    words = ("train", "--synthetic", "a", "--real", "b", "--steps", "0")
    done = _simgan(*words, home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: steps: Input should be greater than or equal to 1")
    assert done.stderr.endswith("; next: simgan train --help\n")
    assert "pydantic" not in done.stderr


COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
$(complete -p simgan | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [(["ing"], "ingest"), (["ingest", "unity"], "unityeyes"), (["train", "--pres"], "--preset")],
)
def test_bash_completes_commands_and_options(
    tmp_path: Path, words: list[str], offered: str
) -> None:
    script = tmp_path / "completion"
    done = _simgan(
        "--install-completion", "--shell", "bash", "--output", str(script), home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    completed = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", script, "simgan", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout.split() == [offered]
