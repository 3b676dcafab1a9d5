"""Files of named arrays."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from storage.errors import SourceError
from storage.sources.formats.arrays import ArraysOptions

NUM_ROWS = 20
RANDOM = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "image": RANDOM.integers(0, 255, (NUM_ROWS, 36, 60), np.uint8),
    "depth": RANDOM.integers(0, 60_000, (NUM_ROWS, 8, 10), np.uint16),
    "colour": RANDOM.integers(0, 255, (NUM_ROWS, 8, 10, 3), np.uint8),
    "look_vec": RANDOM.normal(size=(NUM_ROWS, 3)),
    "angles": RANDOM.uniform(-1, 1, (NUM_ROWS, 2)),
    "pupil": RANDOM.uniform(10, 30, (NUM_ROWS, 2)),
    "corners": RANDOM.uniform((5, 10), (55, 25), (NUM_ROWS, 2, 2)),
    "short": np.zeros((NUM_ROWS - 1, 3)),
    "name": np.array([f"eye/{row}" for row in range(NUM_ROWS)]),
    "bytes": np.array([f"é{row}".encode() for row in range(NUM_ROWS)]),
    "number": np.arange(100, 100 + NUM_ROWS),
    "whose": np.array(["anna"] * (NUM_ROWS - 2) + ["p03", "x/y"]),
    "twins": np.array(["a", *(str(row) for row in range(NUM_ROWS - 2)), "a"]),
    "floats": np.zeros((NUM_ROWS, 8, 10)),
    "empty": np.zeros((0, 8, 10), np.uint8),
}


@pytest.fixture(params=["eyes.h5", "eyes.npz"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    write(path, ARRAYS)
    return path


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array.astype(h5py.string_dtype()) if array.dtype.kind == "U" else array


def test_pixels_of_the_other_order_of_bytes_are_turned(tmp_path: Path) -> None:
    np.save(tmp_path / "depth.npy", ARRAYS["depth"].astype(">u2"))
    block = ArraysOptions(file=str(tmp_path), images="depth").open().read(0, NUM_ROWS)
    assert block.images.dtype == np.dtype("uint16")
    assert np.array_equal(block.images[..., 0], ARRAYS["depth"])


def test_images_come_as_they_are_without_a_size(file: Path) -> None:
    source = ArraysOptions(file=str(file), images="image").open()
    block = source.read(0, NUM_ROWS)
    assert source.image_shape == (36, 60, 1)
    assert np.array_equal(block.images[..., 0], ARRAYS["image"])
    assert block.labels == {}
    assert block.valid.all()


def test_names_are_row_numbers_without_a_key(file: Path) -> None:
    assert ArraysOptions(file=str(file), images="image").open().read(5, 8).ids == ["5", "6", "7"]


@pytest.mark.parametrize(
    ("key", "expected"), [("name", "eye/3"), ("bytes", "é3"), ("number", "103")]
)
def test_names_are_text_or_whole_numbers(file: Path, key: str, expected: str) -> None:
    assert ArraysOptions(file=str(file), images="image", id=key).open().read(3, 4).ids == [expected]


@pytest.mark.parametrize(
    ("person", "row", "expected"),
    [
        ("whose", 3, "person-anna/eye/3"),
        ("whose", 18, "p03/eye/18"),
        ("whose", 19, "person-x-y/eye/19"),
        ("number", 3, "p103/eye/3"),
    ],
)
def test_names_begin_with_whose_images_they_are(
    file: Path, person: str, row: int, expected: str
) -> None:
    source = ArraysOptions(file=str(file), images="image", id="name", person=person).open()
    assert source.ids(row, row + 1) == [expected]


@pytest.mark.parametrize(("key", "channels"), [("depth", 1), ("colour", 3)])
def test_depth_and_colour_are_kept(file: Path, key: str, channels: int) -> None:
    source = ArraysOptions(file=str(file), images=key).open()
    images = source.read(2, 9).images
    assert source.image_shape == (8, 10, channels)
    assert images.dtype == source.dtype == ARRAYS[key].dtype
    assert np.array_equal(images, ARRAYS[key][2:9].reshape(7, 8, 10, channels))


def test_gaze_vectors_come_at_unit_length(file: Path) -> None:
    gaze = (
        ArraysOptions(file=str(file), images="image", gaze="look_vec")
        .open()
        .read(0, NUM_ROWS)
        .labels["gaze"]
    )
    lengths = np.linalg.norm(ARRAYS["look_vec"], axis=1, keepdims=True)
    assert gaze == pytest.approx(ARRAYS["look_vec"] / lengths, abs=1e-6)
    assert gaze.dtype == np.float32


def test_gaze_with_y_up_is_turned_over(file: Path) -> None:
    down = (
        ArraysOptions(file=str(file), images="image", gaze="look_vec")
        .open()
        .read(0, 5)
        .labels["gaze"]
    )
    up = (
        ArraysOptions(file=str(file), images="image", gaze="look_vec", y_up=True)
        .open()
        .read(0, 5)
        .labels["gaze"]
    )
    assert np.array_equal(up, down * [1, -1, 1])


def test_gaze_angles_become_the_vectors_that_have_them(file: Path) -> None:
    source = ArraysOptions(file=str(file), images="image", gaze_pitchyaw="angles").open()
    x, y, z = source.read(0, NUM_ROWS).labels["gaze"].T
    angles = np.stack([np.arcsin(-y), np.arctan2(-x, -z)], axis=1)
    assert angles == pytest.approx(ARRAYS["angles"], abs=1e-6)


@pytest.mark.parametrize("num_angles", [2, 3])
def test_head_poses_are_read_and_a_roll_that_is_not_given_is_not_known(
    tmp_path: Path, num_angles: int
) -> None:
    poses = np.linspace(-0.5, 0.5, 4 * num_angles).reshape(4, num_angles)
    poses[1] = np.nan
    write(tmp_path / "a.npz", {"image": ARRAYS["image"][:4], "pose": poses})
    source = ArraysOptions(file=str(tmp_path / "a.npz"), images="image", head_pose="pose").open()
    block = source.read(0, 4)
    assert block.valid.all()
    found = block.labels["head_pose"]
    np.testing.assert_array_equal(found[:, :num_angles], poses.astype(np.float32))
    assert np.isnan(found[:, num_angles:]).all()


def test_pupils_move_with_the_crop(file: Path) -> None:
    source = ArraysOptions(file=str(file), images="image", pupil="pupil", size=(35, 55)).open()
    block = source.read(0, NUM_ROWS)
    # The centre crop is 36 high and 36·55/35 wide; a pixel of it is 35/36 of one of the result.
    expected = (ARRAYS["pupil"] - [(60 - 36 * 55 / 35) / 2, 0]) * 35 / 36
    assert block.images.shape == (NUM_ROWS, 35, 55, 1)
    assert block.labels["pupil_px"] == pytest.approx(expected, abs=1e-4)


def test_crops_are_centred_midway_between_the_corners(tmp_path: Path) -> None:
    # A dark pupil lies midway between the corners of each image.
    images = np.full((3, 36, 60), 200, np.uint8)
    middles = np.array([(20, 14), (30, 18), (41, 21)])
    for image, (x, y) in zip(images, middles, strict=True):
        image[y - 1 : y + 1, x - 1 : x + 1] = 0
    corners = middles[:, None] + np.array([[-15.0, 3.0], [15.0, -3.0]])
    corners[2, 0] = np.nan
    write(tmp_path / "a.npz", {"image": images, "corners": corners, "pupil": middles * 1.0})
    source = ArraysOptions(
        file=str(tmp_path / "a.npz"),
        images="image",
        corners="corners",
        pupil="pupil",
        size=(18, 30),
    )
    block = source.open().read(0, 3)
    assert block.valid.tolist() == [True, True, False]
    assert [each.reason for each in block.rejections] == ["the eye corners are not known"]
    assert block.labels["pupil_px"][:2] == pytest.approx(np.array([(15, 9)] * 2))
    np.testing.assert_array_equal(block.images[0], block.images[1])
    dark = np.argwhere(block.images[0, ..., 0] < 200) + 0.5
    assert dark.mean(axis=0) == pytest.approx((9, 15))


def test_a_gaze_that_is_no_direction_is_rejected(tmp_path: Path) -> None:
    gaze = np.ones((4, 3))
    gaze[1], gaze[2, 0] = 0, np.nan
    write(tmp_path / "a.npz", {"image": ARRAYS["image"][:4], "gaze": gaze})
    block = (
        ArraysOptions(file=str(tmp_path / "a.npz"), images="image", gaze="gaze").open().read(0, 4)
    )
    assert block.valid.tolist() == [True, False, False, True]
    assert [rejection.row for rejection in block.rejections] == [1, 2]
    assert not block.images[1].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "img"}, "no array 'img'; there are: angles, bytes, colour"),
        ({"images": "floats"}, r"uint8 or uint16 \[N, H, W\].*got float64 \[20, 8, 10\]"),
        ({"images": "number"}, "got int64"),
        ({"images": "empty"}, "has no rows"),
        ({"images": "image", "gaze": "short"}, "has 19 rows, images 'image' has 20"),
        ({"images": "image", "gaze": "angles"}, r"must be numbers \[N, 3\].*\[20, 2\]"),
        ({"images": "image", "gaze": "name"}, r"must be numbers \[N, 3\]"),
        ({"images": "image", "pupil": "nothing"}, "no array 'nothing'"),
        ({"images": "image", "corners": "pupil"}, r"must be numbers \[N, 2, 2\].*\[20, 2\]"),
        ({"images": "image", "id": "pupil"}, "must be text or whole numbers"),
        ({"images": "image", "id": "short"}, "must be text or whole numbers"),
        ({"images": "image", "person": "pupil"}, "person 'pupil' must be text or whole numbers"),
        ({"images": "image", "id": "twins"}, "has 'a' 2 times"),
        ({"images": "image", "gaze": "look_vec", "gaze_pitchyaw": "angles"}, "not both"),
        ({"images": "image", "gaze_pitchyaw": "pupil"}, "radians"),
        ({"images": "image", "head_pose": "pupil"}, "head_pose 'pupil' must be in radians"),
        (
            {"images": "image", "head_pose": "corners"},
            r"head_pose 'corners' must be numbers \[N, 3\].*\[20, 2, 2\]",
        ),
        ({"images": "image", "y_up": True}, "y_up"),
    ],
)
def test_what_does_not_fit_is_an_error(file: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArraysOptions(file=str(file), **options).open()


def test_images_of_several_sizes_are_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", (4,), h5py.vlen_dtype(np.uint8))
    with pytest.raises(SourceError, match="all of one size; got object"):
        ArraysOptions(file=str(tmp_path / "a.h5"), images="image").open()
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros((2, 2)), np.zeros((3, 3))]
    np.savez(tmp_path / "a.npz", image=ragged)
    with pytest.raises(SourceError, match="Object arrays cannot be loaded"):
        ArraysOptions(file=str(tmp_path / "a.npz"), images="image").open()


def test_a_group_is_no_array(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image/0"] = ARRAYS["image"][0]
    with pytest.raises(SourceError, match="no array 'image'; there are: image/0"):
        ArraysOptions(file=str(tmp_path / "a.h5"), images="image").open()


@pytest.mark.parametrize("name", ["a.h5", "a.npz"])
def test_a_file_of_something_else_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("something else")
    with pytest.raises(SourceError, match="is damaged, or no"):
        ArraysOptions(file=str(tmp_path / name), images="image").open()


def test_a_damaged_file_is_an_error(file: Path) -> None:
    source = ArraysOptions(file=str(file), images="image").open()
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(SourceError, match="is damaged, or no"):
        pickle.loads(pickle.dumps(source)).read(0, NUM_ROWS)  # noqa: S301


def test_a_missing_file_and_another_format_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file"):
        ArraysOptions(file=str(tmp_path / "a.h5"), images="image").open()
    (tmp_path / "a.csv").touch()
    with pytest.raises(SourceError, match=r"neither \.h5, \.npz"):
        ArraysOptions(file=str(tmp_path / "a.csv"), images="image").open()


def test_the_digest_follows_from_the_content(file: Path, tmp_path: Path) -> None:
    digest = ArraysOptions(file=str(file), images="image").open().content_digest()
    copy = Path(shutil.copyfile(file, tmp_path / f"copy{file.suffix}"))
    assert ArraysOptions(file=str(copy), images="image").open().content_digest() == digest
    changed = {**ARRAYS, "image": ARRAYS["image"] + np.uint8(1)}
    write(copy, changed)
    assert ArraysOptions(file=str(copy), images="image").open().content_digest() != digest


def test_it_can_be_pickled(file: Path) -> None:
    source = ArraysOptions(file=str(file), images="image").open()
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert np.array_equal(copy.read(1, 3).images, source.read(1, 3).images)


def test_the_real_files_are_read(shared_data: Path) -> None:
    synthetic = ArraysOptions(
        file=str(shared_data / "syntheseyes/syntheseyes_35x55.h5"),
        images="image",
        gaze="look_vec",
        pupil="pupil_2d",
        id="name",
        size=(35, 55),
    ).open()
    block = synthetic.read(0, 300)
    assert len(synthetic) == 11_382
    assert block.ids[0] == "f01/f01_1002_0.1963_0.3927"
    dark = [block.images[n, int(y), int(x), 0] for n, (x, y) in enumerate(block.labels["pupil_px"])]
    assert np.mean(dark) < block.images.mean() / 2
    real = ArraysOptions(
        file=str(shared_data / "mpiigaze/p00_left_eval.h5"),
        images="image",
        gaze_pitchyaw="gaze_pitchyaw",
        domain="real",
        size=(35, 55),
    ).open()
    block = real.read(0, 1500)
    assert block.images.shape == (1500, 35, 55, 1)
    assert np.linalg.norm(block.labels["gaze"], axis=1) == pytest.approx(1)
