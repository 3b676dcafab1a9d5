"""Refiner training task: two datasets in, a registered refiner out."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from prefect import task
from prefect.context import TaskRunContext

from simgan_core.config import RefinerConfig, TrainingConfig
from simgan_core.errors import InputError
from simgan_core.inference import UInt8Refiner
from simgan_core.models.checkpoint import LoadedRefiner, load_refiner
from storage.reader import Dataset, open_dataset
from tasks.runtime.compatibility import (
    require_distinct,
    require_domain,
    require_same_images,
    require_valid_rows,
)
from tasks.runtime.content_ids import content_id
from tasks.runtime.devices import take_device_of_worker
from tasks.runtime.paths import refiner_folder
from tasks.runtime.policies import CACHE
from tasks.runtime.recipes import recipe_version
from tasks.runtime.tracking.champion import MAY_LEAD_TAG, SYNTHETIC_TAG
from tasks.runtime.tracking.experiments import REFINERS
from tasks.runtime.tracking.runs import (
    REFINER_TAG,
    REGISTERED_REFINER,
    TrackedRun,
    tracked_run,
)
from tasks.training.data import are_loaded, with_auto_where_alike
from tasks.training.distributed import num_processes, train_in_processes
from tasks.training.fit import fit
from tasks.training.named_files import identity_of, with_received
from tasks.training.onnx_export import save_onnx
from tasks.training.report import show_training

_JOINTS = "joints_uvd"
"""Label of depth images of hands, whose third numbers are distances."""


class RefinerRef(NamedTuple):
    """Reference to a trained refiner: ids, digest and path."""

    refiner: str
    weights_digest: str
    mlflow_run_id: str
    model_version: str
    path: str


@task(name="train-refiner", cache_policy=CACHE)
def train_refiner(
    synthetic: str,
    real: str,
    config: TrainingConfig,
    may_lead: bool = True,
    files: Mapping[str, bytes] | None = None,
) -> RefinerRef:
    """Train, or resume training, the refiner of these datasets and hyperparameters.

    A killed training resumes from its last checkpoint and ends in the same bits (on CPU); a
    finished one is returned at once. SIGTERM saves a checkpoint and then exits (code 143). Without
    `may_lead` the refiner is registered as a candidate, however good it is. Where a worker on
    another machine trains, `files` are the content of those that the settings name.
    """
    take_device_of_worker()
    if files is not None:
        config = with_received(config, files)
    synthetic_set, real_set = open_dataset(synthetic), open_dataset(real)
    require_distinct({"synthetic": synthetic_set.info, "real": real_set.info})
    # A refined dataset can be refined again.
    require_domain(synthetic_set.info, "synthetic", "synthetic", "refined")
    require_domain(real_set.info, "real", "real")
    require_same_images(synthetic_set.info, real_set.info, "synthetic", "real")
    for dataset in (synthetic_set, real_set):
        require_valid_rows(dataset.info)
    _require_family_fits(synthetic_set, config)
    config = with_auto_where_alike(config, synthetic_set, real_set)
    refiner_id = _refiner_id(synthetic_set, real_set, config)
    folder = refiner_folder(refiner_id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "training.lock", timeout=0):
            return _train(refiner_id, folder, synthetic_set, real_set, config, may_lead)
    except Timeout:
        raise InputError(
            f"refiner {refiner_id} is being trained by another process; wait for it, then run "
            "the same command to get its result"
        ) from None


def finished_refiner(synthetic: str, real: str, config: TrainingConfig) -> str | None:
    """Return the id of the refiner that `train_refiner` would find finished; None without one."""
    synthetic_set, real_set = open_dataset(synthetic), open_dataset(real)
    config = with_auto_where_alike(config, synthetic_set, real_set)
    refiner_id = _refiner_id(synthetic_set, real_set, config)
    return refiner_id if (refiner_folder(refiner_id) / "refiner.pt").exists() else None


def _refiner_id(synthetic: Dataset, real: Dataset, config: TrainingConfig) -> str:
    content: dict[str, object] = {
        "synthetic": synthetic.info.digest,
        "real": real.info.digest,
        **identity_of(config),
        "recipe": recipe_version("train"),
    }
    loaded = dict(zip(("synthetic", "real"), are_loaded(synthetic, real, config), strict=True))
    if in_shards := [domain for domain, is_loaded in loaded.items() if not is_loaded]:
        content["in_shards"] = in_shards
    return content_id("refiner", content)


def _require_family_fits(synthetic: Dataset, config: TrainingConfig) -> None:
    if config.family == "bilateral" and config.refiner != RefinerConfig():
        raise InputError(
            "settings under refiner are of the convolutional family, and this training is of the "
            "bilateral one, which would not heed them; leave them as they are, or choose family "
            "convolutional"
        )
    names = [label.name for label in synthetic.info.spec.labels]
    if config.family == "bilateral" and _JOINTS in names:
        raise InputError(
            f"--family bilateral changes grey levels, which in the depth images of "
            f"{synthetic.info.url} are the distances that {_JOINTS} holds: its labels "
            "would be wrong; train with --preset hand or --family convolutional"
        )


def _train(
    refiner_id: str,
    folder: Path,
    synthetic: Dataset,
    real: Dataset,
    config: TrainingConfig,
    may_lead: bool,
) -> RefinerRef:
    tags = {REFINER_TAG: refiner_id, "stage": "train"}
    with tracked_run(REFINERS, refiner_id, refiner_id, tags) as run:
        weights = folder / "refiner.pt"
        if not weights.exists():
            run.params(config.model_dump())
            run.datasets({"synthetic": synthetic.info, "real": real.info})
            if (count := num_processes(config)) > 1:
                urls = synthetic.info.url, real.info.url
                train_in_processes(count, *urls, refiner_id, config, may_lead)
            else:
                fit(weights, synthetic, real, config, run, may_lead=may_lead)
        loaded = load_refiner(weights)
        version = _register(run, loaded, weights)
        (folder / "training.ckpt").unlink(missing_ok=True)
    if TaskRunContext.get() is not None:
        show_training(refiner_id, run.run_id, loaded, synthetic, real)
    return RefinerRef(refiner_id, loaded.weights_digest, run.run_id, version, str(weights))


def _register(run: TrackedRun, loaded: LoadedRefiner, weights: Path) -> str:
    """Log the refiner as weights, PyTorch model and ONNX graph; returns its model version."""
    run.artifact(weights, "checkpoint")
    size = (2, loaded.image_height, loaded.image_width, loaded.channels)
    example = {"images": np.zeros(size, loaded.pixels)}
    if loaded.refiner.style_size:
        example["style"] = np.zeros((2, loaded.refiner.style_size), np.float32)
    run.pytorch_model("model", UInt8Refiner(loaded.refiner), example)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "refiner.onnx"
        save_onnx(graph, loaded)
        run.artifact(graph, "onnx")
    run.tags({"simgan.weights_digest": loaded.weights_digest})
    may_lead = loaded.metadata.get("may_lead", loaded.metadata["alias"] == "champion")
    tags = {
        REFINER_TAG: loaded.metadata["refiner"],
        "weights_digest": loaded.weights_digest,
        SYNTHETIC_TAG: loaded.metadata["synthetic_digest"],
        MAY_LEAD_TAG: "true" if may_lead else "false",
    }
    return run.register_model(REGISTERED_REFINER, "model", tags, alias=loaded.metadata["alias"])
