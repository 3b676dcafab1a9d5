"""The nightly pipeline on a real worker, and the alarm when refined got worse."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from storage.reader import open_dataset

pytestmark = pytest.mark.drill

RAISE_ALARM = """
from tasks.comparison.reporting.results import ComparisonResult, Difference
from tasks.nightly import raise_alarm
worse = Difference(measure="gaze", error=1.0, ci95=(0.4, 1.6))
raise_alarm(
    ComparisonResult.model_construct(
        comparison="comparison-1",
        verdict="refined is worse",
        differences={"refined_minus_synthetic": worse},
        mlflow_run_id="1",
    )
)
"""


def test_the_first_night_trains_and_says_why(team: Any, nights: Any) -> None:
    assert "there is none yet" in team.artifacts(nights.first)["retraining"]["description"]
    # What our own packages log is in the run's log.
    assert "48 images ingested, 0 rejected" in team.log_with_subflows(nights.first)


def test_a_night_takes_what_is_new_and_goes_on_with_the_refiner(
    team: Any, nights: Any, more_eyes: Callable[[int], None]
) -> None:
    before = open_dataset(str(team.folder / "data/nightly/synthetic.zarr")).info
    more_eyes(4)
    run_id = team.run("nightly-pipeline", nights.parameters)
    assert team.wait(run_id) == "COMPLETED", team.log_with_subflows(run_id)
    refined = open_dataset(str(team.folder / "data/nightly/refined.zarr")).info
    assert refined.spec.num_rows == before.spec.num_rows + 4
    assert refined.spec.provenance["refiner"] == nights.refiner
    said = team.artifacts(run_id)["retraining"]["description"]
    assert f"Go on with {nights.refiner}" in said
    assert "training: step" not in team.log_with_subflows(run_id)


def test_refined_that_got_worse_pauses_the_nights_until_a_person_has_looked(
    team: Any, nights: Any
) -> None:
    assert not team.deployment("nightly-pipeline")["paused"]
    surroundings = {**team.environment, "PREFECT_API_URL": f"{team.prefect}/api"}
    subprocess.run([sys.executable, "-c", RAISE_ALARM], env=surroundings, check=True)
    team.until(lambda: team.deployment("nightly-pipeline")["paused"], 60, "the automation")
    (alarm,) = team.events("simgan.refined.got-worse")
    assert alarm["payload"]["verdict"] == "refined is worse"
