"""Files of trainings on another machine: what it made is found by MLflow, and not made again."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from simgan_core.data.label_matching import load_label_prior
from simgan_core.errors import InputError
from tasks.comparison.estimate import estimate
from tasks.comparison.kept_files import fetched, prior_file
from tasks.comparison.label_prior import match_labels
from tasks.comparison.plan import Estimate
from tasks.comparison.pseudo_labels import teach_students
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.tracking.runs import KEY_TAG
from tests.tasks.comparison.test_arms import plan


@pytest.fixture
def made_elsewhere(eyes: dict[str, str], home: Path) -> Estimate:
    """An estimate whose files are on a machine that shares MLflow alone."""
    comparison = plan(eyes, 1, arms=("synthetic",))
    made = estimate.fn(comparison.jobs[0], comparison, DatasetCache())
    for folder in ("estimates", "estimators"):
        (home / folder).rename(home / f"{folder}.there")
    there = [
        path.replace(f"/{folder}/", f"/{folder}.there/")
        for folder, path in (("estimates", made.path), ("estimators", str(made.model)))
    ]
    return made._replace(path=there[0], model=there[1])


def test_predictions_and_weights_come_from_mlflow(made_elsewhere: Estimate, home: Path) -> None:
    here = fetched(made_elsewhere)
    assert here.model is not None
    assert {Path(here.path).parent, Path(here.model).parent} == {
        home / "estimates",
        home / "estimators",
    }
    assert Path(here.path).read_bytes() == Path(made_elsewhere.path).read_bytes()
    assert Path(here.model).read_bytes() == Path(str(made_elsewhere.model)).read_bytes()


def test_a_training_that_finished_elsewhere_is_not_repeated(
    made_elsewhere: Estimate, eyes: dict[str, str], home: Path
) -> None:
    comparison = plan(eyes, 1, arms=("synthetic",))
    again = estimate.fn(comparison.jobs[0], comparison, DatasetCache())
    assert Path(again.path).read_bytes() == Path(made_elsewhere.path).read_bytes()
    assert again.run_id == made_elsewhere.run_id
    assert again.validation_error == made_elsewhere.validation_error


def test_a_label_prior_comes_from_mlflow(eyes: dict[str, str], home: Path) -> None:
    planned = plan(eyes, 1, arms=("synthetic",), match_labels="always")
    matched = match_labels.fn(planned, DatasetCache())
    assert matched.label_prior is not None
    density = load_label_prior(Path(matched.label_prior.path)).density
    shutil.rmtree(home / "label_priors")
    assert (load_label_prior(prior_file(matched.label_prior)).density == density).all()


def test_a_file_is_fetched_from_any_run_of_its_key_and_named_where_none_has_it(
    eyes: dict[str, str], home: Path
) -> None:
    planned = plan(eyes, 1, arms=("synthetic",), match_labels="always")
    prior = match_labels.fn(planned, DatasetCache()).label_prior
    assert prior is not None
    kept = home / "label_priors" / f"{prior.id}.npz"
    (logged,) = (home / "mlartifacts").rglob(kept.name)
    logged.unlink()
    # As where two commands began at the same time, and the first was killed.
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    first = client.get_run(logged.parts[-3])
    run = client.create_run(first.info.experiment_id, tags={KEY_TAG: prior.id})
    client.log_artifact(run.info.run_id, str(kept))
    kept.unlink()
    assert prior_file(prior).exists()

    kept.unlink()
    client.delete_run(run.info.run_id)
    with pytest.raises(InputError, match=rf"has no {kept.name}, which this machine needs"):
        prior_file(prior)


@pytest.mark.parametrize("lost", [False, True])
def test_pseudo_labels_are_logged_again_only_where_their_run_has_lost_them(
    eyes: dict[str, str], home: Path, lost: bool
) -> None:
    def taught() -> None:
        planned = plan(eyes, 1, arms=("synthetic", "adapted"), match_labels="never")
        teach_students.fn(planned, DatasetCache())

    taught()
    (logged,) = (home / "mlartifacts").rglob("pseudo-labels-*.npz")
    written_ns = logged.stat().st_ctime_ns
    if lost:
        logged.unlink()
    taught()
    assert (logged.stat().st_ctime_ns > written_ns) == lost


def test_a_label_prior_that_is_on_this_machine_is_in_every_mlflow_that_it_is_used_with(
    eyes: dict[str, str], home: Path, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when a team goes over to a server, and when a command is killed before it logs the file.
    match_labels.fn(plan(eyes, 1, arms=("synthetic",), match_labels="always"), DatasetCache())
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", f"sqlite:///{shutil.copy(empty_mlflow, home / 'b.db')}"
    )
    planned = plan(eyes, 1, arms=("synthetic",), match_labels="always")
    matched = match_labels.fn(planned, DatasetCache())
    assert matched.label_prior is not None
    shutil.rmtree(home / "label_priors")
    assert prior_file(matched.label_prior).exists()
