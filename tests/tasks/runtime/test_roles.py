"""Datasets in the roles that a command gives them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simgan_core.config import EstimatorConfig, TrainingConfig
from simgan_core.errors import InputError
from storage.schema import Domain
from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.planning import plan_comparison
from tasks.refinement.refine import plan_refinement
from tasks.runtime.dataset_cache import DatasetCache
from tasks.training.train import train_refiner
from tests.refinement_inputs import make_refiner
from tests.tasks.comparison.conftest import write_dataset

ROLES: tuple[Domain, ...] = ("synthetic", "refined", "real")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A dataset of each domain, and a second real one to test on."""
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path / "home"))
    found = {}
    for seed, name in enumerate((*ROLES, "test")):
        images = np.random.default_rng(seed).integers(0, 255, (4, 35, 55, 1)).astype(np.uint8)
        domain: Any = "real" if name == "test" else name
        ids = [str(row) for row in range(4)]
        found[name] = write_dataset(tmp_path / f"{name}.zarr", domain, images, ids, {})
    return found


@pytest.mark.parametrize(
    ("synthetic", "real", "said"),
    [
        ("real", "synthetic", "synthetic dataset .* expected synthetic or refined images"),
        ("synthetic", "refined", "real dataset .* expected real images, found refined"),
        ("synthetic", "synthetic", "the synthetic and the real dataset are one"),
        ("real", "real", "the synthetic and the real dataset are one"),
    ],
)
def test_a_training_refuses_datasets_in_each_others_place_or_one_twice(
    synthetic: str, real: str, said: str, places: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        train_refiner.fn(places[synthetic], places[real], TrainingConfig())
    assert not (tmp_path / "home").exists()


def test_a_copy_of_a_dataset_is_the_same_dataset(places: dict[str, str], tmp_path: Path) -> None:
    copy = shutil.copytree(places["real"], tmp_path / "copy.zarr")
    with pytest.raises(InputError, match="are one"):
        train_refiner.fn(str(copy), places["real"], TrainingConfig())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"synthetic": "refined", "refined": "synthetic"}, "synthetic dataset"),
        ({"refined": "synthetic"}, "the synthetic and the refined dataset are one"),
        ({"refined": "test", "test": "refined"}, "refined dataset .* found real"),
        ({"test": "refined", "refined": "refined"}, "are one"),
        ({"real": "test"}, "the real and the test dataset are one"),
        ({"synthetic": "real", "real": None}, "synthetic dataset .* found real"),
    ],
)
def test_a_comparison_refuses_datasets_in_each_others_place_or_one_twice(
    wrong: dict[str, str | None], said: str, places: dict[str, str]
) -> None:
    roles = {name: name for name in ("synthetic", "refined", "real", "test")} | wrong
    given = {role: None if name is None else places[name] for role, name in roles.items()}
    with pytest.raises(InputError, match=said):
        plan_comparison.fn(
            DatasetCache(),
            given["synthetic"],  # type: ignore[arg-type]
            given["refined"],  # type: ignore[arg-type]
            given["real"],
            given["test"],  # type: ignore[arg-type]
            1,
            EstimatorConfig(),
            ComparisonConfig(),
        )


def test_real_images_are_not_refined(places: dict[str, str], tmp_path: Path) -> None:
    refiner = make_refiner(tmp_path / "refiner.pt")
    with pytest.raises(InputError, match="found real ones"):
        plan_refinement.fn(places["real"], str(refiner), str(tmp_path / "to.zarr"))
    assert not (tmp_path / "to.zarr").exists()
    assert plan_refinement.fn(places["refined"], str(refiner), str(tmp_path / "to.zarr")).groups
