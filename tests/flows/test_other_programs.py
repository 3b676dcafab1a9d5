"""Models and images of other programs through `refine`, and their datasets in every comparison."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simgan_core.simulator.eyes import sample_scenes
from storage.reader import open_dataset
from tasks.turing.study import open_study
from tests.flows.conftest import write_eyes
from tests.foreign_models import export_pt2, write_onnx


@pytest.fixture(scope="module")
def datasets(simgan: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic and real eyes, and the former as three other programs refined them."""
    folder = tmp_path_factory.mktemp("entrants")
    real = sample_scenes("real", 60, seed=2)
    write_eyes(folder / "synthetic.zarr", "synthetic", sample_scenes("synthetic", 40, seed=1))
    write_eyes(folder / "real.zarr", "real", real[real.person < 10])
    write_eyes(folder / "test.zarr", "real", real[real.person >= 10])
    export_pt2(folder / "pt2.pt2")
    write_onnx(folder / "onnx.onnx")
    rows = open_dataset(str(folder / "synthetic.zarr")).load()
    for name, image in zip(rows.ids, rows.images, strict=True):
        path = folder / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0] // 2 + 20).save(path)
    for theirs in ("pt2.pt2", "onnx.onnx", "images"):
        done = simgan("refine", folder / "synthetic.zarr", "--refiner", folder / theirs, "--to",
                      folder / f"{theirs.split('.')[0]}.zarr", "--gate-shift", 1.5)  # fmt: skip
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("theirs", ["pt2", "onnx", "images"])
def test_compare_gives_a_verdict_on_them_as_on_ours(
    simgan: Any, datasets: Path, theirs: str
) -> None:
    done = simgan("compare", "--synthetic", datasets / "synthetic.zarr", "--refined",
                  datasets / f"{theirs}.zarr", "--test", datasets / "test.zarr", "--unlabelled",
                  datasets / "real.zarr", "--seeds", 1, "--steps", 2, "--batch-size", 8, "--arms",
                  "synthetic", "--arms", "refined", "--arms", "synthetic_unmatched",
                  "--empty-methods", "--empty-shares", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert {"synthetic", "refined"} < set(result["arms"])
    assert result["pupil_shift_px"]["mean"] < 0.5


def test_without_unlabelled_images_the_comparison_says_what_it_leaves_out(
    simgan: Any, datasets: Path
) -> None:
    done = simgan("compare", "--synthetic", datasets / "synthetic.zarr", "--refined",
                  datasets / "onnx.zarr", "--test", datasets / "test.zarr", "--seeds", 1, "--steps",
                  2, "--batch-size", 8, "--arms", "refined", "--empty-methods",
                  "--empty-shares")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "refined by another program, whose real images are not known" in done.stderr


def test_a_gallery_shows_them_beside_what_they_were_refined_from(
    simgan: Any, datasets: Path, tmp_path: Path
) -> None:
    done = simgan("gallery", *(datasets / f"{name}.zarr" for name in ("pt2", "onnx", "images")),
                  datasets / "synthetic.zarr", "--out", tmp_path / "g.html", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.splitlines()[-1])["columns"]) == 4


def test_people_can_be_asked_about_them(datasets: Path, tmp_path: Path) -> None:
    real, refined, synthetic = (
        str(datasets / f"{name}.zarr") for name in ("real", "images", "synthetic")
    )
    book = open_study(real, refined, synthetic, 8, seed=0, results=tmp_path / "study.sqlite")
    refiner = book.study.datasets["refined"].refiner
    assert refiner is not None
    assert refiner.startswith("images-")


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(
    simgan: Any, datasets: Path, tmp_path: Path
) -> None:
    model = write_onnx(tmp_path / "large.onnx", ("N", 3, 256, 256))
    done = simgan("refine", datasets / "synthetic.zarr", "--refiner", model, "--to",
                  tmp_path / "r.zarr")  # fmt: skip
    assert done.returncode == 2
    assert "error: model" in done.stderr
    assert "takes images with height 256" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r.zarr").exists()


def test_dasks_workers_refine_by_a_model_as_one_process_does(
    simgan: Any, datasets: Path, tmp_path: Path
) -> None:
    done = simgan("refine", datasets / "synthetic.zarr", "--refiner", datasets / "pt2.pt2", "--to",
                  tmp_path / "r.zarr", "--gate-shift", 1.5, "--runner", "dask", "--workers",
                  2)  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone, together = (open_dataset(str(url)).info.digest
                       for url in (datasets / "pt2.zarr", tmp_path / "r.zarr"))  # fmt: skip
    assert alone == together


def test_their_rows_are_in_the_order_of_the_synthetic_ones(datasets: Path) -> None:
    before, after = (open_dataset(str(datasets / f"{name}.zarr")).read(0, 40)
                     for name in ("synthetic", "images"))  # fmt: skip
    assert before.ids == after.ids
    assert np.array_equal(before.images[after.valid] // 2 + 20, after.images[after.valid])
