"""The script examples/refine_folder.py on a folder of rendered eyes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simgan_core.inference import refine_images
from simgan_core.models.checkpoint import load_refiner
from simgan_core.simulator.eyes import render, sample_scenes
from tests.refinement_inputs import make_refiner

SCRIPT = Path(__file__).parents[2] / "examples" / "refine_folder.py"
IMAGES = render(sample_scenes("synthetic", 3, seed=1), "crop", 35, 55).images


@pytest.fixture
def renders(tmp_path: Path) -> Path:
    """Three images, the last in a folder of its own, and a file that is none."""
    folder = tmp_path / "renders"
    (folder / "more").mkdir(parents=True)
    for name, image in zip(("1.png", "2.bmp", "more/3.png"), IMAGES, strict=True):
        Image.fromarray(image[:, :, 0]).save(folder / name)
    (folder / "4.png").write_bytes(b"no image")
    make_refiner(tmp_path / "refiner.pt")
    return folder


def run(folder: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)


def test_every_image_is_refined_under_its_name_and_bad_ones_are_named(renders: Path) -> None:
    place = renders.parent
    done = run(place, "renders", "--refiner", "refiner.pt", "--to", "refined")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 refined images in refined\n"
    assert "4.png: left out" in done.stderr
    written = [np.asarray(Image.open(place / "refined" / name))
               for name in ("1.png", "2.bmp.png", "more/3.png")]  # fmt: skip
    expected = refine_images(load_refiner(place / "refiner.pt").refiner, IMAGES)
    np.testing.assert_array_equal(np.stack(written), expected[..., 0])


def test_originals_are_never_replaced(renders: Path) -> None:
    done = run(renders.parent, "renders", "--refiner", "refiner.pt", "--to", "renders/refined")
    assert done.returncode == 2
    assert "name another" in done.stderr


def test_an_unknown_refiner_is_refused_in_a_sentence(renders: Path) -> None:
    done = run(renders.parent, "renders", "--refiner", "none", "--to", "refined")
    assert done.returncode == 2
    assert "no refiner none" in done.stderr
    assert "Traceback" not in done.stderr
