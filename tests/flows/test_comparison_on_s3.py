"""A comparison whose test set is on S3: its images are read once a process."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simgan_core.simulator.eyes import sample_scenes
from storage.reader import open_dataset
from storage.writer import DatasetWriter
from tests.flows.conftest import Simgan, write_eyes
from tests.s3_proxy import S3Proxy, S3Request

ROWS_PER_SHARD = 16


def copy_in_shards(source: str, to: str) -> str:
    """Copy a dataset of one shard into several."""
    found = open_dataset(source)
    block = found.load()
    shards = {"rows_per_chunk": ROWS_PER_SHARD, "rows_per_shard": ROWS_PER_SHARD}
    writer = DatasetWriter.open(to, found.info.spec.model_copy(update=shards))
    for shard in writer.pending_shards():
        rows = writer.shard_rows(shard)
        part = slice(rows.start, rows.stop)
        writer.write_shard(
            shard,
            replace(
                block,
                images=block.images[part],
                valid=block.valid[part],
                ids=block.ids[part],
                labels={name: label[part] for name, label in block.labels.items()},
            ),
        )
    return writer.finish().url


def reads_of_images(requests: list[S3Request]) -> Counter[str]:
    """Count the reads of each object that holds images."""
    return Counter(
        request.path
        for request in requests
        if request.method == "GET" and "/images/c/" in request.path
    )


def test_a_default_comparison_reads_the_images_of_the_test_set_once(
    simgan: Simgan,
    environment: dict[str, str],
    tmp_path: Path,
    s3_bucket: str,
    s3_proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenes = sample_scenes("synthetic", 40, seed=5)
    synthetic = write_eyes(tmp_path / "synthetic.zarr", "synthetic", scenes)
    refined = write_eyes(tmp_path / "refined.zarr", "refined", sample_scenes("real", 40, seed=6))
    real = write_eyes(tmp_path / "real.zarr", "real", sample_scenes("real", 40, seed=7))
    local = write_eyes(tmp_path / "test.zarr", "real", sample_scenes("real", 40, seed=8))
    test = copy_in_shards(local, f"{s3_bucket}/read-once/test.zarr")
    requests: list[S3Request] = []
    s3_proxy.faults = requests.append  # which returns None: nothing goes wrong
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)

    simgan.environment = {
        **environment,
        **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
    }
    try:
        done = simgan("compare", "--synthetic", synthetic, "--refined", refined, "--real", real,
                      "--test", test, "--seeds", 1, "--steps", 2, "--batch-size", 8,
                      "--json")  # fmt: skip
    finally:
        simgan.environment = environment
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert len(result["arms"]) > 20
    by_the_comparison = reads_of_images(requests)
    requests.clear()
    assert open_dataset(test).load().images.shape[0] == 40
    assert by_the_comparison == reads_of_images(requests)
    assert len(by_the_comparison) == 3
