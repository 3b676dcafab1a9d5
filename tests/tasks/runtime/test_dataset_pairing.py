"""A dataset whose images and labels are shuffled is warned of where people look."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simgan_core.simulator.eyes import render, sample_scenes
from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import GAZE, PUPIL_PX, DatasetSpec
from storage.writer import DatasetWriter
from tasks.runtime.pairing import check_dataset_pairing
from tasks.training.domain_report import report_domains
from tasks.viewing.inspect import inspect_dataset

NUM_ROWS = 300


class Run:
    """Keeps what an MLflow run would be given."""

    def __init__(self) -> None:
        self.kept_metrics: dict[str, float] = {}
        self.kept_tags: dict[str, str] = {}

    def metrics(self, values: dict[str, float]) -> None:
        self.kept_metrics |= values

    def tags(self, values: dict[str, str]) -> None:
        self.kept_tags |= values

    def image(self, name: str, pixels: np.ndarray) -> None:
        assert pixels.size, name


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Eyes with their labels, with each other's, and without pupils."""
    folder = tmp_path_factory.mktemp("pairs")
    scenes = sample_scenes("synthetic", NUM_ROWS, seed=2)
    rendered = render(scenes, "crop", 35, 55)
    order = np.arange(NUM_ROWS)
    return {
        "right": write(folder / "right", rendered.images, scenes.gaze, rendered.pupil_px),
        "shuffled": write(
            folder / "shuffled",
            rendered.images,
            scenes.gaze[np.roll(order, 1)],
            rendered.pupil_px[np.roll(order, 1)],
        ),
        "without": write(folder / "without", rendered.images, scenes.gaze, None),
    }


def write(to: Path, images: Any, gaze: Any, pupil_px: Any) -> str:
    spec = DatasetSpec(
        num_rows=NUM_ROWS,
        height=35,
        width=55,
        channels=1,
        dtype="uint8",
        labels=(GAZE,) if pupil_px is None else (GAZE, PUPIL_PX),
        domain="synthetic",
        source={"name": "test"},
        preprocess="none",
    )
    labels = {"gaze": gaze} | ({} if pupil_px is None else {"pupil_px": pupil_px})
    writer = DatasetWriter.open(str(to), spec)
    writer.write_shard(
        0,
        SampleBlock(
            images,
            np.ones(NUM_ROWS, bool),
            [f"eye/{row}" for row in range(NUM_ROWS)],
            {name: np.asarray(label, np.float32) for name, label in labels.items()},
        ),
    )
    return writer.finish().url


def test_inspecting_warns_of_shuffled_pairs_alone(places: dict[str, str], tmp_path: Path) -> None:
    found = {name: inspect_dataset(url, tmp_path / "sheet.png") for name, url in places.items()}
    assert found["right"].warnings == found["without"].warnings == ()
    assert "pupil labels that miss the dark pupil of their image: 0.0%" in found["right"].text()
    assert found["without"].pupil_labels_missed is None
    assert "warning: images and labels look shuffled" in found["shuffled"].text()


def test_the_domain_report_warns_of_shuffled_pairs(places: dict[str, str]) -> None:
    runs = {}
    for name, url in places.items():
        runs[name] = Run()
        report_domains(runs[name], open_dataset(url), open_dataset(places["right"]))  # type: ignore[arg-type]
    assert "shuffled" in runs["shuffled"].kept_tags["simgan.warning"]
    assert runs["shuffled"].kept_metrics["domains/synthetic.pupil_labels_missed"] > 0.3
    assert "simgan.warning" not in runs["right"].kept_tags
    assert "domains/synthetic.pupil_labels_missed" not in runs["without"].kept_metrics


def test_rows_are_spread_over_a_large_dataset(
    places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.runtime.pairing._ROWS_A_BLOCK", 16)
    found = check_dataset_pairing(open_dataset(places["shuffled"]))
    assert found is not None
    assert 64 < found.num_judged <= 128
