"""When the nightly pipeline trains a refiner anew."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from simgan_core.config import PRESETS
from storage.schema import GAZE, DatasetInfo, DatasetSpec
from tasks.nightly import LastTraining, RetrainRule, decide

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)


def dataset(num_rows: int, digest: str) -> DatasetInfo:
    """A description of a dataset; decisions are made on nothing else."""
    spec = DatasetSpec(
        num_rows=num_rows,
        height=35,
        width=55,
        channels=1,
        dtype="uint8",
        labels=(GAZE,),
        domain="synthetic",
        source={"name": "test"},
        preprocess="none",
    )
    return DatasetInfo(
        url="nowhere", spec=spec, num_valid=num_rows, num_rejected=0, digest=digest * 64
    )


LAST = LastTraining(
    refiner="refiner-1",
    num_synthetic=1000,
    real_digest="b" * 64,
    config=PRESETS["stable"],
    trained_at=NOW - timedelta(days=5),
)


@pytest.mark.parametrize(
    ("change", "num_rows", "reason"),
    [
        ({}, 1249, None),
        ({}, 1250, "grown by 25%"),
        ({"worse": True}, 1000, "trained worse estimators"),
        ({"trained_at": NOW - timedelta(days=30)}, 1000, "30 days ago"),
        ({"real_digest": "c" * 64}, 1000, "real images have changed"),
        ({"config": PRESETS["demo"]}, 1000, "settings have changed"),
    ],
)
def test_a_refiner_is_trained_when_the_rule_says_so_and_only_then(
    change: dict[str, Any], num_rows: int, reason: str | None
) -> None:
    last = LAST.model_copy(update=change)
    decision = decide(
        last, dataset(num_rows, "a"), dataset(500, "b"), PRESETS["stable"], RetrainRule(), NOW
    )
    if reason is None:
        assert decision.refiner == "refiner-1"
    else:
        assert decision.refiner is None
        assert reason in decision.reason


@pytest.mark.parametrize(
    "change", [{"worse": True}, {"trained_at": NOW - timedelta(days=30)}], ids=["worse", "old"]
)
def test_a_training_that_would_give_the_last_refiner_again_is_not_called_a_new_one(
    change: dict[str, Any],
) -> None:
    last = LAST.model_copy(update=change)
    given = last, dataset(1000, "a"), dataset(500, "b"), PRESETS["stable"], RetrainRule(), NOW
    decision = decide(*given, finished="refiner-1")
    assert decision.refiner == "refiner-1"
    assert "would give this refiner again" in decision.reason
    assert decide(*given, finished="refiner-2").refiner is None


def test_the_first_night_trains() -> None:
    decision = decide(None, dataset(9, "a"), dataset(9, "b"), PRESETS["stable"], RetrainRule(), NOW)
    assert decision == (None, "there is none yet")


def test_a_note_of_another_release_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path))
    LAST.write("out")
    assert LastTraining.read("out") == LAST
    (note,) = (tmp_path / "nightly").iterdir()
    values = json.loads(note.read_text())
    values["config"]["former_setting"] = 1
    note.write_text(json.dumps(values))
    assert LastTraining.read("out") is None
