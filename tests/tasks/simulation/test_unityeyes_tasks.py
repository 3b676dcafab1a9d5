"""UnityEyes' eyes as files that ingestion reads, and as datasets that go on where they stopped."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from simgan_core.errors import InputError
from simgan_core.simulator.unityeyes.config import UnityEyesConfig
from storage.errors import DatasetExistsError
from storage.reader import open_dataset
from storage.schema import GAZE
from storage.sources.formats.unityeyes import UnityEyesOptions
from tasks.simulation.unityeyes import (
    CropConfig,
    FrameConfig,
    Simulation,
    finish_simulation,
    plan_simulation,
    simulate_shards,
    write_pairs,
)
from tests.tasks.comparison.conftest import write_dataset
from tests.unityeyes_folder import NUM_COMPONENTS, write_assets

FRAME = FrameConfig(height=240, width=320)
CROP = CropConfig(rows_per_shard=8, samples=1)


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    """A tiny folder of assets."""
    return Simulation(assets=str(write_assets(tmp_path_factory.mktemp("assets"))), seed=5)


def simulated(to: Path, count: int, simulation: Simulation, crop: CropConfig = CROP) -> str:
    """Make a whole dataset; returns its digest."""
    for group in plan_simulation.fn(str(to), count, simulation, crop).groups:
        simulate_shards.fn(group, str(to), simulation, crop)
    return finish_simulation.fn(str(to)).digest


def test_ingestion_reads_every_pair_with_the_labels_of_the_dataset(
    simulation: Simulation, tmp_path: Path
) -> None:
    folder = write_pairs.fn(str(tmp_path / "pairs"), 20, simulation, FRAME)
    block = UnityEyesOptions(folder=folder).open().read(0, 20)
    assert block.valid.all(), block.rejections
    simulated(tmp_path / "d.zarr", 20, simulation)
    direct = open_dataset(str(tmp_path / "d.zarr")).read(0, 20)
    assert direct.ids == block.ids
    for name, tolerance in (("gaze", 1e-3), ("head_pose", 1e-3), ("lid_px", 0.05)):
        np.testing.assert_allclose(direct.labels[name], block.labels[name], atol=tolerance)
    # The same crop of the same eye: through a jpg and a resize, or rendered as it is.
    differences = np.abs(block.images.astype(float) - direct.images).mean(axis=(1, 2, 3))
    assert np.median(differences) < 6


def test_files_say_what_unityeyes_files_say(simulation: Simulation, tmp_path: Path) -> None:
    folder = write_pairs.fn(str(tmp_path / "pairs"), 1, simulation, FRAME)
    labels = json.loads((Path(folder) / "1.json").read_text())
    assert len(labels["interior_margin_2d"]) == 16
    assert len(labels["caruncle_2d"]) == 7
    assert len(labels["iris_2d"]) == 32
    assert 0.9 <= float(labels["eye_details"]["iris_size"]) <= 1
    assert labels["eye_details"]["iris_texture"] in {"eyeball_brown", "eyeball_grey"}
    assert {"skybox_texture", "light_rotation", "light_intensity"} <= labels[
        "lighting_details"
    ].keys()
    assert len(labels["eye_region_details"]["pca_shape_coeffs"]) == NUM_COMPONENTS
    assert labels["eye_region_details"]["primary_skin_texture"].endswith("_color")


def test_pairs_that_are_there_are_kept(simulation: Simulation, tmp_path: Path) -> None:
    folder = Path(write_pairs.fn(str(tmp_path / "pairs"), 3, simulation, FRAME))
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "2.jpg").unlink()
    kept = (folder / "1.jpg").stat().st_mtime_ns
    write_pairs.fn(str(folder), 3, simulation, FRAME)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert (folder / "1.jpg").stat().st_mtime_ns == kept


def test_a_folder_of_another_simulation_is_refused(simulation: Simulation, tmp_path: Path) -> None:
    folder = write_pairs.fn(str(tmp_path / "pairs"), 1, simulation, FRAME)
    other = simulation.model_copy(update={"seed": 6})
    with pytest.raises(InputError, match="holds another simulation"):
        write_pairs.fn(folder, 1, other, FRAME)


def test_shards_made_apart_and_out_of_order_are_the_dataset_made_at_once(
    simulation: Simulation, tmp_path: Path
) -> None:
    whole = simulated(tmp_path / "whole.zarr", 20, simulation)
    to = str(tmp_path / "parts.zarr")
    plan_simulation.fn(to, 20, simulation, CROP)
    simulate_shards.fn([2], to, simulation, CROP)
    assert plan_simulation.fn(to, 20, simulation, CROP).groups == [[0], [1]]
    simulate_shards.fn([0, 1], to, simulation, CROP)
    assert finish_simulation.fn(to).digest == whole


def test_another_configuration_is_another_dataset(simulation: Simulation, tmp_path: Path) -> None:
    to = tmp_path / "d.zarr"
    simulated(to, 8, simulation)
    other = simulation.model_copy(update={"config": UnityEyesConfig(glasses_share=1)})
    with pytest.raises(DatasetExistsError, match="glasses_share"):
        plan_simulation.fn(str(to), 8, other, CROP)


def test_gazes_are_taken_from_a_dataset_to_match(simulation: Simulation, tmp_path: Path) -> None:
    narrow = UnityEyesConfig(
        eye_pitch_range_deg=2, eye_yaw_range_deg=2, camera_pitch_deg=-15, camera_pitch_range_deg=2,
        camera_yaw_range_deg=2,
    )  # fmt: skip
    simulated(tmp_path / "n.zarr", 16, simulation.model_copy(update={"config": narrow}))
    matched = simulation.model_copy(update={"match": str(tmp_path / "n.zarr")})
    simulated(tmp_path / "m.zarr", 32, matched)
    pitch = np.degrees(
        np.arcsin(-open_dataset(str(tmp_path / "m.zarr")).read(0, 32).labels["gaze"][:, 1])
    )
    assert -25 < pitch.min() < pitch.max() < -5


def gazes(to: Path, gaze: list[list[float]]) -> str:
    """Write a dataset of black images with these gazes."""
    images = np.zeros((len(gaze), 35, 55, 1), np.uint8)
    ids = [f"p00/{row}" for row in range(len(gaze))]
    return write_dataset(to, "real", images, ids, {"gaze": (GAZE, np.array(gaze))})


def test_rows_to_match_without_a_gaze_are_left_out(simulation: Simulation, tmp_path: Path) -> None:
    unknown, ahead = [np.nan] * 3, [0.0, 0.0, -1.0]
    matched = simulation.model_copy(
        update={"match": gazes(tmp_path / "some.zarr", [unknown, ahead, unknown])}
    )
    simulated(tmp_path / "d.zarr", 8, matched)
    assert (open_dataset(str(tmp_path / "d.zarr")).read_labels()["gaze"][:, 2] < -0.9).all()
    without = simulation.model_copy(update={"match": gazes(tmp_path / "none.zarr", [unknown])})
    with pytest.raises(InputError, match="has none in its 1 valid rows"):
        plan_simulation.fn(str(tmp_path / "e.zarr"), 8, without, CROP)


def test_gazes_or_assets_that_were_replaced_meanwhile_are_refused(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    assets = write_assets(tmp_path / "assets")
    match = gazes(tmp_path / "n.zarr", [[0.0, 0.0, -1.0]])
    simulation, to = Simulation(assets=str(assets), seed=5, match=match), str(tmp_path / "d.zarr")
    plan_simulation.fn(to, 16, simulation, CROP)
    shutil.rmtree(match)
    gazes(tmp_path / "n.zarr", [[0.3, 0.0, -0.9]])
    with pytest.raises(InputError, match=r"n\.zarr is not what .*d\.zarr was begun with"):
        simulate_shards.fn([1], to, simulation, CROP)
    iris = next(assets.rglob("eyeball_*.png"))
    iris.write_bytes(iris.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"assets.* is not what .*d\.zarr was begun with"):
        simulate_shards.fn([1], to, simulation, CROP)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_made(
    simulation: Simulation, tmp_path: Path
) -> None:
    on_gpu = simulation.model_copy(update={"device": "cuda"})
    with pytest.raises(InputError, match="device cuda needs a GPU, and PyTorch sees none"):
        plan_simulation.fn(str(tmp_path / "d.zarr"), 8, on_gpu, CROP)
    assert not (tmp_path / "d.zarr").exists()


@pytest.mark.gpu("a dataset rendered in batches")
def test_a_dataset_of_a_gpu_is_another_than_a_cpus(simulation: Simulation, tmp_path: Path) -> None:
    on_gpu = simulation.model_copy(update={"device": "cuda"})
    there = simulated(tmp_path / "g.zarr", 20, on_gpu)
    assert simulated(tmp_path / "again.zarr", 20, on_gpu) == there
    with pytest.raises(DatasetExistsError, match="device"):
        plan_simulation.fn(str(tmp_path / "g.zarr"), 20, simulation, CROP)


def test_more_skins_than_there_are_are_refused(simulation: Simulation, tmp_path: Path) -> None:
    many = simulation.model_copy(update={"config": UnityEyesConfig(num_skins=9)})
    with pytest.raises(InputError, match="num_skins should be at most 3"):
        plan_simulation.fn(str(tmp_path / "d.zarr"), 8, many, CROP)
    assert not (tmp_path / "d.zarr").exists()
