"""Cache of gaze estimators by content id: trained once, reused by every comparison."""

import logging
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from simgan_core.atomic_file import atomic_write
from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from simgan_core.estimation.fitting import estimator_compute_settings
from simgan_core.estimation.gaze_training import train_estimator
from simgan_core.models.estimator import Estimator, load_estimator, save_estimator
from storage.samples import SampleBlock
from storage.schema import DatasetInfo
from tasks.comparison.kept_files import weights_file
from tasks.comparison.plan import Arm
from tasks.runtime.content_ids import content_id
from tasks.runtime.devices import default_device
from tasks.runtime.policies import stop_if_told
from tasks.runtime.recipes import recipe_version
from tasks.runtime.stages import position
from tasks.runtime.styles import image_ids

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSamples:
    """Training set of an estimator in memory."""

    images: NDArray[np.uint8] | NDArray[np.uint16]
    """[N, H, W, C]"""
    labels: dict[str, NDArray[np.float32]]
    """By name, [N, …]."""
    weights: NDArray[np.float64] | None = None
    """Sampling weight of each row [N], 1 in the mean; None: all alike."""
    image_of_row: NDArray[np.int64] | None = None
    """Number of the image that each row shows [N]: styles share one. None: each row its own."""

    @classmethod
    def of_block(cls, block: SampleBlock, info: DatasetInfo) -> Self:
        """Return those of a dataset's rows."""
        numbers = number_images(image_ids(block.ids, info))
        return cls(block.images, block.labels, image_of_row=numbers)

    def of_rows(self, rows: NDArray[np.integer[Any]]) -> "TrainingSamples":
        """Return the samples of some rows."""
        return TrainingSamples(
            self.images[rows],
            {name: each[rows] for name, each in self.labels.items()},
            None if self.weights is None else self.weights[rows],
            None if self.image_of_row is None else self.image_of_row[rows],
        )


def number_images(names: Iterable[Hashable]) -> NDArray[np.int64] | None:
    """Number images in the order in which rows show them [N]; None where no two rows show one."""
    numbers: dict[Hashable, int] = {}
    image_of_row = np.array([numbers.setdefault(each, len(numbers)) for each in names], np.int64)
    return image_of_row if len(numbers) < len(image_of_row) else None


def content_of(arm: Arm, datasets: Mapping[str, DatasetInfo]) -> dict[str, Any]:
    """Return an arm's content for ids: digests instead of paths, and no names.

    `datasets` are those that the arm names, by place.
    """
    places = {"datasets", "look_reference", "teachers_of", "teachers", "pseudo_labels"}
    names = places | {"name", "title", "training_set"}
    return arm.model_dump(mode="json", exclude=names) | {
        "datasets": [datasets[url].digest for url in arm.datasets],
        "look_reference": arm.look_reference and datasets[arm.look_reference].digest,
        "teachers": [datasets[url].digest for url in arm.teachers],
        "teachers_of": arm.teachers_of and datasets[arm.teachers_of].digest,
    }


def estimator_id(
    arm: Arm,
    datasets: Mapping[str, DatasetInfo],
    config: EstimatorConfig,
    seed: int,
    label_prior: str | None = None,
    left_out: list[Any] | None = None,
) -> str:
    """Return the content id of an estimator, from everything that its training depends on.

    `datasets` are those that the arm names, by place; `label_prior` is the id of the prior by
    which its rows are resampled, `left_out` what tells rows that it did not see.
    """
    content = content_of(arm, datasets) | {
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "recipe": recipe_version("estimate"),
    }
    if label_prior is not None:
        content["label_prior"] = label_prior
    if left_out is not None:
        content["all_but"] = left_out
    return content_id("estimator", content)


def with_number_format(config: EstimatorConfig) -> EstimatorConfig:
    """Resolve the precision `auto`, since bf16 and fp32 give different estimators."""
    chosen = estimator_compute_settings(config, torch.device(default_device()))
    return config.model_copy(update={"precision": chosen.precision})


def trained_estimator(
    name: str, config: EstimatorConfig, samples: TrainingSamples, seed: int
) -> Estimator:
    """Train the estimator of this id and store it, or load the stored one."""
    path = weights_file(name)
    if not path.exists():
        estimator = train_estimator(
            config,
            # Shared images are read-only, which tensors cannot be.
            torch.from_numpy(np.require(samples.images, requirements="W")).to(default_device()),
            samples.labels["gaze"],
            seed,
            log_progress,
            head_pose=poses(samples, config),
            weights=samples.weights,
            image_of_row=samples.image_of_row,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        save_estimator(path, estimator)
    return load_estimator(path).to(default_device())


def write_atomically(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays as npz, atomically."""
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def plain_estimator_id(
    info: DatasetInfo, config: EstimatorConfig, seed: int, left_out: list[Any] | None = None
) -> str:
    """Name the estimator of one dataset as it is, its labels unmatched."""
    url = info.url
    arm = Arm(name="synthetic", title="synthetic", training_set="synthetic", datasets=(url,))
    return estimator_id(arm, {url: info}, config, seed, left_out=left_out)


def poses(samples: TrainingSamples, config: EstimatorConfig) -> NDArray[np.float32] | None:
    """Return the head poses [N, …] where the estimator wants them; InputError where it has none."""
    if not config.head_pose:
        return None
    if "head_pose" not in samples.labels:
        raise InputError(
            "the estimator wants head poses, and not all datasets have the label head_pose: ingest "
            "them with it, or leave --head-pose out"
        )
    return samples.labels["head_pose"]


def log_progress(step: int, total: int, loss: float) -> None:
    """Log progress ten times in a training; stop where the run is cancelled."""
    stop_if_told()
    if step % max(1, total // 10) == 0 or step == total:
        at = position("one estimator", step, total)
        logger.info("estimator: step %d of %d, loss %.4f", step, total, loss, extra=at)
