"""A new source format is one file: the page's example as a command and as a flow."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from source_samples import SAMPLES

from storage.reader import open_dataset

PAGE = Path(__file__).parents[2] / "docs/how-to/own-source.md"

# As if the file were put into the folder of formats, which the tests leave alone.
WITH_FOLDER = (
    "import sys\n"
    "import storage.sources.formats\n"
    "storage.sources.formats.__path__.append(sys.argv.pop(1))\n"
)
COMMAND = f"{WITH_FOLDER}from flows.cli.main import main\nmain()\n"
FLOW = (
    f"{WITH_FOLDER}import json\n"
    "from flows.ingest import ingest\n"
    "form = ingest.parameters.model_dump_json()\n"
    "info = ingest(source=json.loads(sys.argv[1]), to=sys.argv[2])\n"
    "print(json.dumps({'form': form, 'digest': info.digest}))\n"
)


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's first example as its only module."""
    folder = tmp_path_factory.mktemp("formats")
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    (folder / "angle_eyes.py").write_text(code)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    SAMPLES["documented"].write(folder)
    return folder


@pytest.fixture
def run(formats: Path, tmp_path: Path, environment: dict[str, str]) -> Any:
    def _run(program: str, *words: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", program, str(formats), *map(str, words)]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return _run


def test_it_is_listed_and_its_options_explained(run: Any) -> None:
    listed = run(COMMAND, "ingest", "--help").stdout
    assert re.search(r"angle-eyes +Angle eyes: folders of X.png with X.txt", listed)
    explained = " ".join(run(COMMAND, "ingest", "angle-eyes", "--help").stdout.split())
    assert "FOLDER --folder The folder; nested folders are read too." in explained
    assert "--max-angle FLOAT Reject samples whose pitch or yaw is larger" in explained
    assert "[default: 35x55]" in explained


def test_it_ingests_through_the_command_and_through_the_flow(
    run: Any, files: Path, tmp_path: Path
) -> None:
    to = tmp_path / "command.zarr"
    words = ("ingest", "angle-eyes", files, "--to", to, "--max-angle", 40, "--size", "20x30")
    done = run(COMMAND, *words, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["num_valid"], result["domain"]) == (5, "synthetic")
    spec = open_dataset(str(to)).info.spec
    assert spec.source["name"] == "angle-eyes"
    assert (spec.source["size"], spec.source["max_angle_deg"]) == ([20, 30], 40)

    source = {"format": "angle-eyes", "folder": str(files), "max_angle_deg": 40,
              "height": 20, "width": 30}  # fmt: skip
    done = run(FLOW, json.dumps(source), tmp_path / "flow.zarr")
    assert done.returncode == 0, done.stderr
    through_flow = json.loads(done.stdout.splitlines()[-1])
    assert through_flow["digest"] == result["digest"]
    assert "Reject samples whose pitch or yaw is larger, in degrees." in through_flow["form"]


def test_what_its_options_refuse_ends_with_status_2(run: Any, files: Path, tmp_path: Path) -> None:
    done = run(
        COMMAND, "ingest", "angle-eyes", files, "--to", tmp_path / "d", "--max-angle", "wide"
    )
    assert done.returncode == 2
    assert "--max-angle" in done.stderr
