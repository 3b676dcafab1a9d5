"""`simgan ablate`: what is left out, what is added, and what is found after a kill."""

import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from mlflow import MlflowClient

from simgan_core.config import PRESETS
from simgan_core.data.label_matching import estimate_label_prior, save_label_prior
from simgan_core.models.checkpoint import load_refiner
from simgan_core.simulator.eyes import sample_scenes
from tasks.comparison.ablation import variants
from tests.flows.conftest import ForkedSimgan, write_eyes

# One that lacks most parts already, so that two trainings are all variants.
TRAINING = {
    "steps": 4, "batch-size": 8, "history-size": 0, "ema-decay": 0.0,
    "discriminator-pretraining-steps": 2, "discriminator.scope": "global",
    "regularization.identity": 1.0, "regularization.gradient": 0.0,
    "refiner.num-features": 4, "refiner.num-blocks": 1,
    "stopping.evaluate-every": 4, "stopping.num-images": 20,
}  # fmt: skip
ESTIMATOR = {"steps": 4, "batch-size": 8}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The command on small datasets: the real images of ten people train, those of five test."""
    folder = tmp_path_factory.mktemp("ablation")
    synthetic, real = (sample_scenes(domain, 30, seed=1) for domain in ("synthetic", "real"))
    tested = real.person >= 10
    places = {
        "synthetic": write_eyes(folder / "synthetic.zarr", "synthetic", synthetic),
        "real": write_eyes(folder / "real.zarr", "real", real[~tested]),
        "test": write_eyes(folder / "test.zarr", "real", real[tested]),
    }
    return (
        *("ablate", "--synthetic", places["synthetic"], "--real", places["real"]),
        *("--test", places["test"]),
        *("--seeds", 1, "--estimator-seeds", 1, "--training.refiner.no-residual"),
        *(word for name, value in TRAINING.items() for word in (f"--training.{name}", value)),
        *(word for name, value in ESTIMATOR.items() for word in (f"--estimator.{name}", value)),
    )


def test_each_part_that_a_training_has_is_left_out_once() -> None:
    found = variants(PRESETS["stable"], None)
    assert list(found) == ["as it is", "no history", "global adversary", "identity-only ψ",
                           "no averaging", "no residual"]  # fmt: skip
    assert found["no history"].history_size == 0
    assert found["global adversary"].discriminator.scope == "global"
    assert len(set(found.values())) == len(found)
    assert list(variants(PRESETS["stable"], None, ("history",))) == ["as it is", "no history"]
    assert list(variants(PRESETS["bilateral"], None, ("residual",))) == ["as it is"]


def test_label_matching_is_added_where_a_training_has_none_and_else_left_out() -> None:
    added = variants(PRESETS["stable"], "prior.npz")["with label matching"]
    assert added == PRESETS["stable"].model_copy(update={"match_labels_by": "prior.npz"})
    assert variants(added, "other.npz")["no label matching"] == PRESETS["stable"]


class Ablation(NamedTuple):
    """An ablation that was killed once its first refiner was there, and run again."""

    rows: list[dict[str, Any]]
    """The table of the second run."""
    first: Path
    """Weights of the refiner that the killed run had trained."""
    written_at: tuple[int, int]
    """When its file was written, in ns: as the first run left it, and after the second."""
    second: Path
    """Weights of the refiner that the second run trained."""


@pytest.fixture(scope="module")
def ablation(
    simgan: ForkedSimgan, words: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory
) -> Ablation:
    refiners = Path(simgan.environment["SIMGAN_HOME"]) / "refiners"
    known = set(refiners.glob("*/refiner.pt"))
    words = (*words, "--out", tmp_path_factory.mktemp("refined"))
    process = simgan.start(*words)
    while not (made := set(refiners.glob("*/refiner.pt")) - known):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    (first,) = made
    made_at = first.stat().st_mtime_ns

    done = simgan(*words, "--json")
    assert done.returncode == 0, done.stderr
    (second,) = set(refiners.glob("*/refiner.pt")) - known - made
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    return Ablation(rows, first, (made_at, first.stat().st_mtime_ns), second)


def test_killed_it_goes_on_and_tabulates_every_variant(
    ablation: Ablation, environment: dict[str, str]
) -> None:
    before, after = ablation.written_at
    assert before == after
    as_it_is, matched = ablation.rows
    assert (as_it_is["variant"], matched["variant"]) == ("as it is", "with label matching")
    assert as_it_is["minus_as_it_is"] is None
    (share,) = as_it_is["figures"]["realism/artefacts"]
    assert 0 <= share <= 1
    low, high = matched["minus_as_it_is"]["ci95"]
    difference = matched["figures"]["error"][0] - as_it_is["figures"]["error"][0]
    assert matched["minus_as_it_is"]["error_deg"] == pytest.approx(difference)
    assert low <= difference <= high
    assert load_refiner(ablation.second).config.match_labels_by is not None
    client = MlflowClient(f"sqlite:///{environment['SIMGAN_HOME']}/mlflow.db")
    variants_made = {weights.parent.name for weights in (ablation.first, ablation.second)}
    registered = client.search_model_versions("name='refiner'")
    aliases = {
        alias
        for version in registered
        if version.tags["simgan.refiner"] in variants_made
        for alias in client.get_model_version("refiner", version.version).aliases
    }
    assert aliases == {"candidate"}


def test_dasks_workers_tabulate_the_same(
    simgan: ForkedSimgan,
    ablation: Ablation,
    words: tuple[object, ...],
    empty_mlflow: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "home").mkdir()
    shutil.copy(empty_mlflow, tmp_path / "home")
    own = simgan.with_environment({"SIMGAN_HOME": str(tmp_path / "home")})
    done = own(*words, "--out", tmp_path / "refined", "--runner", "dask", "--workers", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == ablation.rows


def test_nothing_is_estimated_for_a_training_with_a_label_prior_of_its_own(
    simgan: ForkedSimgan, words: tuple[object, ...], empty_mlflow: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    shutil.copy(empty_mlflow, tmp_path / "home")
    labels_deg = np.random.default_rng(0).normal(0, 9, (40, 2))
    prior = estimate_label_prior(labels_deg[None], labels_deg, (5.0, 5.0), seed=0)
    save_label_prior(tmp_path / "prior.npz", prior)
    own = simgan.with_environment({"SIMGAN_HOME": str(tmp_path / "home")})
    done = own(
        *(*words, "--out", tmp_path / "refined", "--parts", "label-matching", "--json"),
        *("--training.match-labels-by", tmp_path / "prior.npz"),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [row["variant"] for row in rows] == ["as it is", "no label matching"]
    assert not (tmp_path / "home" / "label_priors").exists()
