"""The real files read right: their numbers against numbers worked out by hand."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from storage.sources.formats.mpiigaze import MPIIGazeOptions
from storage.sources.formats.nyu_hand import NyuHandOptions
from storage.sources.formats.syntheseyes import SynthesEyesOptions

# UnityEyes' files are in test_storage_unityeyes.py.


def test_syntheseyes_one_pair_by_hand(shared_data: Path) -> None:
    """f01_1250: the frame is 120×80, the crop 120 wide and 120·35/55 = 76.3636 high."""
    source = SynthesEyesOptions(folder=shared_data / "syntheseyes/raw").open()
    row = source.ids(0, len(source)).index("f01/f01_1250_0.1963_-0.5890")
    block = source.read(row, row + 1)
    assert block.labels["gaze"][0] == pytest.approx([0.59074, -0.14782, -0.79322], abs=1e-4)
    scale = 55 / 120
    top = (80 - 120 * 35 / 55) / 2
    # The first points of pupil's, iris' and lids' contours in the file.
    assert block.labels["iris_px"][0, 0] == pytest.approx(
        [56.91143 * scale, (27.80744 - top) * scale], abs=1e-3
    )
    assert block.labels["lid_px"][0, 0] == pytest.approx(
        [28.06438 * scale, (47.14315 - top) * scale], abs=1e-3
    )


def test_syntheseyes_crops_about_the_corners_are_as_wide_as_the_frame(shared_data: Path) -> None:
    by_crop = [
        SynthesEyesOptions(folder=shared_data / "syntheseyes/raw", crop=crop).open().read(0, 40)
        for crop in ("frame", "corners")
    ]
    lids = [block.labels["lid_px"] for block in by_crop]
    # Rows 0 to 29 are of head f01, 30 to 39 of f02, whose inner corners end further to the nose.
    tips = np.where(np.arange(40)[:, None] < 30, (-8, 3), (-15, 4)) * 55 / 120
    middles = (lids[1][:, 0] + tips + lids[1][:, 6]) / 2
    assert middles == pytest.approx(np.full((40, 2), (27.5, 17.5)), abs=1e-3)
    widths = [np.ptp(each[..., 0], axis=1) for each in lids]
    assert widths[1] == pytest.approx(widths[0], abs=1e-3)


def test_all_syntheseyes_pairs_agree_with_the_published_extract(shared_data: Path) -> None:
    source = SynthesEyesOptions(folder=shared_data / "syntheseyes/raw").open()
    block = source.read(0, len(source))
    assert (len(block), len(block.rejections)) == (300, 0)
    with h5py.File(shared_data / "syntheseyes/syntheseyes_35x55.h5") as file:
        places = {name.decode(): place for place, name in enumerate(file["name"][:])}
        rows = np.array([places[name] for name in block.ids])
        assert block.labels["gaze"] == pytest.approx(file["look_vec"][:][rows], abs=1e-5)
        assert block.labels["pupil_px"] == pytest.approx(file["pupil_2d"][:][rows], abs=1e-4)
        # Pillow's box filter takes whole pixels only, ours their shares.
        apart = block.images[..., 0].astype(int) - file["image"][:][rows]
    assert np.abs(apart).mean() < 1.5
    assert abs(apart.mean()) < 0.5


def test_one_syntheseyes_pixel_by_hand(shared_data: Path) -> None:
    """The crop's first pixel covers x 0…2.1818, y 1.8182…4 of the frame."""
    source = SynthesEyesOptions(folder=shared_data / "syntheseyes/raw").open()
    row = source.ids(0, len(source)).index("f01/f01_1250_0.1963_-0.5890")
    path = shared_data / "syntheseyes/raw/f01/f01_1250_0.1963_-0.5890.png"
    grey = np.asarray(Image.open(path).convert("RGB").convert("L")).astype(float)
    across = np.array([1, 1, 2.181818 - 2])
    down = np.array([2 - 1.818182, 1, 1])
    expected = (down @ grey[1:4, :3] @ across) / (2.181818 * 2.181818)
    assert source.read(row, row + 1).images[0, 0, 0, 0] == round(expected)


def test_syntheseyes_pickles_are_read_as_pickle_reads_them(shared_data: Path) -> None:
    from storage.sources.plain_pickle import load_plain  # noqa: PLC0415

    for path in sorted((shared_data / "syntheseyes/raw").rglob("*.pkl")):
        data = path.read_bytes()
        assert load_plain(data) == pickle.loads(data)  # noqa: S301


def test_mpiigaze_one_eye_by_hand(shared_data: Path) -> None:
    """The 73 frames of p00; the right eye is mirrored, with the sign of its gaze's x."""
    from scipy.io import loadmat  # noqa: PLC0415

    folder = shared_data / "mpiigaze/MPIIGaze"
    source = MPIIGazeOptions(folder=folder, subset="all", height=36, width=60).open()
    block = source.read(0, len(source))
    assert (len(block), len(block.rejections)) == (146, 0)
    day = sorted((folder / "Data/Normalized/p00").glob("*.mat"))[0]
    raw = loadmat(day)
    first = str(raw["filenames"].ravel()[0].item()).removesuffix(".jpg")
    for side, sign in (("left", 1), ("right", -1)):
        row = block.ids.index(f"p00/{day.stem}/{first}/{side}")
        gaze = raw["data"][0, 0][side][0, 0]["gaze"][0]
        image = raw["data"][0, 0][side][0, 0]["image"][0]
        expected = gaze / np.linalg.norm(gaze) * [sign, 1, 1]
        assert block.labels["gaze"][row] == pytest.approx(expected, abs=1e-5)
        assert np.array_equal(block.images[row, :, ::sign, 0], image)


def test_mpiigaze_agrees_with_the_evaluation_extract(shared_data: Path) -> None:
    """pitch = asin(−y), yaw = atan2(−x, −z) of left eyes are those of p00_left_eval.h5."""
    source = MPIIGazeOptions(folder=shared_data / "mpiigaze/MPIIGaze", people=["p00"]).open()
    block = source.read(0, len(source))
    with h5py.File(shared_data / "mpiigaze/p00_left_eval.h5") as file:
        angles = dict(zip((n.decode() for n in file["filename"][:]), file["gaze_pitchyaw"][:],
                          strict=True))  # fmt: skip
    num_compared = 0
    for name, (x, y, z) in zip(block.ids, block.labels["gaze"].astype(float), strict=True):
        person, day, frame, side = name.split("/")
        known = next((angles[key] for key in (f"{day}/{frame}.jpg", f"{person}/{day}/{frame}.jpg")
                      if key in angles), None)  # fmt: skip
        if side == "left" and known is not None:
            assert [np.arcsin(-y), np.arctan2(-x, -z)] == pytest.approx(known, abs=2e-3)
            num_compared += 1
    assert num_compared > 20


def test_nyu_frame_by_hand(shared_data: Path) -> None:
    """Line 1 belongs to the frame: 14 joints around 765 mm from the camera."""
    folder = shared_data / "nyu_hand"
    labels = folder / "nyu_test_groundtruth_label_first200.txt"
    source = NyuHandOptions(folder=folder, labels=labels).open()
    block = source.read(0, 1)
    assert block.ids == ["depth_1_0000001"]
    assert block.valid.all()
    uvd = np.array(labels.read_text().split("\n")[0].split(), float).reshape(14, 3)
    assert uvd[0] == pytest.approx([169.221, 199.638, 736.417])
    # The mean of the joints in space is the cube's centre.
    z = uvd[:, 2].mean()
    x = ((uvd[:, 0] - 320) * uvd[:, 2] / 588.03).mean()
    y = ((uvd[:, 1] - 240) * uvd[:, 2] / 587.07).mean()
    assert block.labels["cube_centre_mm"][0] == pytest.approx([x, y, z], abs=0.01)
    # 300 mm at that depth are 224 pixels of the crop; pixels are counted from 0.5.
    per_px = 224 / (300 * 588.03 / z)
    u = 112 + (169.221 - (x * 588.03 / z + 320)) * per_px
    v = 112 + (199.638 - (y * 587.07 / z + 240)) * (224 / (300 * 587.07 / z))
    assert block.labels["joints_uvd"][0, 0] == pytest.approx([u, v, 736.417], abs=0.01)
    # The frame's own depth at that joint, B + 256 G, is what the crop has there.
    colours = np.asarray(Image.open(folder / "depth_1_0000001.png")).astype(int)
    depth = colours[..., 2] + 256 * colours[..., 1]
    value = block.images[0, int(v), int(u), 0] / 65535 * 300 + z - 150
    assert value == pytest.approx(depth[199, 169], abs=6)
    # Joints lie within a finger's thickness of the surface; the background is far.
    for u, v, d in block.labels["joints_uvd"][0]:
        surface = block.images[0, int(v), int(u), 0] / 65535 * 300 + z - 150
        assert abs(surface - d) < 40
    assert block.images[0, :10, :10].min() == 65535
