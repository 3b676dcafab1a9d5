"""Pairs of images before and after refinement, of which the label gate left some out."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from storage.reader import Dataset, open_dataset
from storage.samples import Rejection, SampleBlock
from storage.schema import DatasetSpec, Domain
from storage.writer import DatasetWriter
from tasks.comparison.reporting.pairs import valid_pairs


def dataset(to: Path, domain: Domain, block: SampleBlock, styles: int = 1) -> Dataset:
    """Write grey images of 1×1 pixel."""
    spec = DatasetSpec(
        num_rows=len(block), height=1, width=1, channels=1, dtype="uint8", labels=(),
        domain=domain, source={"name": "test"}, preprocess="none", provenance={"styles": styles},
    )  # fmt: skip
    writer = DatasetWriter.open(str(to), spec)
    writer.write_shard(0, block)
    writer.finish()
    return open_dataset(str(to))


def rows(levels: list[int], ids: list[str], rejected: int) -> SampleBlock:
    images = np.array(levels, np.uint8).reshape(-1, 1, 1, 1)
    valid = np.arange(len(levels)) != rejected
    return SampleBlock(images, valid, ids, {}, (Rejection(rejected, ids[rejected], "moved"),))


def test_rows_that_one_dataset_rejects_are_in_neither_part(tmp_path: Path) -> None:
    ids = ["a", "b", "c", "d"]
    synthetic = dataset(tmp_path / "s", "synthetic", rows([1, 2, 3, 4], ids, 3))
    in_styles = [f"{each}#{style}" for each in ids for style in (1, 2)]
    block = rows([11, 21, 12, 22, 13, 23, 14, 24], in_styles, 2)
    block = replace(block, valid=block.valid & (np.arange(8) < 6), rejections=(
        *block.rejections, Rejection(6, "d#1", "bad"), Rejection(7, "d#2", "bad")
    ))  # fmt: skip
    pairs = valid_pairs(synthetic, dataset(tmp_path / "r", "refined", block, styles=2), 9)
    assert pairs is not None
    assert pairs.synthetic.ravel().tolist() == [1, 3]
    assert pairs.refined.ravel().tolist() == [11, 13]


def test_rows_of_other_ids_are_no_pairs(tmp_path: Path) -> None:
    synthetic = dataset(tmp_path / "s", "synthetic", rows([1, 2], ["a", "b"], 0))
    refined = dataset(tmp_path / "r", "refined", rows([1, 2], ["a", "c"], 0))
    assert valid_pairs(synthetic, refined, 9) is None
