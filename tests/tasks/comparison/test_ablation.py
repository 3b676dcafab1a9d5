"""Metrics of an ablation's variants."""

from pathlib import Path

import numpy as np

from simgan_core.config import PRESETS
from simgan_core.models.checkpoint import save_refiner
from storage.samples import Rejection, SampleBlock
from storage.schema import DatasetSpec, Domain
from storage.writer import DatasetWriter
from tasks.comparison.ablation import measure_variant
from tasks.comparison.reporting.report import EvaluationResult
from tasks.comparison.reporting.results import ArmResult
from tests.refinement_inputs import random_bilateral_refiner

NUM_BAD = 2000
"""As many as artefacts are looked for in."""


def late_dataset(path: Path, domain: Domain) -> str:
    """Write a dataset whose first 2,000 rows are not valid."""
    count = NUM_BAD + 20
    images = np.random.default_rng(0).integers(1, 256, (count, 8, 8, 1), np.uint8)
    images[:NUM_BAD] = 0
    spec = DatasetSpec(
        num_rows=count,
        height=8,
        width=8,
        channels=1,
        dtype="uint8",
        labels=(),
        domain=domain,
        source={"name": "test"},
        preprocess="none",
    )
    ids = [str(row) for row in range(count)]
    rejections = tuple(Rejection(row, ids[row], "bad") for row in range(NUM_BAD))
    writer = DatasetWriter.open(str(path), spec)
    valid = np.arange(count) >= NUM_BAD
    writer.write_shard(0, SampleBlock(images, valid, ids, {}, rejections))
    return writer.finish().url


def test_artefacts_are_measured_where_the_first_rows_are_all_rejected(tmp_path: Path) -> None:
    refined = late_dataset(tmp_path / "refined.zarr", "refined")
    real = late_dataset(tmp_path / "real.zarr", "real")
    arm = ArmResult(
        title="refined", measure="gaze", error=5, ci95=(4, 6), within=0, median=5, seeds=1
    )
    evaluation = EvaluationResult(
        arm=arm,
        num_test=1,
        num_people=None,
        test_evaluations=1,
        mlflow_run_id="",
        answers=(),
        estimators=(),
    )
    size = {"image_height": 8, "image_width": 8}
    described = {"preprocess": "none", "pixels": "uint8", "figures": {}, **size}
    weights = tmp_path / "refiner.pt"
    save_refiner(weights, random_bilateral_refiner(0.1), PRESETS["bilateral"], described)
    measured = measure_variant.fn(str(weights), refined, real, evaluation)
    assert 0 <= measured.figures["realism/artefacts"] <= 1
