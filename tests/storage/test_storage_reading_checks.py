"""Readers hold what they read against the records: what was damaged since is never believed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import CorruptDatasetError
from storage.reader import Dataset, open_dataset
from storage.schema import DatasetInfo, DatasetSpec
from storage.verification import check_shards

READERS: dict[str, Callable[[Dataset], object]] = {
    "a shard": lambda dataset: dataset.read(10, 20),
    "several shards": lambda dataset: dataset.read(0, 25),
    "a row": lambda dataset: dataset.read(12, 13),
    "rows of two shards": lambda dataset: dataset.read(8, 13),
    "valid rows": lambda dataset: dataset.load(),
    "all rows": lambda dataset: dataset.load(valid_only=False),
    "the first rows": lambda dataset: dataset.load(max_rows=12),
}

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "zeros": lambda whole: bytes(len(whole)),
    "a bit": lambda whole: whole[:3] + bytes([whole[3] ^ 1]) + whole[4:],
    "longer": lambda whole: whole + b"more",
}


@pytest.fixture
def dataset(tmp_path: Path, spec: DatasetSpec, write_dataset: Callable[..., DatasetInfo]) -> Path:
    write_dataset(str(tmp_path / "eyes.zarr"), spec)
    return tmp_path / "eyes.zarr"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("array", ["images/c/1/0/0/0", "labels/gaze/c/1/0", "valid/c/1", "id/c/1"])
def test_a_damaged_shard_is_named(reader: str, damage: str, array: str, dataset: Path) -> None:
    whole = (dataset / array).read_bytes()
    damaged = DAMAGE[damage](whole)
    (dataset / array).write_bytes(damaged)
    opened = open_dataset(str(dataset))
    try:
        READERS[reader](opened)
    except CorruptDatasetError as error:
        assert "shard 1 of dataset" in str(error)  # noqa: PT017  else the rows are right
        assert [check.shard for check in check_shards(opened) if check.fault] == [1]
    else:
        # Bytes after the end of an array's, or of a compressed one's, change no sample.
        assert damage == "longer"


def test_rows_beside_a_damaged_shard_are_read(dataset: Path) -> None:
    (dataset / "images/c/1/0/0/0").write_bytes(b"")
    assert len(open_dataset(str(dataset)).read(0, 10)) == 10
    assert len(open_dataset(str(dataset)).read(20, 25)) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_rows", 24),
        ("num_rows", 20),
        ("num_rows", 26),
        ("num_valid", 25),
        ("num_rejected", 0),
        ("domain", "real"),
        ("preprocess", "equalize"),
        ("digest", "0" * 64),
        ("rows_per_shard", 5),
        ("source", {"name": "other"}),
    ],
)
def test_an_edited_root_document_is_refused(name: str, value: object, dataset: Path) -> None:
    _edit(dataset / "zarr.json", name, value)
    with pytest.raises(CorruptDatasetError, match="record"):
        open_dataset(str(dataset))


@pytest.mark.parametrize(
    ("name", "value"),
    [("stop", 19), ("start", 11), ("num_valid", 9), ("digest", "0" * 64), ("rejections", [])],
)
@pytest.mark.parametrize("listed", [True, False])
def test_an_edited_record_is_refused(name: str, value: object, listed: bool, dataset: Path) -> None:
    shard = 0 if name == "rejections" else 1
    if listed:
        records = _listed(dataset)
        assert records[shard][name] != value
        records[shard][name] = value
        _list(dataset, records)
    else:
        _list(dataset, None)
        _edit(dataset / f"records/{shard:05d}/zarr.json", name, value)
    with pytest.raises(CorruptDatasetError, match="do not belong together"):
        open_dataset(str(dataset))


def test_records_of_two_shards_swapped_are_refused(dataset: Path) -> None:
    first, second, third = _listed(dataset)
    _list(dataset, [second, first, third])
    with pytest.raises(CorruptDatasetError, match="do not belong together"):
        open_dataset(str(dataset))


def test_a_list_that_lacks_a_record_is_refused(dataset: Path) -> None:
    _list(dataset, _listed(dataset)[:2])
    with pytest.raises(CorruptDatasetError, match="do not belong together"):
        open_dataset(str(dataset))


def test_a_list_of_something_else_is_refused(dataset: Path) -> None:
    _list(dataset, [{"shard": 0}])
    with pytest.raises(CorruptDatasetError, match=r"records/zarr.json of dataset .* is damaged"):
        open_dataset(str(dataset))


def test_a_dataset_without_the_list_is_read_record_by_record(dataset: Path) -> None:
    records = open_dataset(str(dataset)).records()
    _list(dataset, None)
    assert open_dataset(str(dataset)).records() == records


def test_a_shard_whose_own_record_differs_from_the_list_is_found(dataset: Path) -> None:
    _edit(dataset / "records/00001/zarr.json", "num_valid", 9)
    (dataset / "records/00002/zarr.json").write_text("{}")
    opened = open_dataset(str(dataset))
    assert opened.fault_of(0) == ""
    assert "another one than the list" in opened.fault_of(1)
    assert "records/00002/zarr.json" in opened.fault_of(2)


def test_shards_of_two_datasets_are_told_apart(
    dataset: Path, spec: DatasetSpec, write_dataset: Callable[..., DatasetInfo]
) -> None:
    """A file of the right length and checksum of zarr's, from another dataset."""
    write_dataset(str(dataset.with_name("b.zarr")), spec)
    shards = [dataset / f"images/c/{n}/0/0/0" for n in (0, 1)]
    shards[0].write_bytes(shards[1].read_bytes())
    with pytest.raises(CorruptDatasetError, match=r"shard 0 of dataset .* other samples"):
        open_dataset(str(dataset)).load()


def test_the_rows_that_are_chosen_are_the_same_as_by_single_reads(dataset: Path) -> None:
    opened = open_dataset(str(dataset))
    chosen = opened.load()
    rows = np.flatnonzero(opened.read_valid())
    for place, row in enumerate(rows.tolist()):
        alone = opened.read(row, row + 1)
        assert chosen.ids[place] == alone.ids[0]
        assert np.array_equal(chosen.images[place], alone.images[0])
        assert np.array_equal(chosen.labels["gaze"][place], alone.labels["gaze"][0])


def _edit(path: Path, name: str, value: object) -> None:
    document = json.loads(path.read_text())
    assert document["attributes"][name] != value
    document["attributes"][name] = value
    path.write_text(json.dumps(document))


def _listed(dataset: Path) -> list[dict[str, Any]]:
    document = json.loads((dataset / "records/zarr.json").read_text())
    listed: list[dict[str, Any]] = document["attributes"]["shards"]
    return listed


def _list(dataset: Path, records: list[dict[str, Any]] | None) -> None:
    """Write these as the list of all records, or none, as datasets of 0.1.0 have it."""
    path = dataset / "records/zarr.json"
    document = json.loads(path.read_text())
    document["attributes"] = {} if records is None else {"shards": records}
    path.write_text(json.dumps(document))
