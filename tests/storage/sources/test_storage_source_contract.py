"""What every source promises, run on each of them (`tests/source_samples.py`)."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from source_samples import SAMPLES, Sample

from storage.manifest import block_digest
from storage.reader import open_dataset
from storage.samples import SampleBlock, concatenated
from storage.schema import DatasetSpec
from storage.sources.source import Source
from storage.writer import DatasetWriter


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> Sample:
    return SAMPLES[request.param]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.fixture
def source(sample: Sample, folder: Path) -> Source:
    sample.write(folder)
    return sample.open(folder)


def everything(source: Source) -> SampleBlock:
    return source.read(0, len(source))


def test_its_samples_are_what_a_dataset_takes(source: Source, tmp_path: Path) -> None:
    height, width, channels = source.image_shape
    spec = DatasetSpec(
        num_rows=len(source),
        height=height,
        width=width,
        channels=channels,
        dtype=source.dtype,
        labels=source.labels,
        domain=source.domain,
        source={"name": source.name, **source.options},
        preprocess=source.preprocess,
        rows_per_chunk=32,
        rows_per_shard=32,
    )
    writer = DatasetWriter.open(str(tmp_path / "d.zarr"), spec)
    writer.write_shard(0, everything(source))
    writer.finish()
    read = open_dataset(str(tmp_path / "d.zarr")).load(valid_only=False)
    assert block_digest(read) == block_digest(everything(source))
    assert read.valid.all()


def test_names_are_distinct_and_known_without_reading(source: Source) -> None:
    names = source.ids(0, len(source))
    assert names == everything(source).ids
    assert len(set(names)) == len(source)
    assert source.ids(1, 3) == names[1:3]


def test_reading_in_pieces_is_reading_all(source: Source) -> None:
    pieces = [source.read(start, min(start + 2, len(source))) for start in range(0, len(source), 2)]
    assert block_digest(concatenated(pieces, len(source))) == block_digest(everything(source))


def test_threads_and_other_processes_read_the_same(source: Source) -> None:
    expected = block_digest(everything(source))
    assert block_digest(everything(pickle.loads(pickle.dumps(source)))) == expected  # noqa: S301
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: block_digest(everything(source)), range(8))) == {expected}


def test_made_again_it_is_the_same(source: Source, sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    sample.write(tmp_path / "elsewhere")
    again = sample.open(tmp_path / "elsewhere")
    assert again.content_digest() == source.content_digest()
    assert again.options == source.options
    assert block_digest(everything(again)) == block_digest(everything(source))


def test_its_options_are_json_without_places(source: Source, tmp_path: Path) -> None:
    assert str(tmp_path) not in json.dumps(source.options)


def test_labels_are_finite_and_gazes_are_directions(source: Source) -> None:
    labels = everything(source).labels
    assert set(labels) == {label.name for label in source.labels}
    assert all(np.isfinite(label).all() for label in labels.values())
    if "gaze" in labels:
        assert np.linalg.norm(labels["gaze"], axis=1) == pytest.approx(1, abs=1e-4)


def test_a_spoilt_sample_is_rejected_and_the_others_stay(
    source: Source, sample: Sample, folder: Path
) -> None:
    before, digest = everything(source), source.content_digest()
    sample.spoil(folder)
    spoilt = sample.open(folder)
    assert spoilt.content_digest() != digest
    block = everything(spoilt)
    bad = {rejection.id for rejection in block.rejections}
    assert bad
    assert all(sample.reason in rejection.reason for rejection in block.rejections)
    assert not block.images[~block.valid].any()
    kept = dict(zip(before.ids, before.images, strict=True))
    for name, image, valid in zip(block.ids, block.images, block.valid, strict=True):
        assert valid == (name not in bad)
        assert not valid or np.array_equal(image, kept[name])
