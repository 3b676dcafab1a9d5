"""A dataset written and read, on every backend."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from storage.errors import (
    BlockError,
    CorruptDatasetError,
    DatasetExistsError,
    DatasetIncompleteError,
    DatasetNotFoundError,
    DuplicateIdError,
    UnsupportedDatasetError,
)
from storage.location import locate
from storage.manifest import block_digest
from storage.reader import open_dataset
from storage.samples import Rejection, SampleBlock
from storage.schema import GAZE, DatasetInfo, DatasetSpec
from storage.writer import DatasetWriter

Blocks = Callable[..., SampleBlock]
Write = Callable[..., DatasetInfo]


def assert_same(block: SampleBlock, expected: SampleBlock) -> None:
    assert block_digest(block) == block_digest(expected)


def other_than(spec: DatasetSpec) -> DatasetSpec:
    return spec.model_copy(update={"domain": "real"})


@pytest.fixture
def writer(tmp_path: Path, spec: DatasetSpec) -> DatasetWriter:
    """A dataset on disk that was just begun."""
    return DatasetWriter.open(str(tmp_path / "begun"), spec)


# Writing and reading


def test_what_is_written_is_read(
    place_url: str, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    info = write_dataset(place_url, spec)
    dataset = open_dataset(place_url)
    assert dataset.info == info
    assert (info.num_valid, info.num_rejected) == (24, 1)
    assert_same(dataset.read(0, 25), make_block(spec, range(25)))


def test_rows_are_read_across_shards(
    place_url: str, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    write_dataset(place_url, spec)
    assert_same(open_dataset(place_url).read(6, 23), make_block(spec, range(6, 23)))


def test_loading_leaves_out_the_rows_that_are_not_valid(
    place_url: str, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    write_dataset(place_url, spec)
    block = open_dataset(place_url).load()
    rows = [row for row in range(25) if row != 7]
    expected = make_block(spec, range(25))
    assert block.ids == [f"eye/{row}" for row in rows]
    assert np.array_equal(block.images, expected.images[rows])
    assert np.array_equal(block.labels["gaze"], expected.labels["gaze"][rows])
    assert block.valid.all()
    assert block.rejections == ()


def test_loading_everything_keeps_the_rows_that_are_not_valid(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    write_dataset(str(tmp_path / "d"), spec)
    block = open_dataset(str(tmp_path / "d")).load(valid_only=False)
    assert_same(block, make_block(spec, range(25)))


@pytest.mark.parametrize("max_rows", [0, 5, 9, 100])
def test_loading_a_number_of_rows_takes_the_first_valid_ones(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write, max_rows: int
) -> None:
    write_dataset(str(tmp_path / "d"), spec)
    block = open_dataset(str(tmp_path / "d")).load(max_rows=max_rows)
    rows = [row for row in range(25) if row != 7][:max_rows]
    assert block.ids == [f"eye/{row}" for row in rows]
    assert len(block.images) == len(rows)


@pytest.mark.parametrize("count", [0, 1, 4, 99])
def test_a_spread_of_rows_covers_the_first_shard_without_those_that_are_not_valid(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write, count: int
) -> None:
    write_dataset(str(tmp_path / "d"), spec)
    dataset = open_dataset(str(tmp_path / "d"))
    valid = [row for row in dataset.shard_rows(0) if row != 7]
    places = np.linspace(0, len(valid) - 1, min(count, len(valid))).astype(int)
    block = dataset.load_spread(count)
    assert block.ids == [f"eye/{valid[place]}" for place in places]
    assert len(block.images) == len(block.ids)


def test_names_labels_and_flags_are_read_without_the_images(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    write_dataset(str(tmp_path / "d"), spec)
    shutil.rmtree(tmp_path / "d" / "images" / "c")
    dataset, expected = open_dataset(str(tmp_path / "d")), make_block(spec, range(25))
    assert dataset.read_ids() == expected.ids
    assert np.array_equal(dataset.read_valid(), expected.valid)
    labels = dataset.read_labels()
    assert labels.keys() == {"gaze", "pupil_px"}
    assert np.array_equal(labels["gaze"], expected.labels["gaze"], equal_nan=True)


def test_depth_in_16_bits_and_three_channels_are_kept(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    deep = spec.model_copy(update={"dtype": "uint16", "channels": 3})
    write_dataset(str(tmp_path / "d"), deep)
    assert_same(open_dataset(str(tmp_path / "d")).read(0, 25), make_block(deep, range(25)))


def test_rows_beyond_the_dataset_are_refused(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write
) -> None:
    write_dataset(str(tmp_path / "d"), spec)
    with pytest.raises(IndexError, match="25"):
        open_dataset(str(tmp_path / "d")).read(20, 26)


def test_any_reader_of_zarr_finds_arrays_attributes_and_records(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    info = write_dataset(str(tmp_path / "d"), spec)
    group = zarr.open_group(str(tmp_path / "d"), mode="r")
    assert sorted(group.array_keys()) == ["id", "images", "valid"]
    assert group["images"].chunks == (5, 4, 6, 1)
    assert group["images"].shards == (10, 4, 6, 1)
    assert np.array_equal(group["images"][:], make_block(spec, range(25)).images)
    assert group["labels/gaze"].dtype == np.float32
    assert group.attrs["complete"] is True
    assert group.attrs["digest"] == info.digest
    assert group["records/00000"].attrs["rejections"] == [
        {"row": 7, "id": "eye/7", "reason": "too dark", "by_choice": False}
    ]
    assert len(list(group.members(max_depth=None))) == 10


def test_records_hold_the_figures_and_none_for_those_that_are_not_finite(
    tmp_path: Path, spec: DatasetSpec, make_block: Blocks
) -> None:
    writer = DatasetWriter.open(str(tmp_path / "d"), spec)
    for shard in range(3):
        block = make_block(spec, writer.shard_rows(shard))
        writer.write_shard(shard, block, figures={"shift_px": 0.5, "ratio": float("nan")})
    writer.finish()
    records = open_dataset(str(tmp_path / "d")).records()
    assert [(record.start, record.stop) for record in records] == [(0, 10), (10, 20), (20, 25)]
    assert [record.num_valid for record in records] == [9, 10, 5]
    assert records[2].figures == {"shift_px": 0.5, "ratio": None}


# The digest


def test_the_digest_follows_from_content_and_spec_alone(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    one = write_dataset(str(tmp_path / "one"), spec)
    assert write_dataset(str(tmp_path / "two"), spec).digest == one.digest
    assert write_dataset(str(tmp_path / "spec"), other_than(spec)).digest != one.digest
    writer = DatasetWriter.open(str(tmp_path / "content"), spec)
    for shard in writer.pending_shards():
        writer.write_shard(shard, make_block(spec, writer.shard_rows(shard), seed=shard // 2))
    assert writer.finish().digest != one.digest


def test_a_dataset_names_the_code_that_finished_it_outside_its_digest(
    tmp_path: Path, spec: DatasetSpec, make_block: Blocks
) -> None:
    infos = []
    for place, code in (("a", {"commit": "abc"}), ("b", {"commit": "def"}), ("c", None)):
        writer = DatasetWriter.open(str(tmp_path / place), spec)
        for shard in writer.pending_shards():
            writer.write_shard(shard, make_block(spec, writer.shard_rows(shard)))
        infos.append(writer.finish(code))
    assert [info.code for info in infos] == [{"commit": "abc"}, {"commit": "def"}, {}]
    assert [open_dataset(info.url).info for info in infos] == infos
    assert len({info.digest for info in infos}) == 1


def test_a_dataset_of_before_code_was_named_is_read(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write
) -> None:
    info = write_dataset(str(tmp_path / "old"), spec)
    root = tmp_path / "old" / "zarr.json"
    document = json.loads(root.read_text())
    del document["attributes"]["code"]
    root.write_text(json.dumps(document))
    assert open_dataset(str(tmp_path / "old")).info == info


@pytest.mark.parametrize("part", ["images", "valid", "ids", "labels", "rejections"])
def test_every_part_of_a_block_is_in_its_digest(
    spec: DatasetSpec, make_block: Blocks, part: str
) -> None:
    block = make_block(spec, range(5))
    images, gaze = block.images.copy(), block.labels["gaze"].copy()
    images[3, 2, 1, 0] ^= 1
    gaze[4, 2] += 1
    changed = {
        "images": images,
        "valid": ~block.valid,
        "ids": ["", *block.ids[1:]],
        "labels": {**block.labels, "gaze": gaze},
        "rejections": (Rejection(1, "eye/1", "blurred"),),
    }
    assert block_digest(replace(block, **{part: changed[part]})) != block_digest(block)


# Resuming


def test_a_dataset_goes_on_where_it_stopped(
    place_url: str, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    first = DatasetWriter.open(place_url, spec)
    first.write_shard(1, make_block(spec, range(10, 20)))
    second = DatasetWriter.open(place_url, spec)
    assert second.pending_shards() == [0, 2]
    assert not second.complete
    info = write_dataset(place_url, spec)
    assert info.digest == write_dataset(place_url + ".undisturbed", spec).digest


def test_a_complete_dataset_of_the_same_spec_is_recognised(
    place_url: str, spec: DatasetSpec, write_dataset: Write
) -> None:
    info = write_dataset(place_url, spec)
    for overwrite in (False, True):
        writer = DatasetWriter.open(place_url, spec, overwrite=overwrite)
        assert writer.complete
        assert writer.pending_shards() == []
        assert writer.finish() == info


def test_a_killed_creation_goes_on(tmp_path: Path, spec: DatasetSpec, write_dataset: Write) -> None:
    DatasetWriter.open(str(tmp_path / "d"), spec)
    shutil.rmtree(tmp_path / "d" / "labels")
    shutil.rmtree(tmp_path / "d" / "id")
    assert write_dataset(str(tmp_path / "d"), spec).num_valid == 24


def test_workers_attach_to_what_is_being_made(
    place_url: str, spec: DatasetSpec, make_block: Blocks
) -> None:
    DatasetWriter.open(place_url, spec)
    for shard in range(3):
        worker = DatasetWriter.attach(place_url)
        assert worker.spec == spec
        worker.write_shard(shard, make_block(spec, worker.shard_rows(shard)))
    assert DatasetWriter.attach(place_url).finish().num_valid == 24


def test_a_worker_never_creates_a_dataset(place_url: str) -> None:
    with pytest.raises(DatasetNotFoundError, match="open it first"):
        DatasetWriter.attach(place_url)
    assert locate(place_url).is_free()


def test_finishing_needs_every_shard(place_url: str, spec: DatasetSpec, make_block: Blocks) -> None:
    writer = DatasetWriter.open(place_url, spec)
    writer.write_shard(0, make_block(spec, range(10)))
    with pytest.raises(DatasetIncompleteError, match=r"2 of 3 shards \(1, 2\)"):
        writer.finish()


def test_a_complete_dataset_holds_no_claims_and_no_partial_files(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write
) -> None:
    DatasetWriter.open(str(tmp_path / "d"), spec)
    (tmp_path / "d" / "images" / "0.partial").touch()
    write_dataset(str(tmp_path / "d"), spec)
    names = {path.name for path in (tmp_path / "d").rglob("*") if path.is_file()}
    assert names == {"zarr.json", "0", "1", "2"}


# One writer a shard


def test_a_finished_shard_is_not_written_again(
    place_url: str, spec: DatasetSpec, make_block: Blocks
) -> None:
    writer = DatasetWriter.open(place_url, spec)
    record = writer.write_shard(0, make_block(spec, range(10)))
    assert writer.write_shard(0, make_block(spec, range(10), seed=1)) == record


def test_of_two_attempts_at_a_shard_one_is_kept_whole(
    place_url: str, spec: DatasetSpec, make_block: Blocks, write_dataset: Write
) -> None:
    DatasetWriter.open(place_url, spec)
    blocks = [make_block(spec, range(10), seed) for seed in range(4)]
    with ThreadPoolExecutor(len(blocks)) as pool:
        attempts = [
            pool.submit(DatasetWriter.attach(place_url).write_shard, 0, block) for block in blocks
        ]
    records = {attempt.result().digest for attempt in attempts}
    write_dataset(place_url, spec)
    assert records == {block_digest(open_dataset(place_url).read(0, 10))}


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("images", np.zeros((10, 4, 7, 1), np.uint8), r"images must be uint8 \[10, 4, 6, 1\]"),
        ("images", np.zeros((10, 4, 6, 1), np.uint16), "got uint16"),
        ("images", np.zeros((9, 4, 6, 1), np.uint8), r"got uint8 \[9, 4, 6, 1\]"),
        ("valid", np.ones(10, np.uint8), "valid must be bool"),
        ("ids", ["a"], "expected 10 ids, got 1"),
        ("ids", ["a", "", *"cdefghij"], "row 1 has an empty id"),
        ("labels", {"gaze": np.zeros((10, 3), np.float32)}, "labels"),
        ("rejections", (), "row 7 is not valid and has 0"),
        (
            "rejections",
            (Rejection(7, "eye/7", "dark"), Rejection(3, "eye/3", "dark")),
            "row 3 is valid and has 1",
        ),
    ],
)
def test_a_block_that_is_not_the_shard_is_refused(
    writer: DatasetWriter, make_block: Blocks, part: str, value: object, message: str
) -> None:
    block = replace(make_block(writer.spec, range(10)), **{part: value})
    with pytest.raises(BlockError, match=message):
        writer.write_shard(0, block)
    assert writer.pending_shards() == [0, 1, 2]


def test_a_label_of_another_shape_or_type_is_refused(
    writer: DatasetWriter, make_block: Blocks
) -> None:
    block = make_block(writer.spec, range(10))
    for gaze in (np.zeros((10, 2), np.float32), np.zeros((10, 3))):
        with pytest.raises(BlockError, match=r"gaze must be float32 \[10, 3\]"):
            writer.write_shard(0, replace(block, labels={**block.labels, "gaze": gaze}))


@pytest.mark.parametrize("rows", [(3, 4), (3, 22)])
def test_a_name_that_two_rows_have_is_refused(
    place_url: str, spec: DatasetSpec, make_block: Blocks, rows: tuple[int, int]
) -> None:
    writer = DatasetWriter.open(place_url, spec)
    for shard in range(3):
        block = make_block(spec, writer.shard_rows(shard))
        ids = ["twin" if int(name[4:]) in rows else name for name in block.ids]
        writer.write_shard(shard, replace(block, ids=ids))
    with pytest.raises(DuplicateIdError, match=rf"rows {rows[0]} and {rows[1]} .* 'twin'"):
        writer.finish()


# What is there already


def test_another_dataset_at_the_place_is_kept_and_named(
    place_url: str, spec: DatasetSpec, write_dataset: Write
) -> None:
    info = write_dataset(place_url, spec)
    with pytest.raises(DatasetExistsError, match=r'domain is "synthetic", not "real".*overwrite'):
        DatasetWriter.open(place_url, other_than(spec))
    assert open_dataset(place_url).info == info


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_dataset_is_never_replaced(
    place_url: str, spec: DatasetSpec, overwrite: bool
) -> None:
    locate(place_url).create("letters/mine.txt", b"dear")
    with pytest.raises(DatasetExistsError, match="no dataset"):
        DatasetWriter.open(place_url, spec, overwrite=overwrite)
    assert list(locate(place_url).list_keys()) == ["letters/mine.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_at_the_place_is_kept(tmp_path: Path, spec: DatasetSpec, overwrite: bool) -> None:
    (tmp_path / "d").write_text("mine")
    with pytest.raises(DatasetExistsError, match="no dataset"):
        DatasetWriter.open(str(tmp_path / "d"), spec, overwrite=overwrite)
    assert (tmp_path / "d").read_text() == "mine"


def test_an_empty_folder_is_a_place_for_a_dataset(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write
) -> None:
    assert write_dataset(str(tmp_path), spec).num_valid == 24


def test_readers_get_the_old_dataset_until_the_new_one_is_complete(
    place_url: str, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    old = write_dataset(place_url, spec)
    writer = DatasetWriter.open(place_url, other_than(spec), overwrite=True)
    for shard in writer.pending_shards():
        worker = DatasetWriter.attach(place_url)
        worker.write_shard(shard, make_block(spec, writer.shard_rows(shard), seed=1))
        assert open_dataset(place_url).info == old
    new = DatasetWriter.attach(place_url).finish()
    assert new.url == old.url
    assert open_dataset(place_url).info == new
    assert_same(open_dataset(place_url).read(0, 25), make_block(spec, range(25), seed=1))
    assert locate(place_url).sibling(".building").is_free()


def test_an_overwriting_goes_on_where_it_stopped(
    place_url: str, spec: DatasetSpec, write_dataset: Write, make_block: Blocks
) -> None:
    write_dataset(place_url, spec)
    first = DatasetWriter.open(place_url, other_than(spec), overwrite=True)
    first.write_shard(0, make_block(spec, range(10)))
    second = DatasetWriter.open(place_url, other_than(spec), overwrite=True)
    assert second.pending_shards() == [1, 2]


def test_a_complete_successor_whose_writer_was_killed_is_read_and_put_in_place(
    place_url: str, spec: DatasetSpec, write_dataset: Write
) -> None:
    beside = locate(place_url).sibling(".building").url
    successor = write_dataset(beside, spec)
    assert open_dataset(place_url).info.digest == successor.digest
    writer = DatasetWriter.open(place_url, spec)
    assert writer.complete
    assert open_dataset(place_url).info.digest == successor.digest
    assert locate(beside).is_free()


def test_discarding_deletes_what_is_incomplete(
    place_url: str, spec: DatasetSpec, make_block: Blocks
) -> None:
    writer = DatasetWriter.open(place_url, spec)
    writer.write_shard(0, make_block(spec, range(10)))
    DatasetWriter.attach(place_url).discard()
    assert locate(place_url).is_free()
    with pytest.raises(DatasetNotFoundError, match="removed"):
        writer.write_shard(1, make_block(spec, range(10, 20)))
    assert locate(place_url).is_free()


def test_discarding_a_successor_keeps_the_old_dataset(
    place_url: str, spec: DatasetSpec, write_dataset: Write
) -> None:
    old = write_dataset(place_url, spec)
    DatasetWriter.open(place_url, other_than(spec), overwrite=True).discard()
    assert open_dataset(place_url).info == old


def test_a_complete_dataset_is_not_discarded(
    place_url: str, spec: DatasetSpec, write_dataset: Write
) -> None:
    write_dataset(place_url, spec)
    with pytest.raises(DatasetExistsError, match="complete"):
        DatasetWriter.attach(place_url).discard()


# What cannot be read


def test_an_incomplete_dataset_is_refused_with_how_to_finish_it(
    place_url: str, spec: DatasetSpec, make_block: Blocks
) -> None:
    writer = DatasetWriter.open(place_url, spec)
    writer.write_shard(0, make_block(spec, range(10)))
    with pytest.raises(DatasetIncompleteError, match=r"1 of 3 shards .* Run the command"):
        open_dataset(place_url)


def test_nothing_at_the_place_is_said_so(place_url: str) -> None:
    with pytest.raises(DatasetNotFoundError, match="nothing"):
        open_dataset(place_url)


def test_something_else_at_the_place_is_said_so(place_url: str) -> None:
    locate(place_url).create("mine.txt", b"dear")
    with pytest.raises(DatasetNotFoundError, match="something else"):
        open_dataset(place_url)


def test_a_zarr_group_of_others_is_no_dataset(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "d"))
    with pytest.raises(DatasetNotFoundError, match="something else"):
        open_dataset(str(tmp_path / "d"))


@pytest.mark.parametrize("document", ["{", "[]", '{"attributes": {"schema_version": 1}}'])
def test_a_damaged_root_document_is_said_so(tmp_path: Path, document: str) -> None:
    (tmp_path / "zarr.json").write_text(document)
    with pytest.raises(CorruptDatasetError, match=r"zarr\.json"):
        open_dataset(str(tmp_path))


def test_another_version_of_the_layout_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {"schema_version": 2}}))
    with pytest.raises(UnsupportedDatasetError, match="version 2"):
        open_dataset(str(tmp_path))


def test_a_lost_record_is_said_so(tmp_path: Path, spec: DatasetSpec, write_dataset: Write) -> None:
    write_dataset(str(tmp_path / "d"), spec)
    shutil.rmtree(tmp_path / "d" / "records" / "00001")
    # A list of all records, which later releases write, would stand in for it.
    (tmp_path / "d" / "records" / "zarr.json").unlink()
    with pytest.raises(CorruptDatasetError, match="record of shard 1"):
        open_dataset(str(tmp_path / "d")).records()


# The spec


def test_a_shard_of_no_whole_number_of_chunks_is_refused(spec: DatasetSpec) -> None:
    with pytest.raises(ValueError, match="multiple"):
        DatasetSpec(**{**spec.model_dump(), "rows_per_shard": 12})


def test_two_labels_of_one_name_are_refused(spec: DatasetSpec) -> None:
    with pytest.raises(ValueError, match="distinct names"):
        DatasetSpec(**{**spec.model_dump(), "labels": (GAZE, GAZE)})


def test_a_shard_that_is_none_is_refused(spec: DatasetSpec) -> None:
    with pytest.raises(IndexError, match="shard 3 of 3"):
        spec.shard_rows(3)


def test_a_dataset_that_is_a_link_is_replaced_where_it_points_to(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Callable[..., DatasetInfo]
) -> None:
    (tmp_path / "disk").mkdir()
    link, there = tmp_path / "eyes.zarr", tmp_path / "disk" / "eyes.zarr"
    link.symlink_to(there)
    for version in range(3):
        changed = spec.model_copy(update={"source": {"name": "test", "version": version}})
        info = write_dataset(str(link), changed, overwrite=True)
        assert info.url == str(link)
        assert open_dataset(str(link)).info == info
    assert link.is_symlink()
    assert list(there.parent.iterdir()) == [there]
