"""The script examples/refine_folder.py on a folder of rendered eyes."""

import runpy
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


def test_every_image_is_refined_under_its_name_and_bad_ones_are_named(renders: Path) -> None:
    place = renders.parent
    words = ("renders", "--refiner", "refiner.pt", "--to", "refined")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        cwd=place,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 refined images in refined\n"
    assert "4.png: left out" in done.stderr
    written = [np.asarray(Image.open(place / "refined" / name))
               for name in ("1.png", "2.bmp.png", "more/3.png")]  # fmt: skip
    expected = refine_images(load_refiner(place / "refiner.pt").refiner, IMAGES)
    np.testing.assert_array_equal(np.stack(written), expected[..., 0])


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the script in this process; returns its exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    return runpy.run_path(str(SCRIPT))["main"]()


def test_originals_are_never_replaced(
    renders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("renders", "--refiner", "refiner.pt", "--to", "renders/refined")
    assert refused(renders.parent, monkeypatch, *words) == 2
    assert "name another" in capsys.readouterr().err


def test_an_unknown_refiner_is_refused_in_a_sentence(
    renders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("renders", "--refiner", "none", "--to", "refined")
    assert refused(renders.parent, monkeypatch, *words) == 2
    assert "no refiner none" in capsys.readouterr().err
