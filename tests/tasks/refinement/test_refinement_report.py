"""The summary of a refinement: counts, reasons, and shifts over all its shards."""

from typing import Any

import pytest

from simgan_core.quality.gate import HISTOGRAM_EDGES_PX
from storage.reader import open_dataset
from storage.schema import DatasetInfo
from tasks.refinement.report import PAIRS_SHOWN, Summary, before_after, markdown
from tests.refinement_inputs import make_synthetic

FIRST = f"pupil_shift_px.from_{HISTOGRAM_EDGES_PX[0]:.2f}"


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> DatasetInfo:
    info = make_synthetic(str(tmp_path_factory.mktemp("data") / "eyes.zarr"), 32, 16, (3,))
    made = {"refiner": "refiner-1", "dtype": "bf16", "gate_shift_px": 2.5}
    spec = info.spec.model_copy(update={"provenance": made})
    return info.model_copy(update={"spec": spec})


def summary(info: DatasetInfo, *figures: tuple[int, dict[str, Any]]) -> str:
    return markdown(Summary(info, 16, 2.0, {"too dark": 1}, list(figures)))


def test_counts_rate_reasons_and_refiner_are_listed(info: DatasetInfo) -> None:
    text = summary(info, (15, {"num_saturated": 2.0}), (16, {"num_saturated": None}))
    for line in (
        "| rows | 32 |",
        "| valid | 31 |",
        "| not valid: too dark | 1 |",
        "| refined in this run | 16 |",
        "| rate | 8 images a second |",
        "| refiner | refiner-1, bf16 |",
        "| gate | 2.5 px |",
        "| saturated images | 2 |",
    ):
        assert line in text
    assert "How far the pupils moved" not in text


def test_the_mean_shift_is_weighted_by_the_shards_rows(info: DatasetInfo) -> None:
    text = summary(
        info,
        (30, {FIRST: 30.0, "pupil_shift_px.mean": 1.0, "num_lost": 1.0}),
        (10, {FIRST: 10.0, "pupil_shift_px.mean": 3.0, "num_lost": 2.0}),
        (5, {"pupil_shift_px.mean": None}),
    )
    assert "Mean 1.50 px; found in both images: 40, lost by refinement: 3." in text
    assert f"| from {HISTOGRAM_EDGES_PX[0]:.2f} | 40 | {'█' * 30} |" in text


def test_pairs_of_rows_are_shown(info: DatasetInfo) -> None:
    dataset = open_dataset(info.url)
    sheet = before_after(dataset, dataset)
    num_rows = 2 * (PAIRS_SHOWN // 10)
    assert sheet.shape[0] == num_rows * (2 * 35 + 2) - 2
    assert (sheet[: 2 * 35] == sheet[2 * 35 + 2 : 4 * 35 + 2]).all()
