"""Wrong input: a sentence that says what to mend, exit code 2, and nothing left behind."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from storage.samples import SampleBlock
from storage.schema import GAZE, DatasetSpec, Domain
from storage.writer import DatasetWriter
from tasks.simulate import simulate_synthetic


def refused(simgan: Any, *words: object, target: Path | None = None) -> str:
    """Run a command that must be refused as wrong input; returns its last line."""
    done = simgan(*words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    if target is not None:
        assert not target.exists()
    said = [line for line in done.stderr.splitlines() if "temporary server" not in line]
    assert "Traceback" not in done.stderr
    return next(line for line in reversed(said) if line.startswith("error: "))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Five good pairs in UnityEyes' layout."""
    folder = tmp_path / "pairs"
    simulate_synthetic.fn(str(folder), 5, seed=1)
    return folder


def test_a_missing_folder(simgan: Any, tmp_path: Path) -> None:
    to = tmp_path / "d.zarr"
    said = refused(simgan, "ingest", "unityeyes", tmp_path / "nowhere", "--to", to, target=to)
    assert "nowhere" in said


def test_an_empty_folder(simgan: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    to = tmp_path / "d.zarr"
    refused(simgan, "ingest", "unityeyes", tmp_path / "empty", "--to", to, target=to)


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda folder: (folder / "2.jpg").unlink(), "the image file is missing"),
        (lambda folder: _truncate(folder / "2.jpg"), "image"),
        (
            lambda folder: _replace(folder / "2.json", '"look_vec": "(', '"look_vec": "(x'),
            "look_vec",
        ),
    ],
    ids=["json without its jpg", "truncated jpg", "malformed vector"],
)
def test_too_many_bad_pairs(
    simgan: Any, pairs: Path, tmp_path: Path, break_it: Any, reason: str
) -> None:
    break_it(pairs)
    to = tmp_path / "d.zarr"
    said = refused(simgan, "ingest", "unityeyes", pairs, "--to", to, target=to)
    assert "1 of 5 samples" in said
    assert reason in said


def test_a_bad_pair_among_many_is_reported_and_left_out(
    simgan: Any, pairs: Path, tmp_path: Path
) -> None:
    _truncate(pairs / "2.jpg")
    done = simgan("ingest", "unityeyes", pairs, "--to", tmp_path / "d.zarr", "--max-bad", "20%",
                  "--json")  # fmt: skip
    assert done.returncode == 0
    assert '"num_rejected": 1' in done.stdout


def test_a_mat_that_is_not_one(simgan: Any, tmp_path: Path) -> None:
    day = tmp_path / "MPIIGaze" / "Data" / "Normalized" / "p00" / "day01.mat"
    day.parent.mkdir(parents=True)
    day.write_bytes(b"not a mat file")
    to = tmp_path / "d.zarr"
    refused(simgan, "ingest", "mpiigaze", tmp_path / "MPIIGaze", "--subset", "all", "--to", to,
            target=to)  # fmt: skip


def test_an_h5_without_the_named_key(simgan: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "eyes.h5", "w") as file:
        file["image"] = np.zeros((3, 35, 55), np.uint8)
    to = tmp_path / "d.zarr"
    said = refused(simgan, "ingest", "arrays", tmp_path / "eyes.h5", "--images", "pictures", "--to",
                   to, target=to)  # fmt: skip
    assert "pictures" in said
    assert "image" in said


def test_a_label_of_another_length(simgan: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "eyes.h5", "w") as file:
        file["image"] = np.zeros((3, 35, 55), np.uint8)
        file["gaze"] = np.zeros((2, 3), np.float32)
    to = tmp_path / "d.zarr"
    said = refused(simgan, "ingest", "arrays", tmp_path / "eyes.h5", "--images", "image", "--gaze",
                   "gaze", "--to", to, target=to)  # fmt: skip
    assert "gaze" in said


def test_frames_of_two_sizes_are_cropped_to_one(simgan: Any, pairs: Path, tmp_path: Path) -> None:
    """UnityEyes' frame size is the user's choice; it is the stored size that must be one."""
    done = simgan("ingest", "unityeyes", pairs, "--to", tmp_path / "d.zarr", "--json")
    assert done.returncode == 0


def test_datasets_of_two_sizes(simgan: Any, tmp_path: Path) -> None:
    small = _dataset(tmp_path / "small.zarr", 35)
    large = _dataset(tmp_path / "large.zarr", 36, "real")
    said = refused(simgan, "train", "--synthetic", small, "--real", large)
    assert "height" in said
    assert "35" in said
    assert "36" in said


def test_datasets_of_two_preprocessings(simgan: Any, tmp_path: Path) -> None:
    plain = _dataset(tmp_path / "plain.zarr", 35)
    equalized = _dataset(tmp_path / "equalized.zarr", 35, "real", "equalize")
    assert "preprocess" in refused(simgan, "train", "--synthetic", plain, "--real", equalized)


def test_an_incomplete_dataset(simgan: Any, tmp_path: Path) -> None:
    whole = _dataset(tmp_path / "whole.zarr", 35, "real")
    DatasetWriter.open(str(tmp_path / "begun.zarr"), _spec(35))
    said = refused(simgan, "train", "--synthetic", tmp_path / "begun.zarr", "--real", whole)
    assert "begun.zarr" in said


def test_a_path_that_holds_something_else(simgan: Any, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("precious")
    refused(simgan, "ingest", "unityeyes", pairs, "--to", tmp_path / "taken")
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "precious"


def test_a_refiner_that_is_not_there(simgan: Any, tmp_path: Path) -> None:
    dataset, to = _dataset(tmp_path / "d.zarr", 35), tmp_path / "refined.zarr"
    said = refused(simgan, "refine", dataset, "--refiner", "refiner-000", "--to", to, target=to)
    assert "refiner-000" in said


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--synthetic", "a", "--real", "b", "--steps", -1),
        ("train", "--synthetic", "a", "--real", "b", "--preset", "best"),
        ("train", "--synthetic", "a"),
        ("no-such-command",),
        ("ingest", "unityeyes", "a", "--to", "b", "--max-bad", "lots"),
        ("ingest", "unityeyes", "a", "--to", "b", "--size", "big"),
    ],
)
def test_words_that_make_no_sense(simgan: Any, words: tuple[object, ...]) -> None:
    refused(simgan, *words)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _spec(height: int, domain: Domain = "synthetic", preprocess: Any = "none") -> DatasetSpec:
    return DatasetSpec(
        num_rows=4,
        height=height,
        width=55,
        channels=1,
        dtype="uint8",
        labels=(GAZE,),
        domain=domain,
        source={"name": "test"},
        preprocess=preprocess,
    )


def _dataset(
    path: Path, height: int, domain: Domain = "synthetic", preprocess: str = "none"
) -> Path:
    rng = np.random.default_rng(height)
    writer = DatasetWriter.open(str(path), _spec(height, domain, preprocess))
    block = SampleBlock(
        images=rng.integers(0, 256, (4, height, 55, 1)).astype(np.uint8),
        valid=np.ones(4, bool),
        ids=[str(row) for row in range(4)],
        labels={"gaze": np.tile(np.float32([0, 0, -1]), (4, 1))},
        rejections=(),
    )
    writer.write_shard(0, block)
    writer.finish()
    return path
