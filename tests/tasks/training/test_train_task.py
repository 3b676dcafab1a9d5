"""Training as a task: real datasets, real MLflow on SQLite, no Prefect API."""

import re
import subprocess
import sys
import venv
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from simgan_core.config import (
    PRESETS,
    EstimatorConfig,
    RefinerConfig,
    RegularizationConfig,
    StoppingConfig,
    TrainingConfig,
)
from simgan_core.data.label_matching import estimate_label_prior, save_label_prior
from simgan_core.errors import InputError
from simgan_core.inference import refine_images
from simgan_core.models.checkpoint import load_checkpoint, load_refiner
from simgan_core.models.estimator import build_estimator, save_estimator
from simgan_core.simulator.eyes import render, sample_scenes
from storage.reader import open_dataset
from storage.samples import Rejection, SampleBlock
from storage.schema import GAZE, PUPIL_PX, DatasetSpec
from storage.writer import DatasetWriter
from tasks.runtime.code_version import code_version
from tasks.runtime.paths import refiner_folder
from tasks.runtime.tracking.champion import (
    MAY_LEAD_TAG,
    Measurement,
    choose_champion,
    remember_measurement,
)
from tasks.runtime.tracking.runs import begin_run
from tasks.training.data import DatasetShards, images_of, open_training_data
from tasks.training.named_files import contents_of
from tasks.training.train import RefinerRef, finished_refiner, train_refiner
from tests.refinement_inputs import make_synthetic

CONFIG = TrainingConfig(
    refiner=RefinerConfig(num_features=4, num_blocks=1),
    steps=8,
    discriminator_pretraining_steps=2,
    batch_size=8,
    history_size=8,
    stopping=StoppingConfig(evaluate_every=4, num_images=20),
)


def write(to: Path, domain: str, images: np.ndarray, labels: dict, dtype: str = "uint8") -> str:
    count = len(images)
    spec = DatasetSpec(
        num_rows=count,
        height=images.shape[1],
        width=images.shape[2],
        channels=images.shape[3],
        dtype=dtype,
        labels=(GAZE, PUPIL_PX) if labels else (),
        domain=domain,
        source={"name": "test", "sum": int(images.sum())},
        preprocess="none",
        rows_per_shard=16,
        rows_per_chunk=16,
    )
    writer = DatasetWriter.open(str(to), spec)
    valid = (np.arange(count) % 10 != 3) | (domain == "synthetic")
    ids = [f"{domain}/{row}" for row in range(count)]
    for shard in writer.pending_shards():
        rows = writer.shard_rows(shard)
        part = slice(rows.start, rows.stop)
        writer.write_shard(
            shard,
            SampleBlock(
                images[part],
                valid[part],
                ids[part],
                {name: values[part] for name, values in labels.items()},
                tuple(Rejection(row, ids[row], "bad") for row in rows if not valid[row]),
            ),
        )
    return writer.finish().url


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("datasets")
    scenes = sample_scenes("synthetic", 40, seed=7)
    eyes = render(scenes, "crop", 35, 55)
    real = render(sample_scenes("real", 40, seed=8), "crop", 35, 55)
    labels = {"gaze": scenes.gaze.astype(np.float32), "pupil_px": eyes.pupil_px}
    return (
        write(folder / "synthetic.zarr", "synthetic", eyes.images, labels),
        write(folder / "real.zarr", "real", real.images, {}),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def first(datasets: tuple[str, str], home: Path) -> RefinerRef:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMGAN_HOME", str(home))
        return train_refiner.fn(*datasets, CONFIG)


def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow.db")


def test_figures_of_realism_labels_and_domains_are_on_the_run(
    first: RefinerRef, home: Path
) -> None:
    run = client(home).get_run(first.mlflow_run_id)
    assert {
        "realism/kid",
        "realism/classifier_accuracy",
        "labels/pupil_shift_px.mean",
        "best/realism/kid",
        "domains/shift_y_px",
        "domains/synthetic.pitch_deg.mean",
    } <= set(run.data.metrics)
    history = client(home).get_metric_history(first.mlflow_run_id, "realism/kid")
    assert [point.step for point in history] == [0, 6, 10]
    assert "the least KID" in run.data.tags["simgan.verdict"]
    assert code_version().tags().items() <= run.data.tags.items()
    artifacts = {item.path for item in client(home).list_artifacts(first.mlflow_run_id)}
    assert "domains_mean_images.png" in artifacts


def test_a_training_with_another_seed_is_not_finished_yet(
    first: RefinerRef, datasets: tuple[str, str]
) -> None:
    assert finished_refiner(*datasets, CONFIG) == first.refiner
    assert finished_refiner(*datasets, CONFIG.model_copy(update={"seed": 5})) is None


def test_a_variant_of_an_ablation_never_leads(
    datasets: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path))
    trained = train_refiner.fn(*datasets, CONFIG, may_lead=False)
    version = client(tmp_path).get_model_version("refiner", trained.model_version)
    assert version.aliases == ["candidate"]
    tags = client(tmp_path).get_run(trained.mlflow_run_id).data.tags
    assert "a variant of an ablation takes no part" in tags["simgan.alias"]


def test_the_rule_that_makes_a_champion_is_on_the_run(first: RefinerRef, home: Path) -> None:
    run = client(home).get_run(first.mlflow_run_id)
    assert "least realism/kid" in run.data.tags["simgan.champion_rule"]
    assert run.data.params["compute.precision"] in {"fp32", "bf16"}


def test_the_first_refiner_is_the_champion_and_a_worse_one_a_candidate(
    first: RefinerRef, datasets: tuple[str, str], home: Path
) -> None:
    champion = client(home).get_model_version_by_alias("refiner", "champion")
    assert str(champion.version) == first.model_version
    # One that hardly moves looks less real than one that has learnt for eight steps.
    worse = train_refiner.fn(*datasets, CONFIG.model_copy(update={"learning_rate": 1e-9}))
    candidate = client(home).get_model_version_by_alias("refiner", "candidate")
    assert str(candidate.version) == worse.model_version
    champion = client(home).get_model_version_by_alias("refiner", "champion")
    assert str(champion.version) == first.model_version
    why = client(home).get_run(worse.mlflow_run_id).data.tags["simgan.alias"]
    assert "candidate: KID" in why
    assert "the champion's on the same images" in why


def test_better_kid_does_not_displace_a_champion_that_was_chosen_by_its_pseudo_label_error(
    datasets: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path))
    lenient = StoppingConfig(
        evaluate_every=4, num_images=20, max_pupil_shift_px=1000.0, min_pupils_kept=0.0
    )
    config = CONFIG.model_copy(update={"stopping": lenient})
    # A network that is no residual one returns noise at first.
    noise = RefinerConfig(num_features=4, num_blocks=1, residual=False)
    noisy = train_refiner.fn(*datasets, config.model_copy(update={"refiner": noise}))
    other = begin_run("refiners", "other", "other")
    other.register_model("refiner", "model", {"simgan.refiner": "other", MAY_LEAD_TAG: "true"})
    for refiner, error_deg in ((noisy.refiner, 8.1), ("other", 8.5)):
        measurement = Measurement(
            criterion="criterion-1", measured_by="choice-1", error_deg=error_deg, sd_deg=None,
            synthetic="s.zarr", synthetic_digest="s", unlabelled="u.zarr", unlabelled_digest="u",
            teachers=(), refined=f"{refiner}.zarr",
        )  # fmt: skip
        remember_measurement(refiner, measurement)
    choose_champion("criterion-1")
    better = train_refiner.fn(*datasets, config)
    leads = client(tmp_path).get_model_version_by_alias("refiner", "champion")
    assert str(leads.version) == noisy.model_version
    why = client(tmp_path).get_run(better.mlflow_run_id).data.tags["simgan.alias"]
    ours, theirs = (float(kid) for kid in re.findall(r"\d+\.\d{4}", why)[:2])
    assert ours < theirs
    assert why.startswith("candidate: KID")
    assert f"simgan choose --synthetic s.zarr --unlabelled u.zarr --refined {noisy.refiner}" in why


def test_a_training_in_two_processes_gives_one_refiner(
    first: RefinerRef, datasets: tuple[str, str], home: Path
) -> None:
    together = train_refiner.fn(*datasets, CONFIG.model_copy(update={"processes": 2}))
    assert together.refiner != first.refiner
    assert load_refiner(Path(together.path)).weights_digest == together.weights_digest
    history = client(home).get_metric_history(together.mlflow_run_id, "realism/kid")
    assert [point.step for point in history] == [0, 6, 10]


def test_the_content_of_an_estimator_names_the_refiner(
    datasets: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "estimator.pt"
    settings = CONFIG.model_copy(
        update={
            "stopping": StoppingConfig(evaluate_every=4, num_images=20, estimator=str(path)),
            "regularization": RegularizationConfig(features=1.0, features_from=str(path)),
        }
    )
    with pytest.raises(InputError, match=r"there is no file .*estimator\.pt"):
        train_refiner.fn(*datasets, settings)
    refiners = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_estimator(path, build_estimator(EstimatorConfig(), 35, 55, 1))
        refiners.append(train_refiner.fn(*datasets, settings))
    assert refiners[0].refiner != refiners[1].refiner
    figures = load_refiner(Path(refiners[0].path)).metadata["figures"]
    assert figures["labels/gaze_change_deg"] < 5
    # A worker on another machine gets the content, and the path is not there.
    files = contents_of(settings)
    path.unlink()
    assert train_refiner.fn(*datasets, settings, files=files) == refiners[1]


def test_settings_that_the_family_would_not_heed_are_refused(datasets: tuple[str, str]) -> None:
    config = PRESETS["bilateral"].model_copy(update={"refiner": CONFIG.refiner})
    with pytest.raises(InputError, match="choose family convolutional"):
        train_refiner.fn(*datasets, config)


def test_a_dataset_without_a_valid_row_is_named(datasets: tuple[str, str], tmp_path: Path) -> None:
    rejected = make_synthetic(str(tmp_path / "rejected.zarr"), 4, 4, (0, 1, 2, 3)).url
    with pytest.raises(InputError, match=r"none of the 4 rows of dataset .*rejected\.zarr"):
        train_refiner.fn(rejected, datasets[1], CONFIG)


def test_synthetic_rows_are_drawn_by_the_label_prior(
    datasets: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "prior.npz"
    settings = CONFIG.model_copy(update={"match_labels_by": str(path)})
    with pytest.raises(InputError, match=r"there is no file .*prior\.npz"):
        train_refiner.fn(*datasets, settings)
    labels_deg = np.random.default_rng(0).normal(0, 15, (500, 2))
    pupils_px = []
    for yaw_deg in (-10, 10):
        aside = np.random.default_rng(1).normal((0, yaw_deg), 5, (500, 2))
        save_label_prior(path, estimate_label_prior(aside[None], labels_deg, (5, 5), seed=0))
        synthetic, real = (open_dataset(url) for url in datasets)
        data = open_training_data(synthetic, real, settings, torch.device("cpu"))
        assert len(data.synthetic) == open_dataset(datasets[0]).info.num_valid
        pupils_px.append(data.pupil_px[:, 0].mean())
    # Yaw is positive to the image's left.
    assert pupils_px[0] > pupils_px[1] + 2


def test_a_stopped_training_goes_on_where_the_files_of_its_settings_lie_elsewhere(
    datasets: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = tmp_path / "prior.npz", tmp_path / "moved" / "prior.npz"
    labels_deg = np.random.default_rng(0).normal(0, 15, (500, 2))
    save_label_prior(before, estimate_label_prior(labels_deg[None] / 2, labels_deg, (5, 5), seed=0))
    answers = iter([False] * 6 + [True])
    with monkeypatch.context() as patch:
        patch.setattr(
            "tasks.training.fit.termination_noticed", lambda: nullcontext(answers.__next__)
        )
        with pytest.raises(SystemExit):
            train_refiner.fn(*datasets, CONFIG.model_copy(update={"match_labels_by": str(before)}))
    after.parent.mkdir()
    before.rename(after)
    settings = CONFIG.model_copy(update={"match_labels_by": str(after)})
    trained = train_refiner.fn(*datasets, settings)
    assert load_refiner(Path(trained.path)).config == settings


def test_drawn_rows_are_the_same_in_memory_and_in_shards(datasets: tuple[str, str]) -> None:
    real = open_dataset(datasets[1])
    drawn = np.array([0, 0, 5, 13, 14, 14, 14, 35])
    whole = images_of(real, in_memory=True, drawn=drawn)
    shards = images_of(real, in_memory=False, drawn=drawn)
    assert isinstance(whole, torch.Tensor)
    assert isinstance(shards, DatasetShards)
    assert shards.shard_sizes == [4, 3, 1]
    assert torch.equal(torch.cat([shards.read(shard) for shard in range(3)]), whole)
    assert torch.equal(whole, images_of(real, in_memory=True)[torch.from_numpy(drawn)])


def test_images_that_do_not_fit_come_in_shards_without_the_invalid_ones(
    datasets: tuple[str, str],
) -> None:
    real = open_dataset(datasets[1])
    whole = images_of(real, in_memory=True)
    shards = images_of(real, in_memory=False)
    assert isinstance(whole, torch.Tensor)
    assert isinstance(shards, DatasetShards)
    parts = [shards.read(shard) for shard in range(len(shards.shard_sizes))]
    assert [len(part) for part in parts] == shards.shard_sizes == [14, 15, 7]
    assert torch.equal(torch.cat(parts), whole)


def test_depth_images_are_trained_on_and_registered_in_sixteen_bits(
    home: Path, tmp_path: Path
) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (24, 32, 32, 1)).astype(np.uint16)
    synthetic, real = (
        write(tmp_path / f"{domain}.zarr", domain, images, {}, dtype="uint16")
        for domain, images in (("synthetic", deep), ("real", deep // 2))
    )
    trained = train_refiner.fn(synthetic, real, CONFIG)
    assert load_refiner(Path(trained.path)).pixels == "uint16"
    why = client(home).get_run(trained.mlflow_run_id).data.tags["simgan.alias"]
    assert "another kind of images" in why or "there was none" in why


USE = """
import sys
import mlflow.pytorch
import numpy as np
import torch

for name in ("simgan_core", "prefect", "zarr"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} is here: this environment is not bare")
model = mlflow.pytorch.load_model(sys.argv[1])
images = np.load(sys.argv[2])
refined = [model(torch.from_numpy(images[:count])).numpy() for count in (1, 3, len(images))]
assert all(part.dtype == np.uint8 for part in refined)
assert np.array_equal(refined[2][:3], refined[1])
np.save(sys.argv[3], refined[2])
"""


def test_the_registered_refiner_works_where_only_torch_numpy_and_mlflow_are(
    first: RefinerRef, datasets: tuple[str, str], home: Path, tmp_path: Path
) -> None:
    model = client(home).download_artifacts(first.mlflow_run_id, "model", str(tmp_path))
    images = open_dataset(datasets[0]).load().images
    np.save(tmp_path / "images.npy", images)
    python = bare_environment(tmp_path / "bare")
    subprocess.run(
        [python, "-c", USE, model, tmp_path / "images.npy", tmp_path / "refined.npy"],
        check=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
    )
    expected = refine_images(load_refiner(Path(first.path)).refiner, images)
    difference = np.load(tmp_path / "refined.npy").astype(int) - expected
    assert np.abs(difference).max() <= 1


def bare_environment(folder: Path) -> Path:
    """Make an environment that finds our installed packages, but those of this product.

    The packages that the model's own requirements do not lead to are hidden by a finder.
    """
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    installed = Path(np.__file__).parents[1]
    hidden = ("simgan_core", "storage", "tasks", "flows", "prefect", "zarr", "obstore", "h5py",
              "scipy", "matplotlib", "PIL", "sklearn", "cyclopts")  # fmt: skip
    (site / "bare.pth").write_text("import bare\n")
    (site / "bare.py").write_text(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        f"HIDDEN = {hidden!r}\n"
        "class Bare(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        if name.split('.')[0] not in HIDDEN:\n"
        "            return super().find_spec(name, path, target)\n"
        "sys.meta_path = [Bare if it is PathFinder else it for it in sys.meta_path]\n"
        f"sys.path.append({str(installed)!r})\n"
    )
    return folder / "bin" / Path(sys.executable).name


def test_sigterm_to_a_training_in_two_processes_saves_it(
    datasets: tuple[str, str], home: Path
) -> None:
    # Only what concerns several processes: one is tested with the command.
    settings = CONFIG.model_copy(update={"processes": 2, "steps": 100_000, "checkpoint_every": 5})
    code = (
        "import sys; from simgan_core.config import TrainingConfig; "
        "from tasks.training.train import train_refiner; "
        "config = TrainingConfig.model_validate_json(sys.argv[3]); "
        "train_refiner.fn(sys.argv[1], sys.argv[2], config)"
    )
    known = set(refiner_folder("x").parent.glob("*/training.ckpt"))
    process = subprocess.Popen(
        [sys.executable, "-c", code, *datasets, settings.model_dump_json()],
        cwd=Path(__file__).parents[3],
    )
    while not (begun := set(refiner_folder("x").parent.glob("*/training.ckpt")) - known):
        assert process.poll() is None
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    process.terminate()
    assert process.wait() == 143
    (checkpoint,) = begun
    assert load_checkpoint(checkpoint)["num_ranks"] == 2
