"""Training data: images in memory or by shard, labels, frozen networks."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simgan_core.config import TrainingConfig
from simgan_core.data.label_matching import load_label_prior, resampled_rows
from simgan_core.data.sampler import ImageShards
from simgan_core.errors import InputError
from simgan_core.gaze import pitchyaw_from_gaze
from simgan_core.models.estimator import Estimator, load_estimator
from simgan_core.models.feature_network import load_feature_network
from storage.reader import Dataset

SHARE_OF_MEMORY = 0.3
"""Share of the free memory that one domain's images may take."""


class TrainingData(NamedTuple):
    """Inputs of a `Trainer` beside its configuration."""

    synthetic: Tensor | ImageShards
    real: Tensor | ImageShards
    pupil_px: Tensor | None
    features: nn.Module | None
    estimator: Estimator | None


class DatasetShards:
    """Valid images of a dataset, read shard by shard."""

    def __init__(self, dataset: Dataset, drawn: NDArray[np.int64] | None = None) -> None:
        """Select the rows `drawn`, ascending indices among the valid ones; None: all of them."""
        valid = dataset.read_valid()
        self._dataset = dataset
        self.digest = dataset.info.digest
        first = 0
        self._parts: list[tuple[range, NDArray[np.int64]]] = []
        """Rows of each shard, and the indices of the drawn ones among its valid rows."""
        for shard in range(dataset.num_shards):
            rows = dataset.shard_rows(shard)
            stop = first + int(valid[rows.start : rows.stop].sum())
            own = np.arange(first, stop)
            if drawn is not None:
                own = drawn[np.searchsorted(drawn, first) : np.searchsorted(drawn, stop)]
            if len(own):
                self._parts.append((range(rows.start, rows.stop), own - first))
            first = stop
        self.shard_sizes = [len(own) for _, own in self._parts]

    def read(self, shard: int) -> Tensor:
        """Return the drawn images of a shard, pixels [n, H, W, C]."""
        rows, drawn = self._parts[shard]
        block = self._dataset.read(rows.start, rows.stop)
        return torch.from_numpy(block.images[block.valid][drawn])


def open_training_data(
    synthetic: Dataset,
    real: Dataset,
    config: TrainingConfig,
    device: torch.device,
    in_memory: tuple[bool, bool] | None = None,
) -> TrainingData:
    """Load images, labels and frozen networks.

    `in_memory` says of synthetic and real images whether they are loaded or stay in their shards;
    None: loaded where they fit.
    """
    drawn = _matched_rows(synthetic, config)
    if in_memory is None:
        in_memory = fit_in_memory(synthetic, real, device)
    return TrainingData(
        synthetic=images_of(synthetic, in_memory[0], drawn),
        real=images_of(real, in_memory[1]),
        pupil_px=_pupils_of(synthetic, drawn),
        features=_features(config, device),
        estimator=_estimator(config.stopping.estimator),
    )


def images_of(
    dataset: Dataset, in_memory: bool, drawn: NDArray[np.int64] | None = None
) -> Tensor | ImageShards:
    """Return a dataset's valid images: loaded, or in their shards.

    `drawn` are ascending indices among the valid rows, with repetitions; None: each row once.
    """
    if not in_memory:
        return DatasetShards(dataset, drawn)
    images = torch.from_numpy(dataset.load().images)
    return images if drawn is None else images[torch.from_numpy(drawn)]


def fit_in_memory(synthetic: Dataset, real: Dataset, device: torch.device) -> tuple[bool, bool]:
    """Return of each domain whether its images take no more than a share of the free memory.

    What the synthetic images take is not free for the real ones.
    """
    free = _free_bytes(device)
    of_synthetic = _num_bytes(synthetic) <= SHARE_OF_MEMORY * free
    free -= of_synthetic * _num_bytes(synthetic)
    return of_synthetic, _num_bytes(real) <= SHARE_OF_MEMORY * free


def _num_bytes(dataset: Dataset) -> int:
    """Return the size of a dataset's valid images."""
    spec = dataset.info.spec
    size = np.dtype(spec.dtype).itemsize * spec.height * spec.width * spec.channels
    return dataset.info.num_valid * size


def _free_bytes(device: torch.device) -> float:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if device.type == "cuda":
        return min(free, torch.cuda.mem_get_info(device)[0])
    return free


def _matched_rows(synthetic: Dataset, config: TrainingConfig) -> NDArray[np.int64] | None:
    """Resample synthetic rows, ascending, in proportion to the label prior."""
    if config.match_labels_by is None:
        return None
    gaze = synthetic.read_labels().get("gaze")
    if gaze is None:
        raise InputError(
            f"match_labels_by needs the label 'gaze' in {synthetic.info.url}; ingest it with its "
            "gaze, or leave match_labels_by out"
        )
    prior = load_label_prior(Path(config.match_labels_by))
    labels_deg = np.degrees(pitchyaw_from_gaze(gaze[synthetic.read_valid()]))
    return resampled_rows(prior.weights(labels_deg), config.seed)


def _pupils_of(dataset: Dataset, drawn: NDArray[np.int64] | None) -> Tensor | None:
    pupil_px = dataset.read_labels().get("pupil_px")
    if pupil_px is None:
        return None
    of_valid = pupil_px[dataset.read_valid()]
    return torch.from_numpy(of_valid if drawn is None else of_valid[drawn])


def _features(config: TrainingConfig, device: torch.device) -> nn.Module | None:
    path = config.regularization.features_from
    return None if path is None else load_feature_network(Path(path), device)


def _estimator(path: str | None) -> Estimator | None:
    return None if path is None else load_estimator(Path(path))
