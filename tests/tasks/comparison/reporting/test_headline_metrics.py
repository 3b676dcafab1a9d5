"""MLflow's list of comparisons shows a dozen figures; tables beside them have the rest."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.comparison.arms import Protocol
from tasks.comparison.plan import LabelSpread, PseudoLabelsRef
from tasks.comparison.reporting.report import headline_metrics, record
from tasks.comparison.reporting.results import ArmResult, ComparisonResult, Difference, PupilShift
from tasks.comparison.reporting.tracked_results import pupil_shift
from tasks.runtime.tracking.runs import runs_with, tracked_run

ARMS = ("synthetic", "synthetic_unmatched", "tone_matched", "refined", "adapted", "real")


def result(report: Path) -> ComparisonResult:
    arm = ArmResult(
        title="Synthetic",
        measure="gaze",
        error=4.5,
        ci95=(4.0, 5.0),
        within=0.9,
        median=4,
        seeds=3,
        pseudo_label_error_deg=8.1,
        pseudo_label_error_sd_deg=0.2,
    )
    better = Difference(measure="gaze", error=-0.5, ci95=(-0.9, -0.1))
    return ComparisonResult(
        comparison="comparison-1",
        measure="gaze",
        protocol=Protocol(),
        arms=dict.fromkeys(ARMS, arm),
        differences={f"refined_minus_{name}": better for name in ARMS if name != "refined"},
        test_digest="0" * 64,
        num_test=1200,
        num_people=None,
        seeds=3,
        pupil_shift_px=PupilShift(mean=0.8, sd=0.4, median=0.7),
        label_matching=None,
        pseudo_labels={},
        judged_by=PseudoLabelsRef(
            id="pseudo-labels-1",
            num_sources=2,
            num_neighbours=20,
            num_steps=10,
            agreement=0.5,
            agreement_uncentred=0.4,
            spread=LabelSpread(mean_deg=(0, 0), sd_deg=(5, 5)),
        ),
        verdict="Refined is better.",
        test_evaluations=7,
        registered_model=None,
        mlflow_run_id="run",
        flow_run=None,
        report=str(report),
    )


def test_headline_metrics_are_a_dozen_and_the_answer_is_among_them(tmp_path: Path) -> None:
    found = headline_metrics(result(tmp_path))
    assert len(found) == 13
    assert found["refined.error_deg"] == 4.5
    assert found["refined.pseudo_label_error_deg"] == 8.1
    assert found["refined_minus_synthetic.ci95_high"] == -0.1


def test_a_recorded_comparison_has_tables_of_all_arms_once_and_its_pupils_are_read_back(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report").mkdir()
    with tracked_run("comparisons", "c", "c", {"stage": "comparison"}) as run:
        for _ in range(2):  # concluded again, nothing is doubled
            record(run, result(tmp_path), tmp_path / "report")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    client = MlflowClient()
    tables = {
        name: client.load_table(run.experiment_id, f"{name}.json", run_ids=[run.run_id])
        for name in ("arms", "differences")
    }
    assert list(tables["arms"]["arm"]) == list(ARMS)
    assert tables["differences"].loc[0, "ci95_low"] == -0.9
    assert list(tables["arms"]["pseudo_label_error_deg"]) == [8.1] * len(ARMS)
    (kept,) = runs_with("comparisons", {"stage": "comparison"})
    assert len(kept.metrics) == 13
    assert pupil_shift(kept) == PupilShift(mean=0.8, sd=0.4, median=0.7)
