"""Training data: images in memory or by shard, labels, frozen networks."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from simgan_core.config import TrainingConfig
from simgan_core.data.label_matching import density_ratio, resampled_rows
from simgan_core.data.sampler import ImageShards
from simgan_core.errors import InputError
from simgan_core.estimation.gaze_training import predict_gaze
from simgan_core.models.estimator import Estimator, load_estimator
from simgan_core.models.feature_network import load_feature_network
from storage.reader import Dataset

SHARE_OF_MEMORY = 0.3
"""What one domain's images may take of the memory that is free."""


class TrainingData(NamedTuple):
    """All that a `Trainer` is given beside its configuration."""

    synthetic: Tensor | ImageShards
    real: Tensor | ImageShards
    pupil_px: Tensor | None
    features: nn.Module | None
    estimator: Estimator | None


class DatasetShards:
    """The valid images of a dataset, a shard at a time."""

    def __init__(self, dataset: Dataset) -> None:
        valid = dataset.read_valid()
        self._dataset = dataset
        self.digest = dataset.info.digest
        rows = [dataset.shard_rows(shard) for shard in range(dataset.num_shards)]
        self._rows = [part for part in rows if valid[part.start : part.stop].any()]
        self.shard_sizes = [int(valid[part.start : part.stop].sum()) for part in self._rows]

    def read(self, shard: int) -> Tensor:
        """Return the valid images of a shard, pixels [n, H, W, C]."""
        block = self._dataset.read(self._rows[shard].start, self._rows[shard].stop)
        return torch.from_numpy(block.images[block.valid])


def open_training_data(
    synthetic: Dataset, real: Dataset, config: TrainingConfig, device: torch.device
) -> TrainingData:
    """Read what fits into memory, and make ready what does not."""
    data = TrainingData(
        synthetic=images_of(synthetic, device),
        real=images_of(real, device),
        pupil_px=_pupils_of(synthetic),
        features=_features(config, device),
        estimator=_estimator(config.stopping.estimator),
    )
    if config.match_labels_by is None:
        return data
    return _matched(data, synthetic, config)


def images_of(
    dataset: Dataset, device: torch.device, budget_bytes: float | None = None
) -> Tensor | ImageShards:
    """Return a dataset's valid images: whole if they fit the budget, else in shards.

    The budget left open is a share of what is free on the device and in this machine's memory.
    """
    spec = dataset.info.spec
    size = np.dtype(spec.dtype).itemsize * spec.height * spec.width * spec.channels
    if budget_bytes is None:
        budget_bytes = SHARE_OF_MEMORY * _free_bytes(device)
    if dataset.info.num_valid * size <= budget_bytes:
        return torch.from_numpy(dataset.load().images)
    return DatasetShards(dataset)


def paths_of_networks(config: TrainingConfig) -> list[Path]:
    """Return the files of networks that a training's outcome depends on."""
    given = (config.regularization.features_from, config.stopping.estimator, config.match_labels_by)
    return [Path(path) for path in given if path is not None]


def _free_bytes(device: torch.device) -> float:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if device.type == "cuda":
        return min(free, torch.cuda.mem_get_info(device)[0])
    return free


def _pupils_of(dataset: Dataset) -> Tensor | None:
    pupil_px = dataset.read_labels().get("pupil_px")
    return None if pupil_px is None else torch.from_numpy(pupil_px[dataset.read_valid()])


def _features(config: TrainingConfig, device: torch.device) -> nn.Module | None:
    path = config.regularization.features_from
    return None if path is None else load_feature_network(Path(path), device)


def _estimator(path: str | None) -> Estimator | None:
    return None if path is None else load_estimator(Path(path))


def _matched(data: TrainingData, synthetic: Dataset, config: TrainingConfig) -> TrainingData:
    """Deal synthetic images as often as their labels seem to occur among the real ones."""
    gaze = synthetic.read_labels().get("gaze")
    if gaze is None:
        raise InputError(
            f"match_labels_by needs the label 'gaze' in {synthetic.info.url}; ingest it with its "
            "gaze, or leave match_labels_by out"
        )
    if not (isinstance(data.synthetic, Tensor) and isinstance(data.real, Tensor)):
        raise InputError(
            "match_labels_by needs both datasets in memory; leave it out, or train on fewer images"
        )
    assert config.match_labels_by is not None
    estimator = load_estimator(Path(config.match_labels_by))
    estimated = predict_gaze(estimator, data.real.numpy())
    ratio = density_ratio(gaze[synthetic.read_valid()], estimated)
    rows = torch.from_numpy(resampled_rows(ratio, config.seed))
    pupil_px = None if data.pupil_px is None else data.pupil_px[rows]
    return data._replace(synthetic=data.synthetic[rows], pupil_px=pupil_px)
