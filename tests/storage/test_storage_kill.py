"""Writers that are killed in the middle lose nothing but time."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import GAZE, DatasetSpec
from storage.writer import DatasetWriter

SPEC = DatasetSpec(
    num_rows=10_000,
    height=64,
    width=64,
    channels=1,
    dtype="uint8",
    labels=(GAZE,),
    domain="synthetic",
    source={"name": "test"},
    preprocess="none",
    rows_per_chunk=256,
    rows_per_shard=2048,
)


def write_all(url: str) -> str:
    writer = DatasetWriter.open(url, SPEC)
    for shard in writer.pending_shards():
        rows = writer.shard_rows(shard)
        random = np.random.default_rng(shard)
        writer.write_shard(
            shard,
            SampleBlock(
                images=random.integers(0, 255, (len(rows), 64, 64, 1), np.uint8),
                valid=np.ones(len(rows), bool),
                ids=[str(row) for row in rows],
                labels={"gaze": random.normal(size=(len(rows), 3)).astype(np.float32)},
            ),
        )
    return writer.finish().digest


def kill_when(url: str, reached: Callable[[], bool]) -> None:
    """Start writing in another process and kill that as soon as the moment is reached."""
    process = multiprocessing.get_context("spawn").Process(target=write_all, args=(url,))
    process.start()
    while not reached():
        assert process.is_alive(), "it finished before the moment came"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.parametrize(
    "moment", ["id/zarr.json", "images/c/0", "images/c/2", "labels/gaze/c/1", "records/00003"]
)
def test_killed_and_resumed_is_the_same_dataset(tmp_path: Path, moment: str) -> None:
    killed = tmp_path / "killed"
    kill_when(str(killed), (killed / moment).exists)
    assert write_all(str(killed)) == write_all(str(tmp_path / "undisturbed"))
    assert np.array_equal(
        open_dataset(str(killed)).read(0, 10_000).images,
        open_dataset(str(tmp_path / "undisturbed")).read(0, 10_000).images,
    )
    assert not list(tmp_path.rglob("*.partial"))
