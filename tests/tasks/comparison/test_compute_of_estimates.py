"""What `auto` stood for is named: in ids where it changes results, else on the run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from tasks.comparison.estimate import estimate, find_estimates
from tasks.runtime.dataset_cache import DatasetCache
from tests.tasks.comparison.test_arms import QUICK, plan


def test_the_number_format_that_auto_chose_is_in_the_ids(eyes: dict[str, str], home: Path) -> None:
    ids = {
        precision: plan(
            eyes, 1, QUICK.model_copy(update={"precision": precision}), arms=("synthetic",)
        )
        for precision in ("auto", "fp32", "bf16")
    }
    chosen = ids["auto"].estimator.precision
    assert chosen in {"fp32", "bf16"}
    assert ids["auto"].id == ids[chosen].id
    assert ids["fp32"].id != ids["bf16"].id


def test_answers_and_run_name_device_format_and_threads(
    eyes: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = plan(eyes, 1, arms=("synthetic",))
    (job,) = comparison.jobs
    made = estimate.fn(job, comparison, DatasetCache())
    with np.load(made.path) as kept:
        assert f'"precision": "{comparison.estimator.precision}"' in str(kept["compute"])
    # Elsewhere, with other threads, the same MLflow run is gone on with, whose files were removed.
    for kept_there in ("estimates", "estimators", "mlartifacts"):
        shutil.rmtree(home / kept_there)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    estimate.fn(job, comparison, DatasetCache())

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("comparisons")
    (run,) = client.search_runs([experiment.experiment_id], filter_string="tags.stage = 'evaluate'")
    assert run.data.params["compute.precision"] == comparison.estimator.precision
    assert run.data.params["compute.device"].startswith(("cpu (", "cuda ("))
    assert run.data.params["compute.threads"] == "1"
    assert run.data.tags["simgan.repeated.compute.threads"] == "7"


def test_what_is_finished_is_found_and_what_lacks_its_file_or_its_end_is_not(
    eyes: dict[str, str], home: Path
) -> None:
    comparison = plan(eyes, 2, arms=("synthetic",))
    assert find_estimates.fn(comparison) == {}
    made = [estimate.fn(job, comparison, DatasetCache()) for job in comparison.jobs]
    first, second = comparison.jobs
    assert find_estimates.fn(comparison) == {first.name: made[0], second.name: made[1]}
    Path(made[0].path).unlink()
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    client.update_run(made[1].run_id, status="RUNNING")
    assert find_estimates.fn(comparison) == {}
