"""Training data: images in memory or by shard, labels, frozen networks."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
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

_MOST_IN_MEMORY = 4 * 2**30
"""Bytes of a domain's images up to which images_in auto loads them."""
_GIB = 2**30


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
) -> TrainingData:
    """Load images, labels and frozen networks; raises InputError where memory is too small."""
    in_memory = are_loaded(synthetic, real, config)
    loaded = (each for each, is_in in zip((synthetic, real), in_memory, strict=True) if is_in)
    _require_memory(sum(map(_num_bytes, loaded)), device)
    drawn = _matched_rows(synthetic, config)
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


def are_loaded(synthetic: Dataset, real: Dataset, config: TrainingConfig) -> tuple[bool, bool]:
    """Return whether synthetic, and real, images are loaded; else they are read shard by shard.

    A function of settings and datasets alone, since the order in which images are sampled, and so
    the refiner, follows from it.
    """
    if config.images_in != "auto":
        return (config.images_in == "memory",) * 2
    return _num_bytes(synthetic) <= _MOST_IN_MEMORY, _num_bytes(real) <= _MOST_IN_MEMORY


def with_auto_where_alike(
    config: TrainingConfig, synthetic: Dataset, real: Dataset
) -> TrainingConfig:
    """Return settings with images_in auto where that comes to the same: it is one training."""
    auto = config.model_copy(update={"images_in": "auto"})
    alike = are_loaded(synthetic, real, auto) == are_loaded(synthetic, real, config)
    return auto if alike else config


def _num_bytes(dataset: Dataset) -> int:
    """Return the size of a dataset's valid images."""
    spec = dataset.info.spec
    size = np.dtype(spec.dtype).itemsize * spec.height * spec.width * spec.channels
    return dataset.info.num_valid * size


def _require_memory(num_bytes: int, device: torch.device) -> None:
    """Refuse to load more images than there is memory for."""
    free, where = psutil.virtual_memory().available, "memory"
    if device.type == "cuda" and (on_gpu := torch.cuda.mem_get_info(device)[0]) < free:
        free, where = on_gpu, "the GPU's memory"
    if num_bytes > free:
        raise InputError(
            f"the images take {num_bytes / _GIB:.1f} GiB, of {where} {free / _GIB:.1f} GiB are "
            "free: train where there is more, or with --images-in shards, which makes another "
            "refiner"
        )


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
