"""Comparisons rebuilt from MLflow."""

from pathlib import Path

import pytest

from tasks.comparison.estimate import estimate
from tasks.comparison.reporting.tracked_results import results_from_tracking
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.tracking.experiments import COMPARISONS
from tasks.runtime.tracking.runs import tracked_run
from tests.tasks.comparison.test_arms import plan


def test_a_comparison_of_another_release_is_left_out_and_named(
    eyes: dict[str, str], home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracked_run(COMPARISONS, "old", "comparison-old", {"stage": "comparison"}) as run:
        run.text("comparison.json", '{"id": "comparison-old", "arms": []}')
    comparison = plan(eyes, 1, arms=("synthetic",))
    estimate.fn(comparison.jobs[0], comparison, DatasetCache())
    with tracked_run(COMPARISONS, comparison.id, comparison.id):
        pass
    assert [each.comparison for each in results_from_tracking(COMPARISONS)] == [comparison.id]
    assert "comparison-old is of another release" in caplog.text
