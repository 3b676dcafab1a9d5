"""MPIIGaze's folders, read and written."""

import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import loadmat

from storage.errors import SourceError
from storage.samples import SampleBlock
from storage.sources.crop import Size, centre_box, crop_and_resize
from storage.sources.formats.mpiigaze import (
    EyeArrays,
    MPIIGazeOptions,
    MPIIGazeSource,
    write_evaluation_list,
    write_mpiigaze_day,
)
from storage.sources.head_pose import from_rotation_vectors


def eyes(num_frames: int, seed: int) -> EyeArrays:
    random = np.random.default_rng(seed)
    gaze = random.normal(size=(num_frames, 3)) * [0.2, 0.2, 0.02] - [0, 0, 1]
    return EyeArrays(
        image=random.integers(0, 255, (num_frames, 36, 60), np.uint8),
        gaze=gaze / np.linalg.norm(gaze, axis=1, keepdims=True),
        pose=random.uniform(-0.3, 0.3, (num_frames, 3)),
    )


def write_day(root: Path, person: str, day: int, num_frames: int) -> None:
    names = [f"{frame + 1:04d}.jpg" for frame in range(num_frames)]
    left, right = eyes(num_frames, day), eyes(num_frames, 100 + day)
    write_mpiigaze_day(root, person=person, day=day, filenames=names, left=left, right=right)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two people; p00 has a day of three frames and one of a single frame."""
    root = tmp_path / "MPIIGaze"
    write_day(root, "p00", 1, 3)
    write_day(root, "p00", 2, 1)
    write_day(root, "p01", 1, 2)
    lines = ["day02/0001.jpg right", "day01/0003.jpg left", "day01/0001.jpg right"]
    write_evaluation_list(root, "p00", lines)
    write_evaluation_list(root, "p01", ["day01/0002.jpg left"])
    return root


def read_all(source: MPIIGazeSource) -> SampleBlock:
    return source.read(0, len(source))


def cropped(image: np.ndarray) -> np.ndarray:
    box = centre_box(Size(36, 60), Size(35, 55))
    return crop_and_resize(image[None, :, :, None], box, Size(35, 55))[0]


def test_the_evaluation_subset_comes_in_the_lists_order(tree: Path) -> None:
    block = read_all(MPIIGazeOptions(folder=tree).open())
    assert block.ids == [
        "p00/day02/0001/right",
        "p00/day01/0003/left",
        "p00/day01/0001/right",
        "p01/day01/0002/left",
    ]
    assert block.valid.all()


def test_a_left_eye_comes_as_it_is(tree: Path) -> None:
    block, expected = read_all(MPIIGazeOptions(folder=tree).open()), eyes(3, 1)
    assert np.array_equal(block.images[1], cropped(expected.image[2]))
    assert block.labels["gaze"][1] == pytest.approx(expected.gaze[2], abs=1e-6)
    pose = from_rotation_vectors(expected.pose[2:3])[0]
    assert block.labels["head_pose"][1] == pytest.approx(pose, abs=1e-6)


def test_a_right_eye_comes_mirrored_with_its_labels(tree: Path) -> None:
    block, expected = read_all(MPIIGazeOptions(folder=tree).open()), eyes(3, 101)
    assert np.array_equal(block.images[2], cropped(expected.image[0, :, ::-1]))
    assert block.labels["gaze"][2] == pytest.approx(expected.gaze[0] * [-1, 1, 1], abs=1e-6)
    pose = from_rotation_vectors(expected.pose[:1])[0] * [1, -1, -1]
    assert block.labels["head_pose"][2] == pytest.approx(pose, abs=1e-6)


def test_all_eyes_come_by_person_day_and_frame(tree: Path) -> None:
    source = MPIIGazeOptions(folder=tree, subset="all").open()
    assert len(source) == 12
    assert source.read(5, 9).ids == [
        "p00/day01/0003/right",
        "p00/day02/0001/left",
        "p00/day02/0001/right",
        "p01/day01/0001/left",
    ]


def test_a_block_is_the_same_rows_of_the_whole(tree: Path) -> None:
    source = MPIIGazeOptions(folder=tree, subset="all").open()
    whole, part = read_all(source), source.read(3, 10)
    assert part.ids == whole.ids[3:10]
    assert np.array_equal(part.images, whole.images[3:10])
    assert np.array_equal(part.labels["gaze"], whole.labels["gaze"][3:10])


def test_people_can_be_chosen(tree: Path) -> None:
    source = MPIIGazeOptions(folder=tree, people=["p01"]).open()
    assert read_all(source).ids == ["p01/day01/0002/left"]
    assert source.options["people"] == ["p01"]


def test_people_that_are_not_there_are_named(tree: Path) -> None:
    with pytest.raises(SourceError, match="no p07 among the people there: p00, p01"):
        MPIIGazeOptions(folder=tree, people=["p07"]).open()


def test_listed_samples_that_are_not_in_the_tree_are_no_rows(tree: Path) -> None:
    write_evaluation_list(tree, "p00", ["day09/0001.jpg left", "day01/0099.jpg left", "", "day01/0001.jpg left"])  # fmt: skip  # noqa: E501
    assert read_all(MPIIGazeOptions(folder=tree, people=["p00"]).open()).ids == [
        "p00/day01/0001/left"
    ]


def test_a_sample_listed_twice_is_two_rows_of_distinct_names(tree: Path) -> None:
    write_evaluation_list(tree, "p01", ["day01/0002.jpg left"] * 3)
    block = read_all(MPIIGazeOptions(folder=tree, people=["p01"]).open())
    assert block.ids == [f"p01/day01/0002/left{mark}" for mark in ("", "#2", "#3")]
    assert np.array_equal(block.images[0], block.images[2])


@pytest.mark.parametrize("line", ["../../x left", "day01/0001.jpg", "day01/../0001.jpg left", "\0"])
def test_a_line_that_is_none_is_rejected(tree: Path, line: str) -> None:
    write_evaluation_list(tree, "p01", ["day01/0001.jpg left", line])
    (rejection,) = read_all(MPIIGazeOptions(folder=tree, people=["p01"]).open()).rejections
    assert (rejection.row, rejection.id) == (1, "p01/line-2")
    assert "dayNN/NNNN.jpg" in rejection.reason


@pytest.mark.parametrize("content", [b"", b"no mat file", b"\0" * 200])
def test_rows_of_a_file_that_is_no_mat_file_are_rejected(tree: Path, content: bytes) -> None:
    (tree / "Data/Normalized/p00/day01.mat").write_bytes(content)
    block = read_all(MPIIGazeOptions(folder=tree).open())
    assert block.valid.tolist() == [True, False, False, True]
    assert {rejection.reason for rejection in block.rejections} == {
        "the day file cannot be read as a .mat file"
    }
    block = read_all(MPIIGazeOptions(folder=tree, subset="all").open())
    assert [rejection.id for rejection in block.rejections] == ["p00/day01"]


def test_an_hdf5_file_under_a_mat_name_is_rejected(tree: Path) -> None:
    with h5py.File(tree / "Data/Normalized/p00/day01.mat", "w", userblock_size=512) as file:
        file["data"] = [1]
    assert not read_all(MPIIGazeOptions(folder=tree).open()).valid[1]


def test_a_truncated_mat_file_is_rejected(tree: Path) -> None:
    path = tree / "Data/Normalized/p00/day01.mat"
    content = path.read_bytes()
    for keep in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:keep])
        block = read_all(MPIIGazeOptions(folder=tree).open())
        assert block.valid[[0, -1]].all()
        assert len(block.rejections) == (~block.valid).sum()


def test_a_mat_file_of_another_layout_is_rejected(tree: Path) -> None:
    flat = eyes(2, 1)._replace(gaze=np.zeros((2, 2)))
    write_mpiigaze_day(
        tree, person="p01", day=1, filenames=["0001.jpg", "0002.jpg"], left=flat, right=flat
    )
    (rejection,) = read_all(MPIIGazeOptions(folder=tree).open()).rejections
    assert rejection.reason == "the day file is not laid out as MPIIGaze's are"


@pytest.mark.parametrize("subset", ["evaluation", "all"])
def test_nothing_readable_is_an_error(tree: Path, subset: str) -> None:
    for path in tree.rglob("*.mat"):
        path.write_text("no mat file")
    with pytest.raises(SourceError, match=r"none of the 3 day files .* cannot be read"):
        MPIIGazeOptions(folder=tree, subset=subset).open()  # type: ignore[arg-type]


def test_a_gaze_that_is_no_direction_is_rejected(tree: Path) -> None:
    left = eyes(2, 1)
    left.gaze[1] = 0
    write_mpiigaze_day(
        tree, person="p01", day=1, filenames=["0001.jpg", "0002.jpg"], left=left, right=left
    )
    (rejection,) = read_all(MPIIGazeOptions(folder=tree).open()).rejections
    assert (rejection.id, rejection.reason) == ("p01/day01/0002/left", "the gaze is no direction")


def test_a_pose_that_is_not_known_is_no_reason_to_reject(tree: Path) -> None:
    blind = eyes(2, 1)._replace(pose=np.full((2, 3), np.nan))
    write_mpiigaze_day(
        tree, person="p01", day=1, filenames=["0001.jpg", "0002.jpg"], left=blind, right=blind
    )
    block = read_all(MPIIGazeOptions(folder=tree, people=["p01"]).open())
    assert block.valid.all()
    assert np.isnan(block.labels["head_pose"]).all()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        MPIIGazeOptions(folder=tmp_path / "nowhere").open()


def test_a_folder_of_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Data/Normalized"):
        MPIIGazeOptions(folder=tmp_path).open()
    (tmp_path / "Data/Normalized/p00").mkdir(parents=True)
    with pytest.raises(SourceError, match="no day file"):
        MPIIGazeOptions(folder=tmp_path).open()


def test_a_person_without_a_list_is_an_error(tree: Path) -> None:
    shutil.rmtree(tree / "Evaluation Subset")
    with pytest.raises(SourceError, match="--subset all"):
        MPIIGazeOptions(folder=tree).open()
    assert len(MPIIGazeOptions(folder=tree, subset="all").open()) == 12


def test_the_digest_follows_from_names_and_sizes(tree: Path, tmp_path: Path) -> None:
    digest = MPIIGazeOptions(folder=tree).open().content_digest()
    copy = shutil.copytree(tree, tmp_path / "copy")
    assert MPIIGazeOptions(folder=copy).open().content_digest() == digest
    write_day(copy, "p01", 1, 4)
    assert MPIIGazeOptions(folder=copy).open().content_digest() != digest


def test_it_can_be_pickled(tree: Path) -> None:
    source = pickle.loads(pickle.dumps(MPIIGazeOptions(folder=tree).open()))  # noqa: S301
    assert source.read(3, 4).ids == ["p01/day01/0002/left"]


def test_the_real_tree_is_read_days_of_one_frame_included(shared_data: Path) -> None:
    root = shared_data / "mpiigaze" / "MPIIGaze"
    source = MPIIGazeOptions(folder=root).open()
    block = read_all(source)
    assert len(source) == 146
    assert block.rejections == ()
    assert np.linalg.norm(block.labels["gaze"], axis=1) == pytest.approx(1)
    # By hand: a one-frame day through SciPy's own squeezing.
    for day in ("day13", "day01"):
        mat = loadmat(
            root / f"Data/Normalized/p00/{day}.mat", squeeze_me=True, struct_as_record=False
        )
        names = np.atleast_1d(mat["filenames"])
        for side, sign in (("left", 1), ("right", -1)):
            data = getattr(mat["data"], side)
            row = block.ids.index(f"p00/{day}/{names[0].removesuffix('.jpg')}/{side}")
            gaze, image = data.gaze.reshape(-1, 3)[0], data.image.reshape(-1, 36, 60)[0]
            assert block.labels["gaze"][row] == pytest.approx(gaze * [sign, 1, 1], abs=1e-6)
            assert np.array_equal(block.images[row], cropped(image[:, ::sign]))


def test_the_real_trees_left_eyes_are_those_of_the_arrays_file(shared_data: Path) -> None:
    block = read_all(MPIIGazeOptions(folder=shared_data / "mpiigaze" / "MPIIGaze").open())
    with h5py.File(shared_data / "mpiigaze" / "p00_left_eval.h5") as file:
        names = [f"p00/{name[:-4]}/left" for name in file["filename"].asstr()[:]]
        angles = dict(zip(names, file["gaze_pitchyaw"][:], strict=True))
    left = [row for row, name in enumerate(block.ids) if name.endswith("left")]
    assert len(left) == 73
    for row in left:
        x, y, z = block.labels["gaze"][row]
        assert [np.arcsin(-y), np.arctan2(-x, -z)] == pytest.approx(
            angles[block.ids[row]], abs=1e-4
        )
