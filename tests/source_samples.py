"""A small folder or file of every source format, whose labels can be found again in its images.

Every image shows a dark disc on grey: a pupil, moved from the middle to where the gaze goes; in
depth frames, a disc near the camera stands for the hand and lies round the one joint. A new source
adds itself to SAMPLES; the contract and the picture of its labels are then tested.
"""

import json
import pickle
import re
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import zarr
from PIL import Image

from storage.sources.formats.arrays import ArraysOptions
from storage.sources.formats.eye_gaze import EyeGazeOptions
from storage.sources.formats.folder import FolderOptions
from storage.sources.formats.mpiigaze import (
    EyeArrays,
    MPIIGazeOptions,
    write_evaluation_list,
    write_mpiigaze_day,
)
from storage.sources.formats.nyu_hand import NyuHandOptions
from storage.sources.formats.syntheseyes import SynthesEyesOptions
from storage.sources.formats.unityeyes import IRIS_WAY, UnityEyesOptions, write_unityeyes_pair
from storage.sources.head_pose import to_unityeyes
from storage.sources.source import Source

NUM_SAMPLES = 5
LIGHT, DARK = 180, 20
LOOKS = [np.array([x, y, -np.sqrt(1 - x * x - y * y)]) for x, y in
         [(0.3, 0.2), (-0.3, 0.2), (0.3, -0.2), (-0.3, -0.2), (0.0, 0.3)]]  # fmt: skip
"""Ours: x right, y down."""


def disc_image(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    """A dark disc on grey, uint8 [H, W], its edge smooth."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    share = np.clip(np.hypot(columns - x, rows - y) - radius + 0.5, 0, 1)
    return np.rint(DARK + (LIGHT - DARK) * share).astype(np.uint8)


def _circle(x: float, y: float, radius_x: float, radius_y: float, count: int) -> np.ndarray:
    angles = np.arange(count) * 2 * np.pi / count
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def _small_eyes() -> tuple[np.ndarray, np.ndarray]:
    """Images 35×55 and their pupils."""
    pupils = np.array([[27.5 + 20 * look[0], 17.5 + 20 * look[1]] for look in LOOKS])
    return np.stack([disc_image(35, 55, x, y, 4) for x, y in pupils]), pupils


def unityeyes(folder: Path) -> None:
    height, width = 120, 160
    for number, look in enumerate(LOOKS, 1):
        x, y = np.array([width, height]) / 2 + IRIS_WAY * height * look[:2]
        write_unityeyes_pair(
            folder,
            number,
            frame=disc_image(height, width, x, y, 8),
            look_vec_y_up=look * [1, -1, 1],
            head_pose_deg=to_unityeyes(np.array([0.1, 0.2, 0])),
            iris_px=_circle(x, y, 8, 8, 32),
            lid_margin_px=_circle(82, 61, 24, 10, 16),
            caruncle_px=_circle(55, 62, 3, 3, 7),
            details={},
        )


def syntheseyes(folder: Path) -> None:
    (folder / "f01").mkdir()
    for number, look in enumerate(LOOKS):
        x, y = 60 + 40 * look[0], 40 + 40 * look[1]
        frame = np.repeat(disc_image(80, 120, x, y, 9)[..., None], 3, axis=2)
        Image.fromarray(frame).convert("RGBA").save(folder / f"f01/f01_{number}_0.2_0.1.png")
        points = {
            "ldmks_pupil_2d": [tuple(map(float, p)) for p in _circle(x, y, 4, 4, 8)],
            "ldmks_iris_2d": [tuple(map(float, p)) for p in _circle(x, y, 9, 9, 8)],
            "ldmks_lids_2d": [tuple(map(float, p)) for p in _circle(60, 40, 30, 15, 12)],
        }
        document = {"ldmks": points, "look_vec": look.tolist(), "head_pose": np.eye(3).tolist()}
        (folder / f"f01/f01_{number}_0.2_0.1.pkl").write_bytes(pickle.dumps(document, 2))


def mpiigaze(folder: Path) -> None:
    images = np.stack([disc_image(36, 60, 30 + 20 * x, 18 + 20 * y, 5) for x, y, _ in LOOKS])
    eyes = EyeArrays(images, np.stack(LOOKS), np.full((NUM_SAMPLES, 3), 0.1))
    names = [f"{number:04d}.jpg" for number in range(NUM_SAMPLES)]
    write_mpiigaze_day(folder, person="p00", day=1, filenames=names, left=eyes, right=eyes)
    # A second file, so that one of them can be spoilt.
    write_mpiigaze_day(folder, person="p00", day=2, filenames=names, left=eyes, right=eyes)


def mpiigaze_lists(folder: Path) -> None:
    mpiigaze(folder)
    lines = [f"day{day:02d}/{number:04d}.jpg {side}" for side in ("left", "right")
             for day in (1, 2) for number in range(NUM_SAMPLES)]  # fmt: skip
    write_evaluation_list(folder, "p00", lines)


def eye_gaze(folder: Path) -> None:
    images, _ = _small_eyes()
    with h5py.File(folder / "gaze.h5", "w") as file:
        for number, (image, look) in enumerate(zip(images, LOOKS, strict=True)):
            file[f"image/{number}"] = image
            file[f"look_vec/{number}"] = np.append(look * [1, -1, 1], 0)
            file[f"path/{number}"] = f"imgs/{number}.jpg"


def arrays_h5(folder: Path) -> None:
    images, pupils = _small_eyes()
    with h5py.File(folder / "eyes.h5", "w") as file:
        file["image"], file["gaze"], file["pupil"] = images, np.stack(LOOKS), pupils


def arrays_npy(folder: Path) -> None:
    images, pupils = _small_eyes()
    named = {"image": images, "gaze": np.stack(LOOKS), "pupil": pupils}
    for name, array in named.items():
        np.save(folder / f"{name}.npy", array)


def arrays_npz(folder: Path) -> None:
    images, pupils = _small_eyes()
    np.savez_compressed(folder / "eyes.npz", image=images, gaze=np.stack(LOOKS), pupil=pupils)


def arrays_zarr(folder: Path) -> None:
    images, pupils = _small_eyes()
    group = zarr.open_group(folder / "eyes.zarr", mode="w")
    for name, array in {"image": images, "gaze": np.stack(LOOKS), "labels/pupil": pupils}.items():
        group.create_array(name, data=array, chunks=(2, *array.shape[1:]))


def folder_with_labels(folder: Path) -> None:
    images, pupils = _small_eyes()
    lines = ["file,gaze_x,gaze_y,gaze_z,pupil_x,pupil_y,weather"]
    for number, (image, look, pupil) in enumerate(zip(images, LOOKS, pupils, strict=True)):
        Image.fromarray(image).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{','.join(map(str, [*look, *pupil]))},fine")
    (folder / "labels.csv").write_text("\n".join(lines))


def folder_in_colour(folder: Path) -> None:
    """Reddish png, jpg and bmp with a table in parquet, in folders of their own."""
    images, pupils = _small_eyes()
    suffixes = ["png", "jpg", "bmp", "png", "bmp"]
    names = [f"{suffix}/{number}.{suffix}" for number, suffix in enumerate(suffixes)]
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        colour = np.stack([image, image // 2, image // 4], axis=2)
        Image.fromarray(colour).save(folder / name)
    pitch, yaw = np.array([(np.arcsin(-y), np.arctan2(-x, -z)) for x, y, z in LOOKS]).T
    columns = {"file": names, "gaze_pitch": pitch, "gaze_yaw": yaw}
    columns |= {"pupil_x": pupils[:, 0], "pupil_y": pupils[:, 1]}
    pyarrow.parquet.write_table(pa.table(columns), folder / "labels.parquet")


def folder_unlabelled(folder: Path) -> None:
    images, _ = _small_eyes()
    for number, image in enumerate(images):
        Image.fromarray(image.astype(np.uint16) * 257).save(folder / f"{number}.tiff")


def nyu_hand(folder: Path) -> None:
    lines = []
    for number, look in enumerate(LOOKS, 1):
        u, v = 320 + 150 * look[0], 240 + 150 * look[1]
        near = disc_image(480, 640, u + 0.5, v + 0.5, 60) < 100
        depth = np.where(near, 700, 2000)
        Image.fromarray(
            np.stack([np.zeros_like(depth), depth // 256, depth % 256], axis=2).astype(np.uint8)
        ).save(folder / f"depth_1_{number:07d}.png")
        lines.append(f"{u} {v} 700")
    (folder / "labels.txt").write_text("\n".join(lines))


def cut_short(name: str) -> Callable[[Path], object]:
    """Return how to leave the first 60 bytes of a file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:60])

    return spoil


def _drop(group: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        with h5py.File(folder / "gaze.h5", "a") as file:
            del file[group]

    return spoil


def _no_gaze(folder: Path) -> None:
    with h5py.File(folder / "eyes.h5", "a") as file:
        file["gaze"][2] = 0


def _no_gaze_npy(folder: Path) -> None:
    looks = np.load(folder / "gaze.npy")
    looks[2] = 0
    np.save(folder / "gaze.npy", looks)


def _no_gaze_npz(folder: Path) -> None:
    with np.load(folder / "eyes.npz") as file:
        arrays = dict(file)
    arrays["gaze"][2] = 0
    np.savez_compressed(folder / "eyes.npz", **arrays)


def _no_gaze_zarr(folder: Path) -> None:
    zarr.open_group(folder / "eyes.zarr", mode="a")["gaze"][2] = np.zeros(3)


def _stray_line(folder: Path) -> None:
    path = folder / "Evaluation Subset/sample list for eye image/p00.txt"
    path.write_text(path.read_text() + "../../secret.jpg left\n")


def _other_labels(folder: Path) -> None:
    path = folder / "3.json"
    document = json.loads(path.read_text())
    document["eye_details"]["look_vec"] = "(0.9000, 0.0000, -0.4359, 0.0000)"
    path.write_text(json.dumps(document))


@dataclass(frozen=True)
class Sample:
    """One of the formats."""

    write: Callable[[Path], object]
    """Write the files to an empty folder."""
    open: Callable[[Path], Source]
    spoil: Callable[[Path], object]
    """Spoil one sample, or one file of several."""
    reason: str
    """What is then said of it."""


SAMPLES = {
    "unityeyes": Sample(
        unityeyes,
        lambda folder: UnityEyesOptions(folder=folder).open(),
        _other_labels,
        "do not belong together",
    ),
    "syntheseyes": Sample(
        syntheseyes,
        lambda folder: SynthesEyesOptions(folder=folder).open(),
        cut_short("f01/f01_2_0.2_0.1.pkl"),
        "no pickle",
    ),
    "mpiigaze": Sample(
        mpiigaze,
        lambda folder: MPIIGazeOptions(folder=folder, subset="all").open(),
        cut_short("Data/Normalized/p00/day02.mat"),
        "cannot be read",
    ),
    "mpiigaze-lists": Sample(
        mpiigaze_lists,
        lambda folder: MPIIGazeOptions(folder=folder).open(),
        _stray_line,
        "the list's line is not",
    ),
    "eye-gaze": Sample(
        eye_gaze,
        lambda folder: EyeGazeOptions(file=folder / "gaze.h5").open(),
        _drop("look_vec/2"),
        "look_vec has no array",
    ),
    "arrays-h5": Sample(
        arrays_h5,
        lambda folder: ArraysOptions(
            file=str(folder / "eyes.h5"), images="image", gaze="gaze", pupil="pupil"
        ).open(),
        _no_gaze,
        "no direction",
    ),
    "arrays-npy": Sample(
        arrays_npy,
        lambda folder: ArraysOptions(
            file=str(folder), images="image", gaze="gaze", pupil="pupil"
        ).open(),
        _no_gaze_npy,
        "no direction",
    ),
    "arrays-npz": Sample(
        arrays_npz,
        lambda folder: ArraysOptions(
            file=str(folder / "eyes.npz"), images="image", gaze="gaze", pupil="pupil"
        ).open(),
        _no_gaze_npz,
        "no direction",
    ),
    "arrays-zarr": Sample(
        arrays_zarr,
        lambda folder: ArraysOptions(
            file=str(folder / "eyes.zarr"), images="image", gaze="gaze", pupil="labels/pupil"
        ).open(),
        _no_gaze_zarr,
        "no direction",
    ),
    "folder-csv": Sample(
        folder_with_labels,
        lambda folder: FolderOptions(folder=folder).open(),
        cut_short("2.png"),
        "does not decode",
    ),
    "folder-colour": Sample(
        folder_in_colour,
        lambda folder: FolderOptions(folder=folder, channels=3).open(),
        cut_short("bmp/2.bmp"),
        "does not decode",
    ),
    "folder-unlabelled": Sample(
        folder_unlabelled,
        lambda folder: FolderOptions(folder=folder).open(),
        cut_short("2.tiff"),
        "does not decode",
    ),
    "nyu-hand": Sample(
        nyu_hand,
        lambda folder: NyuHandOptions(folder=folder, labels=folder / "labels.txt").open(),
        cut_short("depth_1_0000003.png"),
        "does not decode",
    ),
}


def _documented() -> Sample:
    """The example of docs/how-to/own-source.md, executed as it stands there."""
    page = Path(__file__).resolve().parents[1] / "docs/how-to/own-source.md"
    code = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    # A module, so that its class can be pickled.
    module = types.ModuleType("documented_source")
    sys.modules[module.__name__] = module
    exec("\n".join(code), vars(module))
    sample = vars(module)["SAMPLE"]
    assert isinstance(sample, Sample)
    return sample


SAMPLES["documented"] = _documented()
