"""Pictures of labels, checked against the images that they are drawn on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from source_samples import SAMPLES

from storage.errors import CorruptDatasetError
from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import CORNERS_PX, HEAD_POSE, LID_PX, DatasetSpec, LabelSpec
from storage.sources.source import Source
from storage.writer import DatasetWriter
from tasks.viewing.inspect import inspect_dataset, verify_dataset
from tasks.viewing.overlays import CAPTION_HEIGHT, GAZE, HEAD, IRIS, JOINT, LID, PUPIL, draw_sample

WIDTH = 220


def dataset_of(name: str, folder: Path) -> str:
    """Write a format's samples as a dataset in shards of two."""
    (folder / "files").mkdir()
    SAMPLES[name].write(folder / "files")
    source: Source = SAMPLES[name].open(folder / "files")
    height, width, channels = source.image_shape
    spec = DatasetSpec(
        num_rows=len(source),
        height=height,
        width=width,
        channels=channels,
        dtype=source.dtype,
        labels=source.labels,
        domain=source.domain,
        source={"name": source.name},
        preprocess=source.preprocess,
        rows_per_chunk=2,
        rows_per_shard=2,
    )
    writer = DatasetWriter.open(str(folder / "d.zarr"), spec)
    for shard in writer.pending_shards():
        rows = writer.shard_rows(shard)
        writer.write_shard(shard, source.read(rows.start, rows.stop))
    return writer.finish().url


def drawn(block: SampleBlock, row: int) -> tuple[np.ndarray, np.ndarray, float]:
    """One sample's picture without its caption, where its disc is in it, and the enlargement."""
    one = SampleBlock(
        images=block.images[row : row + 1],
        valid=block.valid[row : row + 1],
        ids=block.ids[row : row + 1],
        labels={name: label[row : row + 1] for name, label in block.labels.items()},
    )
    picture = np.asarray(draw_sample(one, WIDTH))[:-CAPTION_HEIGHT]
    image = one.images[0, :, :, 0].astype(float)
    dark = np.maximum(np.median(image) - image - 0.3 * np.ptp(image), 0)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    scale = WIDTH / image.shape[1]
    disc = np.array([(dark * columns).sum(), (dark * rows).sum()]) / dark.sum() * scale
    return picture, disc, scale


def centre_of(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Mean x, y of what is drawn in a colour."""
    rows, columns = np.nonzero((picture == np.array(colour)).all(axis=2))
    assert len(rows)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def extent_of(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Least and greatest y, x of what is drawn in a colour."""
    places = np.argwhere((picture == np.array(colour)).all(axis=2))
    return np.stack([places.min(axis=0), places.max(axis=0)])


@pytest.fixture(params=SAMPLES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_marks_lie_on_what_the_image_shows(name: str, tmp_path: Path) -> None:
    """The drawn disc is the pupil, moved from the middle as the gaze goes; or it is the hand."""
    block = open_dataset(dataset_of(name, tmp_path)).load()
    num_checked = 0
    for row in range(len(block)):
        picture, disc, scale = drawn(block, row)
        if "pupil_px" in block.labels:
            assert centre_of(picture, PUPIL) == pytest.approx(disc, abs=0.6 * scale)
            num_checked += 1
        if "iris_px" in block.labels:
            assert centre_of(picture, IRIS) == pytest.approx(disc, abs=1.5 * scale)
            (low, left), (high, right) = extent_of(picture, LID)
            assert left < disc[0] < right
            assert low < disc[1] < high
        if "joints_uvd" in block.labels:
            assert centre_of(picture, JOINT) == pytest.approx(disc, abs=1.5 * scale + 1)
            num_checked += 1
        if "gaze" in block.labels:
            middle = np.array([picture.shape[1], picture.shape[0]]) / 2
            start = disc if "pupil_px" in block.labels else middle
            arrow = centre_of(picture, GAZE) - start
            moved = block.labels["gaze"][row, :2]
            assert arrow @ moved / np.linalg.norm(arrow) / np.linalg.norm(moved) > 0.9
            if name != "unityeyes":  # there the crop follows the lids, not the frame's middle
                shift = disc - middle
                assert arrow @ shift / np.linalg.norm(arrow) / np.linalg.norm(shift) > 0.9
            num_checked += 1
    assert num_checked or not block.labels


def test_a_head_that_turns_to_the_images_right_is_drawn_so(tmp_path: Path) -> None:
    block = open_dataset(dataset_of("unityeyes", tmp_path)).load()
    pitch, yaw = block.labels["head_pose"][0, :2]
    picture, _, _ = drawn(block, 0)
    corner = np.array([0.12 * picture.shape[1], 0.15 * picture.shape[0]])
    arrow = centre_of(picture, HEAD) - corner
    assert np.sign(arrow[0]) == -np.sign(yaw)
    assert np.sign(arrow[1]) == -np.sign(pitch)


@pytest.mark.parametrize("name", ["unityeyes", "folder-unlabelled", "nyu-hand"])
def test_inspecting_says_what_a_dataset_is_and_draws_it(name: str, tmp_path: Path) -> None:
    found = inspect_dataset(dataset_of(name, tmp_path), tmp_path / "sheets" / "sheet.png")
    info = open_dataset(found.dataset).info
    assert found.digest in found.text()
    assert (found.num_rows, found.num_valid) == (info.spec.num_rows, info.num_valid)
    assert [label.name for label in found.labels] == [label.name for label in info.spec.labels]
    for label in found.labels:
        assert len(label.low) == label.shape[-1]
        assert all(low <= high for low, high in zip(label.low, label.high, strict=True))
    with Image.open(tmp_path / "sheets" / "sheet.png") as sheet:
        # Histograms are below where there are labels.
        assert sheet.width > 6 * WIDTH
        assert sheet.height > WIDTH * info.spec.height / info.spec.width + 100 * bool(found.labels)


def test_a_whole_dataset_verifies(tmp_path: Path) -> None:
    assert verify_dataset(dataset_of("arrays-h5", tmp_path)) == 3


@pytest.mark.parametrize("victim", ["images/c/1/0/0/0", "labels/gaze/c/1/0", "id/c/1", "valid/c/1"])
def test_a_changed_or_lost_shard_is_named(tmp_path: Path, victim: str) -> None:
    url = dataset_of("arrays-h5", tmp_path)
    path = Path(url) / victim
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDatasetError, match=r"1 of 3 shards .* damaged: shard 1"):
        verify_dataset(url)
    path.unlink()
    with pytest.raises(CorruptDatasetError, match=r"shard 1 does not read: .* is missing"):
        verify_dataset(url)


def test_records_that_are_not_the_datasets_are_found(tmp_path: Path) -> None:
    url = dataset_of("arrays-h5", tmp_path)
    record = Path(url) / "records/00001/zarr.json"
    record.write_text(record.read_text().replace('"digest": "', '"digest": "0'))
    with pytest.raises(CorruptDatasetError, match="records"):
        verify_dataset(url)


def test_a_head_pose_without_roll_is_known(tmp_path: Path) -> None:
    poses = np.float32([(0.1, 0.2, np.nan), (-0.1, 0.3, np.nan), (np.nan, 0.1, np.nan)])
    spec = DatasetSpec(
        num_rows=3,
        height=24,
        width=40,
        channels=1,
        dtype="uint8",
        labels=(HEAD_POSE,),
        domain="real",
        source={"name": "test"},
        preprocess="none",
    )
    writer = DatasetWriter.open(str(tmp_path / "d.zarr"), spec)
    images = np.full((3, 24, 40, 1), 128, np.uint8)
    labels = {HEAD_POSE.name: poses}
    writer.write_shard(0, SampleBlock(images, np.ones(3, bool), ["a", "b", "c"], labels))
    found = inspect_dataset(writer.finish().url, tmp_path / "sheet.png")
    assert (found.labels[0].num_unknown, found.labels[0].num_roll_unknown) == (1, 2)
    assert "0.1 … 0.3, unknown, unknown in 1 rows, roll unknown in 2 rows" in found.text()
    assert found.labels[0].low[2] is None


@pytest.mark.parametrize("landmarks", [CORNERS_PX, LID_PX])
def test_inspecting_says_how_far_from_the_middle_the_eyes_are_cut(
    landmarks: LabelSpec, tmp_path: Path
) -> None:
    angles = np.linspace(0, 2 * np.pi, landmarks.shape[0], endpoint=False)
    outline = np.stack([-10 * np.cos(angles), 4 * np.sin(angles)], axis=1)
    # Middles 2 px to the right, and 2 and 4 px above the image's middle (20, 12).
    points = np.float32([(22.0, 10.0), (22.0, 8.0)])[:, None] + outline.astype(np.float32)
    spec = DatasetSpec(
        num_rows=2,
        height=24,
        width=40,
        channels=1,
        dtype="uint8",
        labels=(landmarks,),
        domain="synthetic",
        source={"name": "test"},
        preprocess="none",
    )
    writer = DatasetWriter.open(str(tmp_path / "d.zarr"), spec)
    images = np.full((2, 24, 40, 1), 128, np.uint8)
    labels = {landmarks.name: points}
    writer.write_shard(0, SampleBlock(images, np.ones(2, bool), ["a", "b"], labels))
    found = inspect_dataset(writer.finish().url, tmp_path / "sheet.png")
    assert found.crop_centre is not None
    assert found.crop_centre.offset_px == pytest.approx((2, -3))
    assert found.crop_centre.offset_sd_px == pytest.approx((0, 1))
    assert found.crop_centre.width_px == pytest.approx(20)
    assert "+2.0 ± 0.0 px right, -3.0 ± 1.0 px down" in found.text()
