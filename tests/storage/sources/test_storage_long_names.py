"""Names of 16 bytes and more: NumPy searches and compares arrays of them wrongly as StringDType."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import zarr
from PIL import Image

from storage.errors import SourceError
from storage.sources.formats.arrays import ArraysOptions
from storage.sources.formats.eye_gaze import EyeGazeOptions
from storage.sources.formats.folder import FolderOptions
from storage.sources.formats.mpiigaze import EyeArrays, MPIIGazeOptions, write_mpiigaze_day
from storage.sources.formats.nyu_hand import NyuHandOptions
from storage.sources.formats.syntheseyes import SynthesEyesOptions
from storage.sources.formats.unityeyes import UnityEyesOptions
from storage.sources.listing import Listing
from storage.sources.options import SourceOptions
from storage.sources.selection import new_places
from storage.sources.source import Source

NUM_NAMES = 300
# Long ones and short ones in turn, in no order: StringDType keeps the two in different places.
NAMES = [
    f"p{n * 7 % NUM_NAMES:03d}" + ("" if n % 5 == 0 else "_a-subject's-long-name-é" * (n % 3 + 1))
    for n in range(NUM_NAMES)
]


def grey(number: int) -> np.ndarray:
    return np.full((8, 8), number % 256, np.uint8)


def folder_of_images(folder: Path) -> Source:
    for number, name in enumerate(NAMES):
        Image.fromarray(grey(number)).save(folder / f"{name}.png")
    return FolderOptions(folder=folder).open()


def labelled_csv(folder: Path) -> Source:
    folder_of_images(folder)
    rows = "".join(f"{name}.png,{n / 1000},0.0\n" for n, name in enumerate(NAMES))
    (folder / "labels.csv").write_text(f"file,gaze_pitch,gaze_yaw\n{rows}")
    return FolderOptions(folder=folder).open()


def labelled_parquet(folder: Path) -> Source:
    folder_of_images(folder)
    pitch = np.arange(NUM_NAMES) / 1000
    columns = {"file": [f"{n}.png" for n in NAMES], "gaze_pitch": pitch, "gaze_yaw": 0 * pitch}
    pyarrow.parquet.write_table(pa.table(columns), folder / "labels.parquet")
    return FolderOptions(folder=folder).open()


def eye_gaze(folder: Path) -> Source:
    with h5py.File(folder / "gaze.h5", "w") as file:
        for number, name in enumerate(NAMES):
            file[f"image/{name}"] = grey(number)
    return EyeGazeOptions(file=folder / "gaze.h5").open()


def arrays(folder: Path, write: Callable[[Path, np.ndarray], object], file: str) -> Source:
    write(folder, np.stack([grey(number) for number in range(NUM_NAMES)]))
    return ArraysOptions(
        file=str(folder / file), images="images", id="name", person="person"
    ).open()


def arrays_h5(folder: Path) -> Source:
    def write(folder: Path, images: np.ndarray) -> None:
        with h5py.File(folder / "a.h5", "w") as file:
            file["images"], file["name"], file["person"] = images, NAMES, NAMES

    return arrays(folder, write, "a.h5")


def arrays_npz(folder: Path) -> Source:
    def write(folder: Path, images: np.ndarray) -> None:
        np.savez(folder / "a.npz", images=images, name=np.array(NAMES), person=np.array(NAMES))

    return arrays(folder, write, "a.npz")


def arrays_zarr(folder: Path) -> Source:
    def write(folder: Path, images: np.ndarray) -> None:
        group = zarr.open_group(folder / "a.zarr", mode="w")
        group["images"] = images
        for name in ("name", "person"):
            group.create_array(name, shape=(NUM_NAMES,), dtype=str)[:] = np.array(NAMES, object)

    return arrays(folder, write, "a.zarr")


def mpiigaze(folder: Path) -> Source:
    eyes = EyeArrays(
        np.stack([grey(number) for number in range(NUM_NAMES)]),
        np.tile([0.0, 0.0, -1.0], (NUM_NAMES, 1)),
        np.zeros((NUM_NAMES, 3)),
    )
    write_mpiigaze_day(folder, person="p00", day=1, filenames=NAMES, left=eyes, right=eyes)
    return MPIIGazeOptions(folder=folder, subset="all").open()


SOURCES = [folder_of_images, labelled_csv, labelled_parquet, eye_gaze, arrays_h5, arrays_npz,
           arrays_zarr, mpiigaze]  # fmt: skip


@pytest.mark.parametrize("make", SOURCES)
def test_every_long_name_keeps_its_own_image_and_label(
    make: Callable[[Path], Source], tmp_path: Path
) -> None:
    source = make(tmp_path)
    block = source.read(0, len(source))
    assert block.rejections == ()
    shown = {name: int(block.images[row].max()) for row, name in enumerate(block.ids)}
    assert len(shown) == len(source)
    for number, name in enumerate(NAMES):
        (found,) = {level for named, level in shown.items() if f"/{name}/" in f"/{_bare(named)}/"}
        assert found == number % 256
    if "gaze" in block.labels and make is not mpiigaze:
        pitch = dict(
            zip(map(_bare, block.ids), np.arcsin(-block.labels["gaze"][:, 1]), strict=True)
        )
        assert np.allclose([pitch[n] for n in NAMES], np.arange(NUM_NAMES) / 1000, atol=1e-6)


def _bare(name: str) -> str:
    return name.removesuffix(".png")


@pytest.mark.parametrize("make", SOURCES)
def test_none_of_the_long_names_is_new_where_all_are_known(
    make: Callable[[Path], Source], tmp_path: Path
) -> None:
    source = make(tmp_path)
    names = source.ids(0, len(source))
    assert len(new_places(source, names)) == 0
    assert new_places(source, names[:-2]).tolist() == [len(source) - 2, len(source) - 1]


def test_a_table_that_has_a_long_name_twice_is_refused(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    rows = "".join(f"{name}.png,0.1,0.0\n" for name in [*NAMES, NAMES[1]])
    (tmp_path / "labels.csv").write_text(f"file,gaze_pitch,gaze_yaw\n{rows}")
    with pytest.raises(SourceError, match="twice"):
        FolderOptions(folder=tmp_path).open()


@pytest.mark.parametrize("options", [SynthesEyesOptions, UnityEyesOptions, NyuHandOptions])
def test_listings_of_long_names_have_each_once_in_order(
    options: type[SourceOptions], tmp_path: Path
) -> None:
    """Both files of a pair come together, whichever order the folder has them in."""
    kinds: tuple[str, ...]
    names, kinds, given = NAMES, ("png", "pkl"), {"folder": tmp_path}
    if options is UnityEyesOptions:
        names, kinds = [str(10**15 + n * 7) for n in range(NUM_NAMES)], ("jpg", "json")
    if options is NyuHandOptions:
        names, kinds = [f"synthdepth_1_{n:09d}" for n in range(NUM_NAMES)], ("png",)
        given |= {"domain": "synthetic"}
    for name in names:
        for kind in kinds:
            (tmp_path / f"{name}.{kind}").touch()
    source = options(**given).open()
    assert source.ids(0, len(source)) == sorted(names)


def test_names_sort_by_their_text_whatever_their_length(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).touch()
    assert Listing(tmp_path, lambda name: (name, 0)).ids(0, NUM_NAMES) == sorted(NAMES)
