"""A refiner is found by its id or its file, and else it is said where it was looked for."""

from pathlib import Path

import pytest

from simgan_core.errors import InputError
from tasks.runtime.paths import refiner_folder
from tasks.runtime.refiners import open_refiner
from tests.refinement_inputs import make_refiner


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path / "home"))


def test_an_id_and_a_path_lead_to_the_same_weights(tmp_path: Path) -> None:
    folder = refiner_folder("refiner-1")
    folder.mkdir(parents=True)
    path = make_refiner(folder / "refiner.pt")
    assert open_refiner("refiner-1").weights_digest == open_refiner(str(path)).weights_digest


@pytest.mark.parametrize("name", ["refiner-2", "nowhere/refiner.pt"])
def test_an_unknown_refiner_is_refused_with_what_was_expected(name: str) -> None:
    with pytest.raises(InputError, match=f"no refiner {name}: expected an id under .*home"):
        open_refiner(name)
