"""Who is champion: by errors on pseudo-labels where comparisons measured them, whatever died."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tasks.runtime.tracking.champion import (
    MAY_LEAD_TAG,
    SYNTHETIC_TAG,
    Measurement,
    choose_champion,
    chosen_champion,
    remember_measurement,
)
from tasks.runtime.tracking.runs import REFINER_TAG, REGISTERED_REFINER, begin_run

CRITERION = "criterion-1"


@pytest.fixture(autouse=True)
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_mlflow: Path) -> MlflowClient:
    """MLflow of this test alone."""
    shutil.copy(empty_mlflow, tmp_path)
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


def register(refiner: str, alias: str = "candidate", may_lead: bool = True, on: str = "s") -> str:
    """Register a refiner as a training does; returns its version."""
    tags = {
        REFINER_TAG: refiner,
        MAY_LEAD_TAG: "true" if may_lead else "false",
        SYNTHETIC_TAG: on,
    }
    run = begin_run("refiners", refiner, refiner)
    return run.register_model(REGISTERED_REFINER, "model", tags, alias)


def measure(refiner: str, error_deg: float, **other: Any) -> None:
    """Remember an error as a comparison does."""
    usual: dict[str, Any] = {
        "criterion": CRITERION,
        "measured_by": "choice-1",
        "error_deg": error_deg,
        "sd_deg": 0.1,
        "synthetic": "s.zarr",
        "synthetic_digest": "s",
        "unlabelled": "u.zarr",
        "unlabelled_digest": "u",
        "teachers": (),
        "refined": f"{refiner}.zarr",
    }
    remember_measurement(refiner, Measurement(**usual | other))


def champion(client: MlflowClient) -> str:
    version = client.get_model_version_by_alias(REGISTERED_REFINER, "champion")
    return str(version.tags[REFINER_TAG])


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_least_error_leads_and_a_repetition_changes_nothing(client: MlflowClient) -> None:
    register("a", "champion")
    register("b")
    measure("a", 8.5)
    assert choose_champion(CRITERION) is None
    assert chosen_champion() is None
    measure("b", 8.1)
    said = choose_champion(CRITERION)
    assert said is not None
    assert "b (version 2): error on pseudo-labels 8.10°, the least of 2 refiners" in said
    for _ in range(2):
        assert champion(client) == "b"
        assert client.get_model_version(REGISTERED_REFINER, "2").aliases == ["champion"]
        assert choose_champion(CRITERION) == said
    chosen = chosen_champion()
    assert chosen is not None
    assert chosen.compared_with == (
        "simgan choose --synthetic s.zarr --unlabelled u.zarr --refined b.zarr --refined NEW.zarr"
    )


@pytest.mark.parametrize("dies_in", ["set_registered_model_alias", "delete_registered_model_alias"])
def test_a_decision_that_is_killed_is_made_by_the_next_run(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    register("a", "champion")
    register("b")
    measure("a", 8.5)
    measure("b", 8.1)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, dies_in, killed)
        with pytest.raises(KeyboardInterrupt):
            choose_champion(CRITERION)
    choose_champion(CRITERION)
    assert champion(client) == "b"
    assert client.get_model_version(REGISTERED_REFINER, "2").aliases == ["champion"]


@pytest.mark.parametrize("dies_in", ["set_registered_model_alias", "delete_model_version_tag"])
def test_a_training_that_is_killed_before_its_alias_is_set_sets_it_when_repeated(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    register("a", "champion")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, dies_in, killed)
        with pytest.raises(KeyboardInterrupt):
            register("b", "champion")
    assert register("b", "champion") == "2"
    assert champion(client) == "b"
    register("c", "champion")
    register("b", "champion")
    assert champion(client) == "c"
    # Nothing is left to be done.
    assert set(client.get_model_version(REGISTERED_REFINER, "2").tags) == {
        REFINER_TAG, MAY_LEAD_TAG, SYNTHETIC_TAG,
    }  # fmt: skip


def test_an_alias_that_moved_after_a_training_was_killed_stays(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("a")
    register("b", "champion")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            register("c", "champion")
    client.set_registered_model_alias(REGISTERED_REFINER, "champion", "1")
    register("c", "champion")
    assert champion(client) == "a"


def test_neither_a_refused_refiner_nor_a_variant_of_an_ablation_leads(
    client: MlflowClient,
) -> None:
    register("a", "champion")
    register("b")
    register("c", may_lead=False)
    for refiner, error_deg in (("a", 8.5), ("b", 8.1), ("c", 7.0)):
        measure(refiner, error_deg)
    choose_champion(CRITERION)
    assert champion(client) == "b"


def test_errors_of_another_criterion_are_not_compared(client: MlflowClient) -> None:
    register("a", "champion")
    register("b")
    measure("a", 8.5)
    measure("b", 8.1, criterion="criterion-2", measured_by="choice-2")
    assert choose_champion(CRITERION) is None
    assert champion(client) == "a"


@pytest.mark.parametrize(
    ("first", "trained_on", "leads"),
    [
        ("never measured", "s", "c"),
        ("never measured", "another", "a"),
        ("chosen elsewhere", "s", "a"),
    ],
)
def test_a_champion_that_was_not_measured_here_stays_where_it_cannot_be_compared(
    client: MlflowClient, first: str, trained_on: str, leads: str
) -> None:
    register("a", "champion", on=trained_on)
    for refiner, error_deg in (("b", 8.5), ("c", 8.1)):
        register(refiner)
        measure(refiner, error_deg)
    if first == "chosen elsewhere":
        elsewhere = {"criterion": "criterion-2", "measured_by": "choice-2"}
        measure("a", 8.0, **elsewhere)
        measure("b", 8.2, **elsewhere)
        choose_champion("criterion-2")
    said = choose_champion(CRITERION)
    assert said is not None
    assert champion(client) == leads
    assert ("stays" in said) == (leads == "a")
