"""`simgan choose`: refined datasets in order, found again, and the same figure by `compare`."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from simgan_core.simulator.eyes import sample_scenes
from storage.reader import open_dataset
from storage.schema import GAZE
from tasks.runtime.tracking.champion import MAY_LEAD_TAG, SYNTHETIC_TAG
from tasks.runtime.tracking.runs import REFINER_TAG, begin_run
from tests.flows.conftest import ForkedSimgan, write_eyes
from tests.tasks.comparison.conftest import write_dataset

ESTIMATOR = ("--seeds", 2, "--steps", 60, "--batch-size", 16, "--architecture", "compact")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Path:
    """Datasets of which one refiner mirrors eyes under their labels, and the registry's two."""
    folder = tmp_path_factory.mktemp("chosen")
    (folder / "home").mkdir()
    shutil.copy(empty_mlflow, folder / "home")
    synthetic = write_eyes(
        folder / "synthetic.zarr", "synthetic", sample_scenes("synthetic", 160, seed=1)
    )
    real = sample_scenes("real", 120, seed=2)
    write_eyes(folder / "real.zarr", "real", real[real.person < 10])
    write_eyes(folder / "test.zarr", "real", real[real.person >= 10])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMGAN_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        parent = open_dataset(synthetic)
        block = parent.load()
        for name, images in (("harmful", block.images[:, :, ::-1]), ("harmless", block.images)):
            made = {"parent_digest": parent.info.digest, "refiner": f"refiner-{name}"}
            write_dataset(
                folder / f"{name}.zarr",
                "refined",
                (images * 0.9 + 10).astype(np.uint8),
                block.ids,
                {"gaze": (GAZE, block.labels["gaze"])},
                made,
            )
            tags = {
                REFINER_TAG: made["refiner"],
                MAY_LEAD_TAG: "true",
                SYNTHETIC_TAG: parent.info.digest,
            }
            run = begin_run("refiners", name, name)
            alias = "champion" if name == "harmful" else "candidate"
            run.register_model("refiner", "model", tags, alias)
    return folder


@pytest.fixture(scope="module")
def command(simgan: ForkedSimgan, place: Path) -> ForkedSimgan:
    return simgan.within(place).with_environment({"SIMGAN_HOME": str(place / "home")})


def choose(command: ForkedSimgan, *more: object) -> dict[str, Any]:
    done = command("choose", "--synthetic", "synthetic.zarr", "--unlabelled", "real.zarr",
                   "--refined", "harmful.zarr", "--refined", "harmless.zarr", *ESTIMATOR, *more,
                   "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def chosen(command: ForkedSimgan) -> dict[str, Any]:
    return choose(command)


def test_the_harmless_refiner_comes_first_and_leads_only_by_teachers_that_are_trusted(
    chosen: dict[str, Any], place: Path
) -> None:
    best, second = chosen["candidates"]
    assert (best["refined"], second["refined"]) == ("harmless.zarr", "harmful.zarr")
    assert chosen["lead_deg"] > chosen["seed_spread_deg"]
    assert "more than the spread between estimator seeds" in chosen["verdict"]
    assert "NOT to be trusted, and no champion is chosen: teachers of one" in chosen["verdict"]
    assert chosen["champion"] is None
    client = MlflowClient(f"sqlite:///{place}/home/mlflow.db")
    version = client.get_model_version_by_alias("refiner", "champion")
    assert version.tags[REFINER_TAG] == "refiner-harmful"


def test_the_same_again_finds_all_and_computed_anew_it_is_the_same_bits(
    command: ForkedSimgan, chosen: dict[str, Any], place: Path, empty_mlflow: Path
) -> None:
    assert choose(command) == chosen
    for kept in ("estimators", "pseudo_labels", "label_priors"):
        shutil.rmtree(place / "home" / kept)
    (place / "home" / "mlflow.db").unlink()
    shutil.copy(empty_mlflow, place / "home")
    again = choose(command, "--runner", "dask", "--workers", 2)
    for what in ("choice", "candidates", "lead_deg", "verdict"):
        assert again[what] == chosen[what]


def test_compare_measures_the_same_figure_and_says_what_it_is(
    command: ForkedSimgan, chosen: dict[str, Any]
) -> None:
    done = command("compare", "--synthetic", "synthetic.zarr", "--refined", "harmless.zarr",
                   "--unlabelled", "real.zarr", "--test", "test.zarr", *ESTIMATOR,
                   "--arms", "synthetic", "--arms", "refined", "--empty-methods",
                   "--empty-shares")  # fmt: skip
    assert done.returncode == 0, done.stderr
    error_deg = chosen["candidates"][0]["pseudo_label_error_deg"]
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("| refined |"))
    assert f"| {error_deg:.2f} ± " in row
    assert "error on pseudo-labels (no real label used)" in done.stdout
    assert "NOT to be trusted here: teachers of one simulator alone" in done.stdout


def test_less_than_two_and_refined_from_another_dataset_are_refused(
    command: ForkedSimgan, place: Path
) -> None:
    usual = ("choose", "--synthetic", "synthetic.zarr", "--unlabelled", "real.zarr")
    one = command(*usual, "--refined", "harmless.zarr")
    assert one.returncode == 2
    assert "among two or more refined datasets, found 1: repeat --refined" in one.stderr
    write_eyes(place / "other.zarr", "synthetic", sample_scenes("synthetic", 40, seed=5))
    foreign = command("choose", "--synthetic", "other.zarr", "--unlabelled", "real.zarr",
                      "--refined", "harmless.zarr", "--refined", "harmful.zarr")  # fmt: skip
    assert foreign.returncode == 2
    assert "was refined from another dataset than" in foreign.stderr
