"""A wheel, installed where no checkout is, has all that its commands need."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.simulate import simulate_synthetic
from tests.operating_team import SERVERS, free_port
from tests.refinement_inputs import make_refiner

CHECKOUT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "simgan_core", "storage")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout's files, built in a copy without earlier builds' leftovers."""
    copy = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(
            CHECKOUT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy / name)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", str(copy / "dist"), str(copy)),
        ],
        check=True,
        env={**os.environ, "SETUPTOOLS_SCM_PRETEND_VERSION": "0.2.0"},
    )
    (built,) = (copy / "dist").glob("simgan-*.whl")
    return built


class Installed:
    """The command of the installed wheel, in an empty folder and a SIMGAN_HOME of its own."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder
        self.ports = ("--prefect-port", free_port(), "--mlflow-port", free_port())
        inherited = {
            name: text
            for name, text in os.environ.items()
            if name not in (*SERVERS, "PYTHONPATH", "SIMGAN_HOME")
        }
        self.environment = {**inherited, "SIMGAN_HOME": str(folder / "home")}

    def __call__(self, *words: object) -> str:
        """Run `simgan` with these words, which must be done; returns its stdout."""
        done = subprocess.run(
            [str(self.python.with_name("simgan")), *map(str, words)],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def result(self, *words: object) -> dict[str, Any]:
        """Run it with --json; returns what it found."""
        found: dict[str, Any] = json.loads(self(*words, "--json").splitlines()[-1])
        return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment that shares this one's dependencies, and not its checkout.

    A line of a .pth file is a folder whose own .pth files, such as that of an editable
    installation, are not read.
    """
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    (site,) = (place / "venv").glob("lib/python*/site-packages")
    shared = [folder for folder in sys.path if folder.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(shared))
    python = place / "venv" / "bin" / "python"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"),
            *("--no-deps", "--no-index", "--ignore-installed", str(wheel)),
        ],
        check=True,
    )
    (place / "empty").mkdir()
    return Installed(python, place / "empty")


def test_the_packages_come_from_the_wheel_with_their_types(installed: Installed) -> None:
    program = "import flows, tasks, simgan_core, storage as s; print(s.__file__, flows.__file__)"
    said = subprocess.run(
        [installed.python, "-c", program],
        env=installed.environment,
        cwd=installed.folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    files = [Path(word) for word in said.split()]
    assert all(file.is_relative_to(installed.python.parents[1]) for file in files)
    assert all(file.with_name("py.typed").exists() for file in files)


def test_help_and_doctor_answer(installed: Installed) -> None:
    assert "built-in simulator" in installed("demo", "--help")
    assert installed.result("doctor")["healthy"]


@pytest.mark.timeout(900)
def test_servers_start_data_are_ingested_and_refined_and_servers_stop(installed: Installed) -> None:
    folder = installed.folder
    make_refiner(folder / "refiner.pt")
    simulate_synthetic.fn(str(folder / "pairs"), 8, seed=1)
    assert installed.result("up", "--background", *installed.ports)["found"] is False
    try:
        ingested = installed.result("ingest", "unityeyes", "pairs", "--to", "eyes.zarr")
        refined = installed.result(
            *("refine", "eyes.zarr", "--refiner", "refiner.pt", "--to", "refined.zarr")
        )
        assert (ingested["num_rows"], refined["num_rows"]) == (8, 8)
    finally:
        stopped = installed.result("down")["stopped"]
    assert {"prefect-server", "mlflow-server", "worker-cpu"} <= set(stopped)
