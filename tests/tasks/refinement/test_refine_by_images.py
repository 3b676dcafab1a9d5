"""Datasets refined by another program's images: a folder with one for each row."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.errors import SourceError
from storage.reader import open_dataset
from storage.schema import DatasetInfo
from tasks.refinement.refine import finish_refinement, plan_refinement, refine_shards
from tests.refinement_inputs import make_synthetic

NUM_ROWS, ROWS_PER_SHARD, BAD_ROW = 40, 16, 21


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("inputs") / "synthetic.zarr")
    make_synthetic(url, NUM_ROWS, ROWS_PER_SHARD, (BAD_ROW,))
    return url


@pytest.fixture
def theirs(synthetic: str, tmp_path: Path) -> Path:
    """Half as bright images of all valid rows, "eye/7" as eye/7.png."""
    return write_images(synthetic, tmp_path / "theirs", lambda images: images // 2)


def write_images(
    synthetic: str, folder: Path, change: Callable[[np.ndarray], np.ndarray], suffix: str = ".png"
) -> Path:
    block = open_dataset(synthetic).load()
    for name, image in zip(block.ids, change(block.images), strict=True):
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0]).save(path)
    return folder


def refined(synthetic: str, folder: Path, to: Path, *, gate: float | None = None) -> DatasetInfo:
    """Refine as the flow does."""
    plan = plan_refinement.fn(synthetic, str(folder), str(to), gate_shift_px=gate)
    for group in plan.groups:
        refine_shards.fn(group, synthetic, str(folder), str(to))
    return finish_refinement.fn(str(to))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_every_valid_row_has_its_own_image_and_all_else_is_copied(
    synthetic: str, tmp_path: Path, suffix: str
) -> None:
    folder = write_images(synthetic, tmp_path / "theirs", lambda images: images // 2, suffix)
    info = refined(synthetic, folder, tmp_path / "r")
    before = open_dataset(synthetic).read(0, NUM_ROWS)
    after = open_dataset(str(tmp_path / "r")).read(0, NUM_ROWS)
    assert np.array_equal(after.images, before.images // 2)
    assert after.ids == before.ids
    assert after.rejections == before.rejections
    assert np.array_equal(after.labels["pupil_px"], before.labels["pupil_px"])
    assert (info.spec.domain, info.num_valid) == ("refined", NUM_ROWS - 1)


def test_colours_of_grey_images_and_images_of_bad_rows_are_no_fault(
    synthetic: str, theirs: Path, tmp_path: Path
) -> None:
    for path in theirs.glob("eye/*.png"):
        Image.open(path).convert("RGB").save(path)
    Image.new("L", (55, 35)).save(theirs / f"eye/{BAD_ROW}.png")
    refined(synthetic, theirs, tmp_path / "r")
    before, after = (open_dataset(url).load().images for url in (synthetic, str(tmp_path / "r")))
    assert np.array_equal(after, before // 2)


def test_the_gate_rejects_images_whose_pupils_moved(synthetic: str, tmp_path: Path) -> None:
    folder = write_images(synthetic, tmp_path / "theirs", lambda images: np.roll(images, 3, axis=2))
    assert refined(synthetic, folder, tmp_path / "r", gate=1.5).num_rejected > NUM_ROWS / 2


def test_the_id_follows_from_the_pixels_files_not_from_the_folder(
    synthetic: str, theirs: Path, tmp_path: Path
) -> None:
    first = refined(synthetic, theirs, tmp_path / "first")
    moved = shutil.move(theirs, tmp_path / "moved")
    assert refined(synthetic, Path(moved), tmp_path / "again").digest == first.digest
    darker = write_images(synthetic, tmp_path / "darker", lambda images: images // 3)
    other = refined(synthetic, darker, tmp_path / "other").spec.provenance
    assert str(other["refiner"]).startswith("images-")
    assert other["refiner"] != first.spec.provenance["refiner"]


def test_an_interrupted_refinement_ends_with_the_same_digest(
    synthetic: str, theirs: Path, tmp_path: Path
) -> None:
    whole, to = refined(synthetic, theirs, tmp_path / "whole"), str(tmp_path / "parts")
    plan_refinement.fn(synthetic, str(theirs), to)
    refine_shards.fn([1], synthetic, str(theirs), to)
    assert plan_refinement.fn(synthetic, str(theirs), to).groups == [[0, 2]]
    assert refined(synthetic, theirs, Path(to)).digest == whole.digest


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "eye/3.png").unlink(),
         "theirs lacks the image of 1 rows: eye/3; write one for each valid row, named by its id"),
        (lambda folder: shutil.copy(folder / "eye/3.png", folder / "sheet.png"),
         "holds 1 images that belong to no row of the dataset: sheet.png; remove them, or name"),
        (lambda folder: Image.new("L", (60, 36)).save(folder / "eye/3.png"),
         r"holds 1 images that are not 35x55 pixels .*: eye/3.png \(36x60 pixels of 8 bits, exp"),
        (lambda folder: Image.fromarray(np.zeros((35, 55), np.uint16)).save(folder / "eye/3.png"),
         r"eye/3.png \(35x55 pixels of 16 bits, expected 35x55 of 8\); write the refined images"),
        (lambda folder: (folder / "eye/3.png").write_bytes(b"no image"),
         r"eye/3.png \(the image file does not decode\)"),
        (lambda folder: shutil.copy(folder / "eye/3.png", folder / "eye/3.bmp"),
         "eye/3.bmp and eye/3.png could each be the image of row 'eye/3'; keep one of them"),
        (lambda folder: shutil.rmtree(folder / "eye"), "theirs holds no image; expected .bmp"),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_refused_in_a_sentence(
    synthetic: str, theirs: Path, tmp_path: Path, break_it: Callable[[Path], object], said: str
) -> None:
    break_it(theirs)
    with pytest.raises(SourceError, match=said):
        refined(synthetic, theirs, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_images_changed_after_the_start_are_refused(
    synthetic: str, theirs: Path, tmp_path: Path
) -> None:
    plan_refinement.fn(synthetic, str(theirs), str(tmp_path / "r"))
    Image.new("L", (55, 35)).save(theirs / "eye/3.png")
    with pytest.raises(ValueError, match="names other weights"):
        refine_shards.fn([0], synthetic, str(theirs), str(tmp_path / "r"))
