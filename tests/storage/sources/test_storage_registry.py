"""The registry of source formats."""

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from storage.errors import SourceError
from storage.sources.options import SourceOptions
from storage.sources.registry import describe_format, format_names, options_of, register
from storage.sources.source import Source

NAMES = ("arrays", "eye-gaze", "folder", "mpiigaze", "nyu-hand", "syntheseyes", "unityeyes")


def test_every_module_of_formats_is_a_format_of_its_name() -> None:
    assert set(NAMES) <= set(format_names())
    for name in NAMES:
        assert options_of(name).model_fields["format"].default == name
        assert describe_format(name).endswith(".")


def test_names_and_descriptions_are_known_without_importing_a_format() -> None:
    code = (
        "import sys\n"
        "from storage.sources.registry import describe_format, format_names\n"
        "assert all(map(describe_format, format_names()))\n"
        "print([name for name in sys.modules if name.startswith('storage.sources.formats.')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained(name: str) -> None:
    fields = options_of(name).model_fields
    assert [key for key in fields if fields[key].description is None] == ["format"]


def test_a_name_that_is_taken_is_refused() -> None:
    class Other(SourceOptions):
        """Another package's format."""

        format: Literal["folder"] = "folder"
        folder: Path

        def open(self) -> Source:
            raise NotImplementedError

    options_of("folder")
    with pytest.raises(
        ValueError, match=r"'folder' is registered by storage\.sources\.formats\.folder"
    ):
        register(Other)


def test_a_format_that_there_is_not_is_named_with_those_there_are() -> None:
    with pytest.raises(SourceError, match=r"no source format 'fold'; there are: .*folder"):
        options_of("fold")
