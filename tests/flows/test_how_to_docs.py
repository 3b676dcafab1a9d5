"""The commands of the how-to pages and of Getting started, run in order with less to do."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from simgan_core.simulator.eyes import render, sample_scenes
from storage.reader import open_dataset
from storage.schema import Domain
from tests.docs.pages import ROOT, Page
from tests.flows.conftest import ForkedSimgan, write_eyes
from tests.refinement_inputs import make_refiner, make_synthetic
from tests.unityeyes_folder import write_assets

TRAINING = {
    "--steps": 4, "--batch-size": 8, "--history-size": 16,
    "--discriminator-pretraining-steps": 1, "--stopping.evaluate-every": 0,
}  # fmt: skip
ESTIMATOR = {"--seeds": 1, "--steps": 2, "--batch-size": 8}
FEW_ARMS = ("--arms", "synthetic", "--arms", "refined", "--empty-methods", "--empty-shares")
LESS: dict[str, dict[str, object]] = {
    "train": TRAINING,
    "compare": ESTIMATOR,
    "evaluate": ESTIMATOR,
    "choose": ESTIMATOR,
    "label-prior": {"--steps": 2, "--batch-size": 8},
    "ablate": {"--seeds": 1, "--estimator-seeds": 1, "--estimator.steps": 2,
               **{f"--training.{name[2:]}": value for name, value in TRAINING.items()}},
    "pipeline": {"--seeds": 1, "--estimator.steps": 2, "--comparison.arms": "synthetic",
                 **{f"--training.{name[2:]}": value for name, value in TRAINING.items()}},
    "simulate": {"--count": 20},
    "landmarks": {"--steps": 2, "--simulated": 40},
}  # fmt: skip


class Reader:
    """Someone who types a page's commands in a folder that has the files it names."""

    def __init__(self, simgan: ForkedSimgan, folder: Path) -> None:
        self._simgan = simgan.within(folder)
        self.folder = folder

    def follow(self, page: str, with_option: str | None = None) -> list[dict[str, Any]]:
        """Run a page's commands, or those with an option; returns what each found."""
        found: list[dict[str, Any]] = []
        for words in Page(ROOT / page).commands:
            if words[0] == "doctor" or (with_option is not None and with_option not in words):
                continue  # doctor reports on the machine, whatever that is
            done = self._simgan(*self._less(words, found), "--json")
            assert done.returncode == 0, f"simgan {' '.join(words)}\n{done.stderr}"
            found.append(json.loads(done.stdout.splitlines()[-1]))
        return found

    def _less(self, words: list[str], found: list[dict[str, Any]]) -> list[object]:
        """Return a command with small numbers, ids that earlier ones printed, and a place on S3.

        The bucket is shared by all tests of a session, so this one has a prefix of its own.
        """
        ids = {name: each[name] for each in found for name in ("refiner",) if each.get(name)}
        priors = [each["path"] for each in found if "label_priors" in str(each.get("path"))]
        smaller = {} if "--from-mlflow" in words else LESS.get(words[0], {})
        kept: list[object] = []
        skip = False
        for word in words:
            if skip:
                skip = False
            elif word in smaller:
                skip = True
            elif word == "refiner-0123456789ab" and ids:
                kept.append(ids["refiner"])
            elif word == "models:/refiner@champion":  # whatever other tests trained
                kept.append("refiner-0123456789ab")
            elif word.endswith("label-prior-0123456789ab.npz"):
                kept.append(priors[-1])
            else:
                kept.append(word.replace("s3://datasets/", f"s3://datasets/{self.folder.name}/"))
        compares = words[0] == "compare" and "--from-mlflow" not in words
        few: tuple[str, ...] = FEW_ARMS if compares else ()
        if compares and "--teachers" in words:
            few = (*few, "--arms", "adapted")
        return [*kept, *(part for pair in smaller.items() for part in pair), *few]


@pytest.fixture
def reader(simgan: ForkedSimgan, environment: dict[str, str], tmp_path: Path) -> Reader:
    """A reader whose folder has small datasets, source files and the refiner of the pages."""
    (tmp_path / "data").mkdir()
    scenes = {"synthetic": sample_scenes("synthetic", 30, seed=1)}
    real = sample_scenes("real", 60, seed=2)
    scenes |= {"real": real[real.person < 10], "test": real[real.person >= 10]}
    scenes["unityeyes"] = sample_scenes("synthetic", 30, seed=4)
    scenes["refined"] = sample_scenes("synthetic", 30, seed=3)
    domains: dict[str, Domain] = {
        "synthetic": "synthetic",
        "unityeyes": "synthetic",
        "refined": "refined",
    }
    for name, some in scenes.items():
        write_eyes(tmp_path / "data" / f"{name}.zarr", domains.get(name, "real"), some)
    refiner = Path(environment["SIMGAN_HOME"], "refiners", "refiner-0123456789ab", "refiner.pt")
    refiner.parent.mkdir(parents=True, exist_ok=True)
    make_refiner(refiner)
    return Reader(simgan, tmp_path)


@pytest.fixture
def source_files(reader: Reader) -> None:
    """Source files instead of datasets, as the pages on ingestion name them."""
    folder = reader.folder
    shutil.rmtree(folder / "data")
    assert reader._simgan("simulate", "synthetic", "--out", "UnityEyes/imgs", "--count", 40
                          ).returncode == 0  # fmt: skip
    assert reader._simgan("simulate", "real", "--out", "MPIIGaze", "--count", 60).returncode == 0
    eyes = render(sample_scenes("synthetic", 9, seed=3), "crop", 70, 110)
    for name in ("eyes", "theirs"):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["image"] = eyes.images
            file["refined"] = eyes.images // 2
            file["look_vec"] = np.tile([0.0, 0.0, -1.0], (9, 1))
            file["pupil_2d"] = eyes.pupil_px
            file["name"] = [f"eye-{row}" for row in range(9)]
    (folder / "photographs").mkdir()
    for row, image in enumerate(eyes.images):
        Image.fromarray(image[:, :, 0]).save(folder / "photographs" / f"{row}.png")


@pytest.mark.usefixtures("source_files")
def test_own_data_leads_from_files_to_a_verdict(reader: Reader) -> None:
    found = reader.follow("docs/how-to/own-data.md")
    assert found[0]["num_rows"] == 40
    assert any("comparison" in each for each in found)
    assert (reader.folder / "sheet.png").exists()
    assert (reader.folder / "piped" / "refined.zarr").is_dir()


def test_getting_started_leads_to_a_verdict(reader: Reader) -> None:
    shutil.rmtree(reader.folder / "data")
    found = reader.follow("docs/getting-started.md")
    assert "comparison" in found[-1]


def test_label_matching_leads_from_an_estimate_to_a_training(reader: Reader) -> None:
    found = reader.follow("docs/how-to/label-matching.md")
    (trained,) = (each for each in found if "refiner" in each)
    assert trained["refiner"].startswith("refiner-")
    assert found[-1]["pseudo_labels"]["adapted"]["num_sources"] == 2


def test_choose_refiner_leads_from_two_trainings_to_a_choice(reader: Reader) -> None:
    found = reader.follow("docs/how-to/choose-refiner.md")
    assert len(found[-1]["candidates"]) == 2
    refiners = {each["refiner"] for each in found[-1]["candidates"]}
    assert refiners == {each["refiner"] for each in found if "weights_digest" in each}


def test_own_refiner_trains_variants_and_compares_other_programs(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(reader.folder / "data" / "refined.zarr")
    monkeypatch.chdir(reader.folder)
    page = "docs/how-to/own-refiner.md"
    generator = torch.nn.Identity()
    for block in Page(ROOT / page).python:
        exec(compile(block, page, "exec"), {"generator": generator})
    Path("synthetic").rename("cyclegan")
    found = reader.follow(page)
    (compared,) = (each for each in found if "comparison" in each)
    assert compared["pupil_shift_px"] is not None
    assert len(found[-1]["columns"]) == 3


def test_gpu_page_refines_by_several_workers(reader: Reader) -> None:
    shutil.rmtree(reader.folder / "data" / "refined.zarr")
    (refined,) = reader.follow("docs/how-to/gpu.md")
    assert refined["num_rows"] == 30


def test_unityeyes_page_renders_datasets_and_files(reader: Reader) -> None:
    shutil.rmtree(reader.folder / "data")
    write_assets(reader.folder / "UnityEyes2")
    found = reader.follow("docs/how-to/unityeyes.md")
    assert found[0]["num_rows"] == 20


@pytest.fixture
def on_s3(
    reader: Reader, environment: dict[str, str], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The prefix under which the reader's commands find their datasets on S3."""
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    monkeypatch.setattr(reader._simgan, "environment", {**environment, **aws})
    return f"{s3_bucket}/{reader.folder.name}"


def test_s3_page_ingests_and_refines_on_s3(reader: Reader, on_s3: str) -> None:
    simulated = reader._simgan("simulate", "synthetic", "--out", "UnityEyes/imgs", "--count", 40)
    assert simulated.returncode == 0
    reader.follow("docs/how-to/s3.md")
    assert open_dataset(f"{on_s3}/refined.zarr").info.num_valid == 40


def test_recipe_of_readme_refines_on_s3_by_several_workers(reader: Reader, on_s3: str) -> None:
    make_synthetic(f"{on_s3}/synthetic.zarr", 32, 16)
    (refined,) = reader.follow("README.md", with_option="--workers")
    assert refined["num_rows"] == 32
