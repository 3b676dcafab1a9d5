"""The estimator that a comparison registers in MLflow."""

from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest

from simgan_core.estimation.gaze_training import predict_gaze
from simgan_core.models.estimator import load_estimator
from storage.reader import open_dataset
from storage.schema import GAZE
from tasks.comparison.reporting.report import register_winner
from tests.tasks.comparison.conftest import write_dataset
from tests.tasks.comparison.test_arms import plan, results_of, run


@pytest.fixture
def deep_eyes(eyes: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The eyes in images of 16 bits."""
    made = {}
    for name, url in eyes.items():
        dataset = open_dataset(url)
        block = dataset.load()
        images = block.images.astype(np.uint16) * 257 - (name == "refined")
        labels = {"gaze": (GAZE, block.labels["gaze"])}
        to, domain = tmp_path / f"{name}.zarr", dataset.info.spec.domain
        made[name] = write_dataset(to, domain, images, block.ids, labels)
    return made


def test_it_takes_images_of_sixteen_bits_where_it_was_trained_on_them(
    deep_eyes: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = plan(deep_eyes, 1, arms=("synthetic",))
    (made,) = run(comparison)
    registered = register_winner(comparison, results_of(comparison, [made]), [made])
    images = open_dataset(deep_eyes["test"]).load(max_rows=3).images
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    found = mlflow.pyfunc.load_model(registered).predict(images)
    expected = predict_gaze(load_estimator(Path(str(made.model))), images)
    np.testing.assert_allclose(found, expected, atol=1e-3)
