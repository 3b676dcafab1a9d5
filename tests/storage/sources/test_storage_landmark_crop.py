import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from source_samples import SAMPLES

from storage.errors import SourceError
from storage.sources.crop import Size, centre_box
from storage.sources.formats.arrays import ArraysOptions
from storage.sources.formats.folder import FolderOptions
from storage.sources.formats.mpiigaze import MPIIGazeOptions
from storage.sources.formats.syntheseyes import SynthesEyesOptions
from storage.sources.landmark_crop import crop_about_corners
from storage.sources.options import CroppedOptions


@dataclass(frozen=True)
class EndsOfTheOdd:
    """Stands for a landmark network: the ends of what differs from the image's usual level."""

    digest: str = "0" * 64

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        found = np.full((len(images), 5, 2), np.nan, np.float32)
        for row, image in enumerate(images):
            y, x, _ = np.nonzero(np.abs(image - np.median(image)) > 40)
            if len(x):
                found[row] = [[x.min(), y.mean()], [x.max(), y.mean()], *[[x.mean(), y.mean()]] * 3]
                found[row] += 0.5
        return found


def eye(left: int, right: int, row: int) -> NDArray[np.uint8]:
    """An image [40, 60, 1] with a bright line."""
    image = np.full((40, 60, 1), 100, np.uint8)
    image[row : row + 2, left : right + 1] = 250
    return image


def test_crops_are_centred_midway_between_the_corners_and_keep_their_size() -> None:
    frames = np.stack([eye(5, 35, 12), eye(20, 40, 25)])
    cropped = crop_about_corners(frames, EndsOfTheOdd(), Size(40, 60))
    for image, middle in zip(cropped.images, ((30, 20), (30, 20)), strict=True):
        y, x, _ = np.nonzero(image > 150)
        assert (x.mean() + 0.5, y.mean() + 0.5) == pytest.approx(middle, abs=0.6)
    assert cropped.boxes[:, 2:].tolist() == [[60, 40], [60, 40]]
    assert cropped.landmarks[:, :2].mean(axis=1) == pytest.approx(np.array([[30, 20]] * 2))


def test_an_image_without_corners_is_cut_in_its_middle_and_says_so() -> None:
    frames = np.stack([np.full((40, 60, 1), 90, np.uint8), eye(5, 35, 12)])
    cropped = crop_about_corners(frames, EndsOfTheOdd(), Size(20, 40))
    assert cropped.boxes[0].tolist() == list(centre_box(Size(40, 60), Size(20, 40)))
    assert np.isnan(cropped.landmarks[0]).all()
    assert np.isfinite(cropped.landmarks[1]).all()


def arrays(folder: Path) -> CroppedOptions:
    frames = np.stack([eye(5, 35, 12), np.full((40, 60, 1), 90, np.uint8)])
    pupil = np.array([[20.5, 12.5], [30.0, 20.0]], np.float32)
    np.savez(folder / "eyes.npz", image=frames, pupil=pupil)
    file = str(folder / "eyes.npz")
    return ArraysOptions(file=file, images="image", pupil="pupil", crop="landmarks", size=(20, 30))


def folder_of_images(folder: Path) -> CroppedOptions:
    for name, image in (("a", eye(5, 35, 12)), ("b", np.full((40, 60, 1), 90, np.uint8))):
        Image.fromarray(image[..., 0]).save(folder / f"{name}.png")
    (folder / "labels.csv").write_text("file,pupil_x,pupil_y\na.png,20.5,12.5\nb.png,30,20\n")
    return FolderOptions(folder=folder, crop="landmarks", size=(20, 30))


@pytest.mark.parametrize("make", [arrays, folder_of_images])
def test_labels_move_with_the_crop(make: Callable[[Path], CroppedOptions], tmp_path: Path) -> None:
    source = make(tmp_path).open_with(EndsOfTheOdd())
    block = source.read(0, 2)
    assert block.valid.all()
    assert block.labels["landmarks_px"][0, :2].mean(axis=0) == pytest.approx([15, 10], abs=0.3)
    assert block.labels["pupil_px"] == pytest.approx(np.array([[15, 10]] * 2), abs=0.3)
    assert np.isnan(block.labels["landmarks_px"][1]).all()
    assert source.options["landmarks"] == EndsOfTheOdd().digest
    assert {label.name for label in source.labels} == {"pupil_px", "landmarks_px"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("syntheseyes", lambda folder: SynthesEyesOptions(folder=folder, crop="landmarks")),
        ("mpiigaze-lists", lambda folder: MPIIGazeOptions(folder=folder, crop="landmarks")),
    ],
)
def test_formats_cut_by_what_is_found_in_their_images(
    name: str, options: Callable[[Path], CroppedOptions], tmp_path: Path
) -> None:
    SAMPLES[name].write(tmp_path)
    source = options(tmp_path).open_with(EndsOfTheOdd())
    whole = source.read(0, len(source))
    landmarks = whole.labels["landmarks_px"]
    known = np.isfinite(landmarks).all(axis=(1, 2))
    middle = np.array(source.image_shape[1::-1]) / 2
    assert (whole.valid & known).any()
    assert landmarks[known, :2].mean(axis=1) == pytest.approx(
        np.tile(middle, (known.sum(), 1)), abs=1e-3
    )
    # Row by row, and by another process's copy, the same.
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    for row in range(len(source)):
        one = copy.read(row, row + 1)
        assert np.array_equal(one.images[0], whole.images[row])
        assert np.array_equal(one.labels["landmarks_px"][0], landmarks[row], equal_nan=True)


def test_a_crop_by_landmarks_needs_somebody_who_finds_them(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="open_with"):
        arrays(tmp_path).open()


def test_a_model_without_the_crop_that_it_is_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give both"):
        FolderOptions(folder=tmp_path, landmarks=tmp_path / "model.pt")


def test_corners_of_a_file_and_of_the_network_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        ArraysOptions(file="a.npz", images="image", corners="corners", crop="landmarks")
