"""One process of a training: told to stop it keeps a checkpoint, and goes on to the same bits."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from simgan_core.config import RefinerConfig, StoppingConfig, TrainingConfig
from simgan_core.errors import InputError
from simgan_core.models.checkpoint import load_refiner
from simgan_core.simulator.eyes import render, sample_scenes
from storage.reader import Dataset, open_dataset
from tasks.runtime.processes.cancellation import EXIT_CODE
from tasks.runtime.recipes import recipe_version
from tasks.runtime.tracking.experiments import REFINERS
from tasks.runtime.tracking.runs import TrackedRun, begin_run
from tasks.training.data import (
    DatasetShards,
    are_loaded,
    open_training_data,
    with_auto_where_alike,
)
from tasks.training.fit import fit
from tasks.training.train import _refiner_id
from tests.tasks.comparison.conftest import write_dataset

CONFIG = TrainingConfig(
    refiner=RefinerConfig(num_features=4, num_blocks=1),
    steps=4,
    discriminator_pretraining_steps=1,
    batch_size=4,
    history_size=4,
    log_every=1,
    stopping=StoppingConfig(evaluate_every=2, num_images=10),
)


class StoppedRun(TrackedRun):
    """A run at whose first losses SIGTERM comes."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Send it, then record."""
        if "refiner/loss" in values:
            os.kill(os.getpid(), signal.SIGTERM)
        super().metrics(values, step)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """Unlabelled eyes of both domains."""
    folder = tmp_path_factory.mktemp("unlabelled")
    synthetic, real = (render(sample_scenes(d, 20, 1), "crop", 35, 55).images  # type: ignore[arg-type]
                       for d in ("synthetic", "real"))  # fmt: skip
    ids = [str(row) for row in range(20)]
    return (
        open_dataset(write_dataset(folder / "synthetic.zarr", "synthetic", synthetic, ids, {})),
        open_dataset(write_dataset(folder / "real.zarr", "real", real, ids, {})),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SIMGAN_HOME of this module."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMGAN_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture(scope="module")
def whole(datasets: tuple[Dataset, Dataset], home: Path) -> Path:
    """The weights of an undisturbed training."""
    weights = weights_of(home, "whole")
    run = begin_run(REFINERS, "whole", "whole")
    fit(weights, *datasets, CONFIG, run, may_lead=False)
    run.flush()
    return weights


def weights_of(home: Path, refiner: str) -> Path:
    (home / refiner).mkdir()
    return home / refiner / "refiner.pt"


def test_a_training_told_to_stop_leaves_a_checkpoint_and_goes_on_to_the_same_bits(
    datasets: tuple[Dataset, Dataset], home: Path, whole: Path
) -> None:
    weights = weights_of(home, "stopped")
    run = begin_run(REFINERS, "stopped", "stopped")
    stopped = StoppedRun(run.client, run.run_id, run.experiment_id)
    with pytest.raises(SystemExit) as ended:
        fit(weights, *datasets, CONFIG, stopped)
    assert ended.value.code == EXIT_CODE
    assert not weights.exists()
    assert weights.with_name("training.ckpt").exists()

    fit(weights, *datasets, CONFIG, run, may_lead=False)
    ours, theirs = (load_refiner(path).refiner.state_dict() for path in (weights, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_images_that_memory_does_not_hold_are_refused_and_never_read_in_another_way(
    datasets: tuple[Dataset, Dataset], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=50_000))
    run = begin_run(REFINERS, "crowded", "crowded")
    with pytest.raises(InputError, match=r"memory 0\.0 GiB are free.* --images-in shards"):
        fit(weights_of(home, "crowded"), *datasets, CONFIG, run)
    in_shards = CONFIG.model_copy(update={"images_in": "shards"})
    data = open_training_data(*datasets, in_shards, torch.device("cpu"))
    assert isinstance(data.synthetic, DatasetShards)
    assert isinstance(data.real, DatasetShards)


def test_the_size_of_datasets_alone_decides_whether_images_are_loaded(
    datasets: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic, real = datasets
    large = SimpleNamespace(info=real.info.model_copy(update={"num_valid": 3_000_000}))
    assert are_loaded(synthetic, real, CONFIG) == (True, True)
    assert are_loaded(synthetic, large, CONFIG) == (True, False)


def test_an_id_says_which_images_are_read_in_shards(datasets: tuple[Dataset, Dataset]) -> None:
    synthetic, real = datasets
    large = SimpleNamespace(info=real.info.model_copy(update={"num_valid": 3_000_000}))

    def id_of(images_in: str, real: Any = real) -> str:
        config = with_auto_where_alike(
            CONFIG.model_copy(update={"images_in": images_in}), synthetic, real
        )
        return _refiner_id(synthetic, real, config)

    assert id_of("auto") == id_of("memory") != id_of("shards")
    assert len({id_of(each, large) for each in ("auto", "memory", "shards")}) == 3
    assert len({id_of("auto"), id_of("auto", large)}) == 2


def test_the_refiner_carries_its_datasets_recipe_and_verdict(
    datasets: tuple[Dataset, Dataset], whole: Path
) -> None:
    found = load_refiner(whole).metadata
    synthetic, real = datasets
    assert found["refiner"] == "whole"
    assert found["synthetic_digest"] == synthetic.info.digest
    assert found["real_digest"] == real.info.digest
    assert found["recipe"] == recipe_version("train")
    assert found["alias"] == "candidate"
    run = begin_run(REFINERS, "whole", "whole")
    kept = run.client.get_run(run.run_id)
    assert kept.data.tags["simgan.verdict"] == found["verdict"]
    assert kept.data.metrics["best/realism/kid"] == pytest.approx(found["figures"]["realism/kid"])
