"""A refiner that made images worse on real tests bears it, and `refine` says so."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from storage.reader import open_dataset
from tasks.comparison.reporting.report import _warn_of_refiner
from tasks.refinement.refine import finish_refinement, plan_refinement, refine_shards
from tasks.runtime.tracking.runs import begin_run, warnings_of_refiner
from tests.refinement_inputs import make_refiner, make_synthetic

REFINER = "refiner-000000000000"


@pytest.fixture
def refined(home: Path, tmp_path: Path) -> str:
    """A dataset refined by a registered refiner."""
    run = begin_run("refiners", REFINER, REFINER)
    run.register_model("refiner", "model", {"simgan.refiner": REFINER})
    make_synthetic(str(tmp_path / "synthetic.zarr"), 32, 16, ())
    make_refiner(tmp_path / "refiner.pt")
    names = ("synthetic.zarr", "refiner.pt", "refined.zarr")
    dataset, refiner, to = (str(tmp_path / name) for name in names)
    plan = plan_refinement.fn(dataset, refiner, to, dtype="fp32")
    refine_shards.fn(plan.groups[0], dataset, refiner, to)
    return finish_refinement.fn(to).url


def conclude(refined: str, test: str, is_worse: bool) -> None:
    difference = SimpleNamespace(is_worse=is_worse)
    datasets = {url: open_dataset(url).info for url in (refined, test)}
    _warn_of_refiner(
        SimpleNamespace(id="comparison-1", refined=refined, test=test, datasets=datasets),
        SimpleNamespace(
            differences={"refined_minus_synthetic": difference}, verdict="Refined is WORSE."
        ),
    )


def test_a_comparison_on_real_images_that_it_lost_is_on_the_refiner(
    refined: str, eyes: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conclude(refined, eyes["test"], is_worse=True)
    assert warnings_of_refiner(REFINER) == ["Refined is WORSE."]
    with caplog.at_level(logging.WARNING):
        plan_refinement.fn(
            str(tmp_path / "synthetic.zarr"), str(tmp_path / "refiner.pt"), str(tmp_path / "again")
        )
    assert "this refiner's images did worse than synthetic ones: Refined is" in caplog.text


def test_one_that_it_did_not_lose_or_that_was_not_on_real_images_is_not(
    refined: str, eyes: dict[str, str]
) -> None:
    conclude(refined, eyes["test"], is_worse=False)
    conclude(refined, eyes["synthetic"], is_worse=True)
    assert warnings_of_refiner(REFINER) == []


def test_no_mlflow_is_set_up_to_look_for_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert warnings_of_refiner(REFINER) == []
    assert not (tmp_path / "none").exists()
