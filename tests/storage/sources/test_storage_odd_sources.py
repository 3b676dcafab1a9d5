"""Well-formed oddities of sources: each gives a dataset's rows or a sentence, never a traceback."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from source_samples import SAMPLES

from storage.errors import SourceError
from storage.manifest import block_digest
from storage.samples import concatenated
from storage.sources.formats.arrays import ArraysOptions
from storage.sources.formats.folder import FolderOptions
from storage.sources.source import Source

# What zarr says of fixed-width text, which others write all the same.
pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")

COMMON = settings(database=None, deadline=None)

TYPES = ["|u1", "<u2", ">u2", "<u4", "|i1", "<f4", "|b1", "<U3", "|S4"]
LABEL_TYPES = ["<f4", ">f8", "<f2", "<i4", ">i2", "|u1", "<c8", "<U3"]
names = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=40)
sides = st.sampled_from([1, 2, 3, 8, 35, 56])
sizes = st.none() | st.tuples(sides, sides)


def require_rows(source: Source) -> None:
    """Require what every source promises of its samples, however odd they are."""
    block = source.read(0, len(source))
    ids = source.ids(0, len(source))
    assert block.ids == ids
    assert len(set(ids)) == len(ids) > 0
    assert all(name and name.encode() for name in ids)
    assert block.images.shape == (len(ids), *source.image_shape)
    assert block.images.dtype == source.dtype
    assert set(block.labels) == {spec.name for spec in source.labels}
    rejected = [rejection.row for rejection in block.rejections]
    assert rejected == np.flatnonzero(~block.valid).tolist()
    assert all(rejection.reason for rejection in block.rejections)
    assert not block.images[~block.valid].any()
    middle = len(ids) // 2
    halves = [source.read(*part) for part in ((0, middle), (middle, len(ids))) if part[0] < part[1]]
    assert block_digest(concatenated(halves, len(ids))) == block_digest(block)


def write_arrays(kind: str, folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write arrays into a container as they are, order and all where it keeps that."""
    path = folder / f"a.{kind}"
    if kind == "h5":
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array.astype(object) if array.dtype.kind == "U" else array
    elif kind == "npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
    elif kind == "npy":
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    else:
        group = zarr.open_group(path, mode="w", zarr_format=2 if kind == "zarr2" else 3)
        for name, array in arrays.items():
            in_fortran_order = kind == "zarr2" and array.flags.f_contiguous
            order: Any = {"order": "F"} if in_fortran_order else {}
            group.create_array(name, data=np.ascontiguousarray(array), **order)
    return path


@st.composite
def containers(draw: Callable[..., Any]) -> tuple[str, dict[str, np.ndarray], Any]:
    """Draw images and labels of any type, order and length, and a size to cut them to."""
    seed = draw(st.integers(0, 99))
    values = np.random.default_rng(seed)
    num_rows = draw(st.integers(0, 5))
    order = draw(st.sampled_from("CF"))
    channels = draw(st.sampled_from([(), (1,), (3,), (2,), (4,)]))
    shape = (num_rows, draw(sides), draw(sides), *channels)

    def array(of: tuple[int, ...], kind: str) -> np.ndarray:
        numbers = values.normal(size=of) * (1 if np.dtype(kind).kind in "fc" else 50)
        return np.asarray(np.abs(numbers).astype(kind), order=order)

    arrays = {"images": array(shape, draw(st.sampled_from(TYPES)))}
    if draw(st.booleans()):
        rows = draw(st.sampled_from([num_rows, num_rows + 1]))
        arrays["gaze"] = array(
            (rows, draw(st.sampled_from([3, 3, 2, 4]))), draw(st.sampled_from(LABEL_TYPES))
        )
    if draw(st.booleans()):
        arrays["name"] = np.array(draw(st.lists(names, min_size=num_rows, max_size=num_rows)), "U")
    return draw(st.sampled_from(["h5", "npz", "npy", "zarr3", "zarr2"])), arrays, draw(sizes)


def try_arrays(drawn: tuple[str, dict[str, np.ndarray], Any]) -> None:
    kind, arrays, size = drawn
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = write_arrays(kind, Path(folder), arrays)
        except (TypeError, ValueError):  # the container has no such arrays
            return
        options = {"gaze": "gaze"} if "gaze" in arrays else {}
        if "name" in arrays:
            options["id"] = "name"
        try:
            source = ArraysOptions(file=str(path), images="images", size=size, **options).open()  # type: ignore[arg-type]
        except SourceError as error:
            assert str(error)  # noqa: PT017  any sentence will do
            return
        require_rows(source)


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV"]
SUFFIXES = ["png", "jpg", "JPEG", "bmp", "tiff", "TIF"]
CELLS = ["0.1", "-0.2", "1e-3", "", "nan", "inf", "ten", " 0.1 ", "0,1", "1e400", "π"]


def _csv(draw: Callable[..., Any], files: list[str]) -> bytes:
    """Return a table as spreadsheets write them: marks, ends of lines, quotes, more columns."""
    columns = draw(
        st.sampled_from(
            [
                ["file", "gaze_pitch", "gaze_yaw"],
                ["gaze_yaw", "file", "note", "gaze_pitch"],
                ["file", "gaze_x", "gaze_y", "gaze_z", "pupil_x", "pupil_y"],
                ["file", "gaze_pitch"],
                ["file", "gaze_pitch", "gaze_yaw", "gaze_yaw"],
                ["name", "gaze_pitch", "gaze_yaw"],
            ]
        )
    )
    listed = [*files[draw(st.integers(0, 1)) :], *draw(st.lists(names, max_size=2))]
    lines = [",".join(columns)]
    for name in listed:
        quoted = '"' + name.replace('"', '""') + '"'
        cells = (quoted if column == "file" else draw(st.sampled_from(CELLS)) for column in columns)
        lines.append(",".join(cells))
    end, mark = draw(st.sampled_from(["\n", "\r\n"])), draw(st.sampled_from(["", "\ufeff"]))
    return (mark + end.join(lines) + draw(st.sampled_from(["", end]))).encode()


@st.composite
def folders(draw: Callable[..., Any]) -> tuple[list[tuple[str, str, tuple[int, int]]], Any, Any]:
    """Draw images by name, mode and size, what to cut them to, and perhaps a table."""
    short = names.filter(lambda name: len(name.encode()) < 200)
    stems = draw(st.lists(short, min_size=1, max_size=4, unique=True))
    images = [
        (f"{stem}.{draw(st.sampled_from(SUFFIXES))}", draw(st.sampled_from(MODES)),
         (draw(sides), draw(sides)))
        for stem in stems
    ]  # fmt: skip
    table = _csv(draw, [name for name, *_ in images]) if draw(st.booleans()) else None
    return images, draw(sizes), table


def try_folder(drawn: tuple[list[tuple[str, str, tuple[int, int]]], Any, Any]) -> None:
    images, size, table = drawn
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, mode, shape in images:
            image = Image.effect_noise(shape, 60).convert("RGB")
            made = Image.new(mode, shape) if mode in ("I;16", "HSV") else image.convert(mode)
            try:
                made.save(folder / file)
            except (OSError, ValueError):  # the format has no such images, or left half of one
                continue
        if table is not None:
            (folder / "labels.csv").write_bytes(table)
        try:
            source = FolderOptions(folder=folder, size=size).open()
        except SourceError as error:
            assert str(error)  # noqa: PT017  any sentence will do
            return
        require_rows(source)


def _link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _not_utf_8(path: Path) -> None:
    path.rename(path.parent / os.fsdecode(b"\xff" + os.fsencode(path.name)))


ODDITIES: dict[str, Callable[[Path], object]] = {
    "link to itself": _link_to_itself,
    "link to nowhere": _link_to_nowhere,
    "folder": _folder_in_its_place,
    "pipe": _pipe,
    "not UTF-8": _not_utf_8,
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "capitals": lambda path: path.rename(path.with_name(path.name.upper())),
    "hidden": lambda path: path.rename(path.with_name(f".{path.name}")),
    "elsewhere": lambda path: path.rename(path.parent.parent / f"moved-{path.name}"),
    "beside": lambda path: (path.parent / "Thumbs.db").write_bytes(b"x"),
    "empty folder": lambda path: (path.parent / "empty").mkdir(exist_ok=True),
}


def try_sample(drawn: tuple[str, str, int]) -> None:
    name, oddity, number = drawn
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "files"
        folder.mkdir()
        SAMPLES[name].write(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if oddity == "pipe" and (folder / "eyes.zarr").exists():
            return  # zarr waits for whoever writes to one
        ODDITIES[oddity](files[number % len(files)])
        try:
            source = SAMPLES[name].open(folder)
        except SourceError as error:
            assert str(error)  # noqa: PT017  any sentence will do
            return
        require_rows(source)


samples = st.tuples(
    st.sampled_from(sorted(SAMPLES)), st.sampled_from(sorted(ODDITIES)), st.integers(0, 99)
)
OF_ALL_KINDS = st.one_of(
    containers().map(lambda drawn: (try_arrays, drawn)),
    folders().map(lambda drawn: (try_folder, drawn)),
    samples.map(lambda drawn: (try_sample, drawn)),
)


@settings(COMMON, max_examples=200, derandomize=True)
@given(drawn=OF_ALL_KINDS)
def test_odd_sources_give_rows_or_a_sentence(drawn: tuple[Callable[[Any], None], Any]) -> None:
    drawn[0](drawn[1])


@pytest.mark.drill
@pytest.mark.timeout(3600)
@settings(COMMON, max_examples=2000)
@given(drawn=OF_ALL_KINDS)
def test_thousands_of_odd_sources_give_rows_or_a_sentence(
    drawn: tuple[Callable[[Any], None], Any],
) -> None:
    drawn[0](drawn[1])
