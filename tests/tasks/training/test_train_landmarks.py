from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from simgan_core.config import LandmarkTraining
from simgan_core.errors import InputError
from simgan_core.landmarks.examples import simulated_examples
from simgan_core.landmarks.model import LandmarkModel
from storage.samples import SampleBlock
from storage.schema import CORNERS_PX, IRIS_PX, PUPIL_PX, DatasetSpec, LabelSpec
from storage.writer import DatasetWriter
from tasks.runtime.tracking.runs import TrackedRun
from tasks.training.landmarks import landmark_errors, train_landmark_model

QUICK = LandmarkTraining(steps=3, batch_size=8)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A dataset with all that landmarks are learnt from."""
    return dataset(tmp_path, (CORNERS_PX, PUPIL_PX, IRIS_PX))


def kept(home: Path) -> Path:
    (folder,) = (home / "landmark_models").iterdir()
    return folder


def dataset(folder: Path, labels: tuple[LabelSpec, ...], count: int = 40) -> str:
    """Eyes whose landmarks are known, as `simulate unityeyes --to` writes them."""
    eyes = simulated_examples("synthetic", count, seed=5)
    iris = np.repeat(eyes.points[:, 3:], 16, axis=1)
    known = {"corners_px": eyes.points[:, :2], "pupil_px": eyes.points[:, 2], "iris_px": iris}
    spec = DatasetSpec(
        num_rows=count,
        height=eyes.images.shape[1],
        width=eyes.images.shape[2],
        channels=1,
        dtype="uint8",
        labels=labels,
        domain="synthetic",
        source={"name": "test"},
        preprocess="none",
    )
    writer = DatasetWriter.open(str(folder / "eyes.zarr"), spec)
    images, ids = eyes.images[..., None], [str(row) for row in range(count)]
    values = {label.name: known[label.name] for label in labels}
    writer.write_shard(0, SampleBlock(images, np.ones(count, bool), ids, values))
    return writer.finish().url


def test_a_model_is_trained_on_datasets_and_measured_on_rows_it_has_not_seen(
    url: str, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "model.pt"
    found = train_landmark_model.fn(str(out), [url], 40, QUICK)
    assert LandmarkModel.load(out).digest == found.digest
    assert not (kept(home) / "training.ckpt").exists()
    assert [(each.name, each.num_images) for each in found.errors] == [
        ("built-in", 2), ("eyes.zarr", 2),
    ]  # fmt: skip


def test_mlflow_remembers_settings_data_losses_and_errors(
    url: str, home: Path, tmp_path: Path
) -> None:
    found = train_landmark_model.fn(str(tmp_path / "model.pt"), [url], 40, QUICK)
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    run = client.get_run(found.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params.items() >= {"steps": "3", "num_simulated": "40"}.items()
    assert [each.dataset.source for each in run.inputs.dataset_inputs] == [url]
    assert run.data.metrics["dataset-1/pupil.median_px"] == pytest.approx(
        found.errors[1].median_px["pupil"]
    )
    assert [each.step for each in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3]
    assert client.list_artifacts(run.info.run_id, "model")[0].path == "model/landmarks.pt"


def test_a_finished_model_is_found_and_written_where_it_is_wanted(
    home: Path, tmp_path: Path
) -> None:
    first = train_landmark_model.fn(str(tmp_path / "model.pt"), [], 40, QUICK)
    written = (kept(home) / "landmarks.pt").stat().st_mtime_ns
    again = train_landmark_model.fn(str(tmp_path / "other.pt"), [], 40, QUICK)
    assert again == first.model_copy(update={"out": str(tmp_path / "other.pt")})
    assert (kept(home) / "landmarks.pt").stat().st_mtime_ns == written
    assert LandmarkModel.load(tmp_path / "other.pt").digest == first.digest


def test_a_training_that_was_stopped_goes_on_in_its_own_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simgan_core.landmarks.training._CHECKPOINT_EVERY", 1)
    out = str(tmp_path / "model.pt")
    log = TrackedRun.metrics

    def killed_at_step_2(run: TrackedRun, values: Mapping[str, float], step: int = 0) -> None:
        if step == 2:
            raise KeyboardInterrupt
        log(run, values, step)

    with monkeypatch.context() as patch:
        patch.setattr(TrackedRun, "metrics", killed_at_step_2)
        with pytest.raises(KeyboardInterrupt):
            train_landmark_model.fn(out, [], 40, QUICK)
    assert (kept(home) / "training.ckpt").exists()
    found = train_landmark_model.fn(out, [], 40, QUICK)
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    (run,) = client.search_runs([client.get_run(found.mlflow_run_id).info.experiment_id])
    assert [each.step for each in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3]


def test_a_dataset_without_corners_is_refused_before_anything_is_rendered(
    home: Path, tmp_path: Path
) -> None:
    url = dataset(tmp_path, (PUPIL_PX, IRIS_PX))
    with pytest.raises(InputError, match="has no label corners_px"):
        train_landmark_model.fn(str(tmp_path / "model.pt"), [url], 40, QUICK)
    assert not (home / "landmark_models").exists()


def test_errors_are_in_pixels_of_an_image_55_wide() -> None:
    model, eyes = LandmarkModel.load(), simulated_examples("synthetic", 10, seed=3)
    found = model.predict(eyes.images[..., None])
    errors = landmark_errors("eyes", model, eyes)
    off = np.linalg.norm(found.points[:, 2] - eyes.points[:, 2], axis=1)
    assert errors.median_px["pupil"] == pytest.approx(np.median(off) * 55 / eyes.images.shape[2])
    assert set(errors.p95_px) == set(errors.median_px)
    assert "midpoint" in str(errors)
