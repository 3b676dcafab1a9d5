"""What a bulk refinement needs: a synthetic dataset of the built-in simulator, and a refiner."""

from pathlib import Path

import numpy as np
import torch

from simgan_core.config import PRESETS, BilateralConfig, RefinerConfig, TrainingConfig
from simgan_core.models.bilateral import BilateralRefiner
from simgan_core.models.checkpoint import save_refiner
from simgan_core.models.refiner import ConvolutionalRefiner, Refiner
from simgan_core.simulator.eyes import render, sample_scenes
from storage.samples import Rejection, SampleBlock
from storage.schema import GAZE, PUPIL_PX, DatasetInfo, DatasetSpec
from storage.writer import DatasetWriter

NUM_SCENES = 64
"""Scenes that are rendered; larger datasets repeat them."""


def make_synthetic(
    url: str,
    num_rows: int,
    rows_per_shard: int,
    bad_rows: tuple[int, ...] = (),
    *,
    pupils: bool = True,
) -> DatasetInfo:
    """Write a dataset of eyes 35×55 with gaze and pupils; `bad_rows` are not valid."""
    eyes = render(sample_scenes("synthetic", min(num_rows, NUM_SCENES), seed=0), "crop", 35, 55)
    spec = DatasetSpec(
        num_rows=num_rows,
        height=35,
        width=55,
        channels=1,
        dtype="uint8",
        labels=(GAZE, PUPIL_PX) if pupils else (GAZE,),
        domain="synthetic",
        source={"name": "test"},
        preprocess="none",
        rows_per_chunk=min(1024, rows_per_shard),
        rows_per_shard=rows_per_shard,
    )
    writer = DatasetWriter.open(url, spec)
    for shard in writer.pending_shards():
        rows = np.array(writer.shard_rows(shard))
        scenes = rows % len(eyes.images)
        block = SampleBlock(
            images=eyes.images[scenes],
            valid=~np.isin(rows, bad_rows),
            ids=[f"eye/{row}" for row in rows],
            labels={
                "gaze": np.tile(np.float32([0, 0, -1]), (len(rows), 1)),
                **({"pupil_px": eyes.pupil_px[scenes].astype(np.float32)} if pupils else {}),
            },
            rejections=tuple(
                Rejection(row, f"eye/{row}", "too dark") for row in rows.tolist() if row in bad_rows
            ),
        )
        block.images[~block.valid] = 0
        writer.write_shard(shard, block)
    return writer.finish()


def make_refiner(
    path: Path, num_features: int = 4, num_blocks: int = 1, strength: float = 0.02, seed: int = 0
) -> Path:
    """Write a refiner of random weights, which changes images the more the greater `strength`."""
    torch.manual_seed(seed)
    config = TrainingConfig(refiner=RefinerConfig(num_features=num_features, num_blocks=num_blocks))
    refiner = ConvolutionalRefiner(config.refiner, channels=1)
    torch.nn.init.normal_(refiner.last.weight, std=strength)
    _save(path, refiner, config, seed)
    return path


def make_bilateral_refiner(path: Path, strength: float = 0.3, seed: int = 0) -> Path:
    """Write a bilateral refiner of random weights, likewise."""
    config = PRESETS["bilateral"]
    _save(path, random_bilateral_refiner(strength, seed), config, seed)
    return path


def random_bilateral_refiner(strength: float, seed: int = 0, channels: int = 1) -> BilateralRefiner:
    """Return a bilateral refiner of random weights, in eval mode."""
    torch.manual_seed(seed)
    refiner = BilateralRefiner(BilateralConfig(), channels)
    torch.nn.init.normal_(refiner.curves.weight, std=strength)
    return refiner.eval()


def _save(path: Path, refiner: Refiner, config: TrainingConfig, seed: int) -> None:
    metadata = {
        "refiner": f"refiner-{seed:012x}",
        "real_digest": "0" * 64,
        "image_height": 35,
        "image_width": 55,
        "preprocess": "none",
        "pixels": "uint8",
    }
    save_refiner(path, refiner, config, metadata)
