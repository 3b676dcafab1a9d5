"""`kill -9` in the middle of a stage, then the same command again: the same bits as undisturbed."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from simgan_core.models.checkpoint import load_checkpoint
from storage.reader import open_dataset
from storage.sources.formats.mpiigaze import MPIIGazeOptions
from storage.sources.formats.unityeyes import UnityEyesOptions
from storage.sources.options import SourceOptions
from tasks.ingestion.ingest import finish_ingestion, ingest_shards, plan_ingestion
from tasks.ingestion.session import sole_ingestion
from tasks.simulate import simulate_real, simulate_synthetic
from tests.flows.test_refine_flow import workers_of

TRAINING = ("--steps", 60, "--batch-size", 8, "--history-size", 16, "--refiner.num-features", 4,
            "--refiner.num-blocks", 1, "--checkpoint-every", 5, "--sample-every", 30,
            "--discriminator-pretraining-steps", 10, "--stopping.num-images", 40)  # fmt: skip
INGESTION = ("--preprocess", "equalize", "--rows-per-shard", 8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both domains as files."""
    folder = tmp_path_factory.mktemp("files")
    simulate_synthetic.fn(str(folder / "synthetic"), 240, seed=1)
    simulate_real.fn(str(folder / "real"), 60, seed=2)
    return folder


@pytest.fixture(scope="module")
def datasets(files: Path) -> Path:
    """Both domains as datasets."""
    ingested(UnityEyesOptions(folder=str(files / "synthetic")), files / "synthetic.zarr")
    ingested(MPIIGazeOptions(folder=str(files / "real")), files / "real.zarr")
    return files


def ingested(source: SourceOptions, to: Path, append: bool = False) -> str:
    """Ingest as INGESTION has it, without any disturbance; returns the digest."""
    with sole_ingestion(source, str(to)) as session:
        plan = plan_ingestion.fn(session, "equalize", 8, append=append)
        for group in plan.groups:
            ingest_shards.fn(group, session, plan.listing_digest, "equalize", plan.num_kept)
        return finish_ingestion.fn(session, 0.0, plan.num_kept).digest


def kill_when(simgan: Any, words: tuple[object, ...], begun: Callable[[], bool]) -> None:
    """Start a command and kill it as soon as its work has visibly begun."""
    process = simgan.start(*words)
    while not begun():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.kill()
    process.communicate()


def num_records(dataset: Path) -> int:
    """How many shards are done."""
    return len(list((dataset / "records").glob("*/zarr.json")))


def result_of(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_ingest_goes_on_to_the_same_digest(simgan: Any, datasets: Path, tmp_path: Path) -> None:
    to = tmp_path / "d.zarr"
    words = ("ingest", "unityeyes", datasets / "synthetic", "--to", to, *INGESTION, "--json")
    kill_when(simgan, words, lambda: num_records(to) >= 3)
    digest = result_of(simgan(*words))["digest"]
    assert digest == open_dataset(str(datasets / "synthetic.zarr")).info.digest


def test_a_killed_dask_worker_costs_an_ingestion_its_unfinished_shards_only(
    simgan: Any, datasets: Path, tmp_path: Path
) -> None:
    to = tmp_path / "d.zarr"
    process = simgan.start("ingest", "unityeyes", datasets / "synthetic", "--to", to, *INGESTION,
                           "--runner", "dask", "--workers", 2, "--json")  # fmt: skip
    while num_records(to) < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    done_before = {path: path.stat().st_mtime_ns for path in (to / "records").glob("*/zarr.json")}
    first, _ = workers_of(process)
    first.kill()
    out, err = process.communicate()
    assert process.returncode == 0, err
    digest = json.loads(out.splitlines()[-1])["digest"]
    assert digest == open_dataset(str(datasets / "synthetic.zarr")).info.digest
    assert {path: path.stat().st_mtime_ns for path in done_before} == done_before


def test_an_addition_goes_on_to_the_same_digest(
    simgan: Any, datasets: Path, tmp_path: Path
) -> None:
    """Pairs 1 to 180, then the other 60 in a run that is killed and another one, or in one."""
    pairs, killed, undisturbed = tmp_path / "pairs", tmp_path / "k.zarr", tmp_path / "u.zarr"
    source = UnityEyesOptions(folder=str(pairs))
    pairs.mkdir()
    _link(datasets / "synthetic", pairs, range(1, 181))
    before = ingested(source, killed)
    shutil.copytree(killed, undisturbed)
    _link(datasets / "synthetic", pairs, range(181, 241))
    words = ("ingest", "unityeyes", pairs, "--to", killed, *INGESTION, "--append", "--json")
    # 22 shards of 8 are full and are kept.
    kill_when(simgan, words, lambda: num_records(tmp_path / "k.zarr.building") >= 24)
    assert open_dataset(str(killed)).info.digest == before
    assert result_of(simgan(*words))["digest"] == ingested(source, undisturbed, append=True)


def _link(source: Path, target: Path, numbers: range) -> None:
    for name in (f"{number}{suffix}" for number in numbers for suffix in (".jpg", ".json")):
        (target / name).hardlink_to(source / name)


def test_train_and_refine_go_on_to_the_same_digests(
    simgan: Any, datasets: Path, tmp_path: Path
) -> None:
    home = Path(simgan.environment["SIMGAN_HOME"])
    train = ("train", "--synthetic", datasets / "synthetic.zarr", "--real", datasets / "real.zarr",
             *TRAINING, "--json")  # fmt: skip
    kill_when(simgan, train, lambda: any(home.glob("refiners/*/training.ckpt")))
    killed = result_of(simgan(*train))
    shutil.rmtree(home / "refiners" / killed["refiner"])
    undisturbed = result_of(simgan(*train))
    assert killed["weights_digest"] == undisturbed["weights_digest"]
    assert killed["mlflow_run_id"] == undisturbed["mlflow_run_id"]

    refine = ("refine", datasets / "synthetic.zarr", "--refiner", killed["refiner"], "--json")
    once, twice = tmp_path / "once.zarr", tmp_path / "twice.zarr"
    kill_when(simgan, (*refine, "--to", twice), lambda: num_records(twice) >= 3)
    assert (
        result_of(simgan(*refine, "--to", twice))["digest"]
        == result_of(simgan(*refine, "--to", once))["digest"]
    )


def test_sigterm_saves_the_training_and_exits(simgan: Any, datasets: Path) -> None:
    home = Path(simgan.environment["SIMGAN_HOME"])
    process = simgan.start(
        *("train", "--synthetic", datasets / "synthetic.zarr", "--real", datasets / "real.zarr"),
        *("--steps", 100_000, *TRAINING[2:]),
    )
    known = set(home.glob("refiners/*/training.ckpt"))
    while not (begun := set(home.glob("refiners/*/training.ckpt")) - known):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    (checkpoint,) = begun
    step = load_checkpoint(checkpoint)["state"]["step"]
    assert f"stopped by SIGTERM at step {step}; the checkpoint is written" in said


def test_sigterm_stops_an_evaluation_within_a_training(simgan: Any, datasets: Path) -> None:
    process = simgan.start(
        *("evaluate", "--train", datasets / "synthetic.zarr", "--test", datasets / "real.zarr"),
        *("--steps", 1_000_000, "--batch-size", 8),
    )
    while not under_way(Path(simgan.environment["SIMGAN_HOME"]) / "mlflow.db"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.terminate()
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM


def under_way(database: Path) -> list[Any]:
    """Return the runs of trainings of estimators that have not ended."""
    if not database.exists():
        return []
    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("comparisons")
    if experiment is None:
        return []
    condition = "tags.stage = 'evaluate' and attributes.status = 'RUNNING'"
    return list(client.search_runs([experiment.experiment_id], condition))
