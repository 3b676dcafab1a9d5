"""UnityEyes' folders, read and written."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from simgan_core.simulator.eyes import render, sample_scenes
from storage.errors import SourceError
from storage.sources.formats.unityeyes import IRIS_WAY, UnityEyesOptions, write_unityeyes_pair
from storage.sources.head_pose import to_unityeyes

HEIGHT, WIDTH = 120, 160
LOOK = np.array([0.3, 0.2, -np.sqrt(1 - 0.3**2 - 0.2**2)])  # y up
HEAD = np.array([-0.1, 0.2, 0.05])  # rotation vector
CENTRE = np.array([WIDTH / 2 + IRIS_WAY * HEIGHT * 0.3, HEIGHT / 2 - IRIS_WAY * HEIGHT * 0.2])
RADIUS = 8.0


def circle(centre: np.ndarray, radius_x: float, radius_y: float, num_points: int) -> np.ndarray:
    angles = np.arange(num_points) * (2 * np.pi / num_points)
    return centre + np.stack([radius_x * np.cos(angles), radius_y * np.sin(angles)], axis=1)


def drawn_frame() -> np.ndarray:
    """A dark iris on grey, where the labels say."""
    image = Image.new("L", (WIDTH * 4, HEIGHT * 4), 180)
    left, top, right, bottom = (*(CENTRE - RADIUS) * 4, *(CENTRE + RADIUS) * 4)
    ImageDraw.Draw(image).ellipse((left, top, right, bottom), fill=20)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def write_pair(folder: Path, number: int, **changes: Any) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    pair = {
        "frame": drawn_frame(),
        "look_vec_y_up": LOOK,
        "head_pose_deg": to_unityeyes(HEAD),
        "iris_px": circle(CENTRE, RADIUS, RADIUS, 32),
        "lid_margin_px": circle(np.array([82.0, 61.0]), 24, 10, 16),
        "caruncle_px": circle(np.array([55.0, 62.0]), 3, 3, 7),
        "details": {},
    }
    write_unityeyes_pair(folder, number, **{**pair, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pairs."""
    for number in (2, 10):
        write_pair(tmp_path / "eyes", number)
    return tmp_path / "eyes"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def only_reason(folder: Path) -> str:
    """Why the first pair is rejected, the second being good."""
    block = UnityEyesOptions(folder=folder).open().read(0, 2)
    assert block.valid.tolist() == [False, True]
    assert not block.images[0].any()
    assert all(np.isnan(label[0]).all() for label in block.labels.values())
    (rejection,) = block.rejections
    assert (rejection.row, rejection.id) == (0, "2")
    return rejection.reason


def test_labels_come_in_our_conventions(folder: Path) -> None:
    block = UnityEyesOptions(folder=folder).open().read(0, 2)
    assert block.ids == ["2", "10"]
    assert block.valid.all()
    assert block.labels["gaze"][0] == pytest.approx(LOOK * [1, -1, 1], abs=1e-4)
    assert block.labels["head_pose"][0] == pytest.approx([0.1, 0.2, 0.05], abs=0.02)
    assert block.labels["iris_px"].shape == (2, 32, 2)
    assert block.labels["lid_px"].shape == (2, 16, 2)


def test_the_drawn_iris_is_where_the_labels_say(folder: Path) -> None:
    block = UnityEyesOptions(folder=folder).open().read(0, 1)
    dark = 180.0 - block.images[0, :, :, 0].astype(float)
    rows, columns = np.mgrid[: dark.shape[0], : dark.shape[1]] + 0.5
    centre = [(dark * columns).sum() / dark.sum(), (dark * rows).sum() / dark.sum()]
    assert block.labels["pupil_px"][0] == pytest.approx(centre, abs=0.1)
    assert block.labels["iris_px"][0].mean(axis=0) == pytest.approx(centre, abs=0.1)


def test_the_crop_is_one_and_a_half_eye_widths_round_the_opening(folder: Path) -> None:
    block = UnityEyesOptions(folder=folder, height=35, width=55).open().read(0, 1)
    # The outer corner is the lid point farthest from the caruncle: 24 + 27 px.
    eye_width = np.hypot(82 + 24 - 55, 61 - 62)
    scale = 55 / (1.5 * eye_width)
    assert block.images.shape == (1, 35, 55, 1)
    assert block.labels["lid_px"][0].mean(axis=0) == pytest.approx([27.5, 17.5], abs=1e-3)
    assert np.ptp(block.labels["lid_px"][0, :, 0]) == pytest.approx(48 * scale, abs=0.01)


def test_the_margin_crop_is_a_share_of_the_frame(folder: Path) -> None:
    block = UnityEyesOptions(folder=folder, crop="margin").open().read(0, 1)
    scale = 55 / (WIDTH * 140 / 640)
    assert np.ptp(block.labels["lid_px"][0, :, 0]) == pytest.approx(48 * scale, abs=0.01)


def test_the_corners_crop_is_centred_midway_between_them(folder: Path) -> None:
    block = UnityEyesOptions(folder=folder, crop="corners").open().read(0, 1)
    scale = 55 / (WIDTH * 140 / 640)
    # The outer corner is at (106, 61), the lids' middle at (82, 61).
    caruncle = circle(np.array([55.0, 62.0]), 3, 3, 7)
    tip = caruncle[np.linalg.norm(caruncle - (106, 61), axis=1).argmax()]
    middle = np.mean([tip, (106.0, 61.0)], axis=0)
    expected = np.array([27.5, 17.5]) + (np.array([82.0, 61.0]) - middle) * scale
    assert block.labels["lid_px"][0].mean(axis=0) == pytest.approx(expected, abs=1e-3)
    assert np.ptp(block.labels["lid_px"][0, :, 0]) == pytest.approx(48 * scale, abs=0.01)


def test_decoding_at_a_reduced_scale_changes_an_image_by_less_than_two_levels(
    tmp_path: Path,
) -> None:
    scenes = sample_scenes("synthetic", 4, seed=5)
    rendered = render(scenes, "frame", 600, 800)
    for image in range(4):
        write_unityeyes_pair(
            tmp_path,
            image + 1,
            frame=rendered.images[image, :, :, 0],
            look_vec_y_up=scenes.gaze[image] * [1, -1, 1],
            head_pose_deg=to_unityeyes(scenes.head_pose)[image],
            iris_px=rendered.iris_px[image],
            lid_margin_px=rendered.lid_px[image],
            caruncle_px=rendered.caruncle_px[image],
            details={},
        )
    reduced = UnityEyesOptions(folder=tmp_path).open().read(0, 4).images
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.sources.formats.unityeyes.sufficient", lambda frame, *_: frame)
        full = UnityEyesOptions(folder=tmp_path).open().read(0, 4).images
    assert (reduced != full).any()
    assert np.abs(reduced.astype(int) - full).mean(axis=(1, 2, 3)).max() < 2


def test_nested_folders_are_read_in_the_order_of_numbers(folder: Path) -> None:
    write_pair(folder / "b", 1)
    write_pair(folder / "a" / "c", 3)
    source = UnityEyesOptions(folder=folder).open()
    assert source.read(0, len(source)).ids == ["2", "10", "a/c/3", "b/1"]


def test_frames_of_two_sizes_become_one(folder: Path) -> None:
    large = np.zeros((HEIGHT * 2, WIDTH * 2), np.uint8)
    write_pair(
        folder,
        11,
        frame=large,
        iris_px=circle(CENTRE * 2, 16, 16, 32),
        lid_margin_px=circle(np.array([164.0, 122.0]), 48, 20, 16),
        caruncle_px=circle(np.array([110.0, 124.0]), 6, 6, 7),
    )
    block = UnityEyesOptions(folder=folder).open().read(0, 3)
    assert block.valid.all()
    assert block.labels["pupil_px"][2] == pytest.approx(block.labels["pupil_px"][0], abs=0.05)


def test_contours_of_other_lengths_are_brought_to_ours(folder: Path) -> None:
    write_pair(folder, 2, iris_px=circle(CENTRE, RADIUS, RADIUS, 64))
    labels = UnityEyesOptions(folder=folder).open().read(0, 2).labels
    assert labels["iris_px"][0] == pytest.approx(labels["iris_px"][1], abs=0.01)


def test_other_files_are_left_alone(folder: Path) -> None:
    (folder / "preview.jpg").touch()
    (folder / "settings.json").write_text("{}")
    (folder / ".3.json.partial").touch()
    assert len(UnityEyesOptions(folder=folder).open()) == 2


def test_the_real_files_gaze_and_iris_are_read(shared_data: Path, tmp_path: Path) -> None:
    for number in (1, 3):
        shutil.copyfile(shared_data / f"unityeyes/{number}.json", tmp_path / f"{number}.json")
        Image.new("RGB", (800, 600)).save(tmp_path / f"{number}.jpg")
    source = UnityEyesOptions(folder=tmp_path, crop="margin").open()
    block = source.read(0, 2)
    assert block.rejections == ()
    assert block.labels["gaze"][0] == pytest.approx([0.3404, -0.3879, -0.8566], abs=1e-4)
    # By hand, for 1.json: lids from x 364.8002 to 489.8072 and, from the bottom, y 275.4666 to
    # 357.7870; crop 175 px wide, 55/175 px a px; iris centre 427.4506, 331.2768 from the bottom.
    scale = 55 / 175
    centre_x, centre_y = (364.8002 + 489.8072) / 2, 600 - (275.4666 + 357.7870) / 2
    expected = [
        27.5 + (427.4506 - centre_x) * scale,
        17.5 + (600 - 331.2768 - centre_y) * scale,
    ]
    assert block.labels["pupil_px"][0] == pytest.approx(expected, abs=1e-3)
    assert np.degrees(block.labels["head_pose"][1, 1]) == pytest.approx(33.73, abs=0.01)


def test_what_is_written_is_laid_out_as_the_real_files(shared_data: Path, folder: Path) -> None:
    real = json.loads((shared_data / "unityeyes/1.json").read_text())
    ours = json.loads((folder / "2.json").read_text())
    assert ours.keys() == real.keys()
    for key in ("interior_margin_2d", "caruncle_2d", "iris_2d"):
        assert len(ours[key]) == len(real[key])
        assert all(text[0] == "(" and len(text.split(", ")) == 3 for text in ours[key])
    assert ours["eye_details"]["look_vec"] == "(0.3000, 0.2000, -0.9327, 0.0000)"
    first = (CENTRE[0] + RADIUS, CENTRE[1])
    assert ours["iris_2d"][0] == f"({first[0]:.4f}, {HEIGHT - first[1]:.4f}, 0.0000)"


def test_writing_leaves_no_other_files(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"2.jpg", "2.json", "10.jpg", "10.json"}


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        UnityEyesOptions(folder=tmp_path / "nowhere").open()


def test_a_folder_without_pairs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no UnityEyes pair"):
        UnityEyesOptions(folder=tmp_path).open()


def test_a_label_file_without_its_image_is_rejected(folder: Path) -> None:
    (folder / "2.jpg").unlink()
    assert only_reason(folder) == "the image file is missing"


def test_an_image_without_its_label_file_is_rejected(folder: Path) -> None:
    (folder / "2.json").unlink()
    assert only_reason(folder) == "the label file is missing"


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_truncated_image_is_rejected(folder: Path, keep: int) -> None:
    (folder / "2.jpg").write_bytes((folder / "2.jpg").read_bytes()[:keep])
    assert only_reason(folder) == "the image file does not decode"


def test_an_image_of_absurd_size_is_rejected_before_it_is_decoded(folder: Path) -> None:
    content = bytearray((folder / "2.jpg").read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = (9000).to_bytes(2) * 2
    (folder / "2.jpg").write_bytes(content)
    assert only_reason(folder) == "the image claims to be over 8192 pixels a side"
    content[frame + 5 : frame + 9] = (60_000).to_bytes(2) * 2
    (folder / "2.jpg").write_bytes(content)
    assert only_reason(folder) == "the image file does not decode"


@pytest.mark.parametrize("text", ["", "not json", "\x00", '{"a":' * 100_000])
def test_a_label_file_that_is_no_json_is_rejected(folder: Path, text: str) -> None:
    (folder / "2.json").write_text(text)
    assert only_reason(folder) == "the label file is no json"


def test_a_label_file_of_absurd_length_is_rejected(folder: Path) -> None:
    (folder / "2.json").write_text(" " * 2_000_000)
    assert only_reason(folder) == "the label file is too long"


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"eye_details": []}'])
def test_a_label_file_of_other_content_is_rejected(folder: Path, text: str) -> None:
    (folder / "2.json").write_text(text)
    assert only_reason(folder) == "the label file lacks eye_details.look_vec"


@pytest.mark.parametrize(
    "vector",
    [
        "0.1, 0.2, -0.9, 0",
        "(0.1, 0.2",
        "(0.1, x, -0.9, 0)",
        "(1, 2)",
        "(nan, 0, -1, 0)",
        "",
        3,
        None,
    ],
)
def test_a_malformed_vector_is_rejected(folder: Path, vector: object) -> None:
    edit(folder / "2.json", lambda document: document["eye_details"].update(look_vec=vector))
    assert only_reason(folder) == "malformed vector in look_vec"


def test_a_vector_that_is_code_is_rejected_and_not_run(folder: Path) -> None:
    code = f"(__import__('pathlib').Path('{folder / 'run'}').touch(), 0, -1, 0)"
    edit(folder / "2.json", lambda document: document["eye_details"].update(look_vec=code))
    assert only_reason(folder) == "malformed vector in look_vec"
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    "points",
    [[], ["(1, 2, 3)", "(1, 2)"], "(1, 2, 3)", [["1"]], {"a": 1}, ["(1, 2, 3)\n(4, 5, 6)"]],
)
def test_malformed_points_are_rejected(folder: Path, points: object) -> None:
    edit(folder / "2.json", lambda document: document.update(iris_2d=points))
    assert only_reason(folder) == "malformed vector in iris_2d"


def test_a_gaze_that_is_no_unit_vector_is_rejected(folder: Path) -> None:
    edit(
        folder / "2.json",
        lambda document: document["eye_details"].update(look_vec="(0.0, 0.0, -3.0, 0.0)"),
    )
    assert only_reason(folder) == "look_vec is no unit vector"


def test_labels_of_another_frame_are_rejected(folder: Path) -> None:
    Image.new("L", (640, 480)).save(folder / "2.jpg")
    assert "do not belong together" in only_reason(folder)


def test_lids_of_no_size_are_rejected(folder: Path) -> None:
    same = ["(80.0, 60.0, 0.0)"] * 16
    edit(
        folder / "2.json",
        lambda document: document.update(interior_margin_2d=same, caruncle_2d=same),
    )
    assert only_reason(folder) == "the lids are of no plausible size"


def test_the_digest_follows_from_names_and_sizes(folder: Path, tmp_path: Path) -> None:
    digest = UnityEyesOptions(folder=folder).open().content_digest()
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert UnityEyesOptions(folder=copy).open().content_digest() == digest
    with (copy / "2.json").open("a") as file:
        file.write(" ")
    assert UnityEyesOptions(folder=copy).open().content_digest() != digest


def test_it_can_be_pickled(folder: Path) -> None:
    source = pickle.loads(pickle.dumps(UnityEyesOptions(folder=folder).open()))  # noqa: S301
    assert source.read(1, 2).ids == ["10"]
