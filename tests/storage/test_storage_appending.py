"""Adding to a dataset what its source has had since, on every backend."""

from pathlib import Path

import numpy as np
import pytest

from storage.appending import Appending, num_rows_when, open_to_append, select_new
from storage.errors import DatasetExistsError
from storage.layout import read_root
from storage.location import locate
from storage.reader import open_dataset
from storage.samples import SampleBlock, concatenated
from storage.schema import DatasetInfo, DatasetSpec
from storage.sources.formats.arrays import ArraysOptions, ArraysSource
from storage.writer import DatasetWriter


def eyes(folder: Path, numbers: list[int]) -> ArraysSource:
    """Images that follow from their numbers, which are their ids; number 13 is bad."""
    images = np.stack([np.full((4, 6), number, np.uint8) for number in numbers])
    gaze = np.array([[0, 0, 0.0 if number == 13 else -1] for number in numbers])
    path = folder / f"{'-'.join(map(str, numbers))}.npz"
    np.savez(path, image=images, gaze=gaze, id=np.array(numbers))
    return ArraysSource(ArraysOptions(file=str(path), images="image", gaze="gaze", id="id"))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A path where nothing is yet."""
    return str(tmp_path / "eyes.zarr")


def spec_of(source: ArraysSource, **changes: object) -> DatasetSpec:
    spec = DatasetSpec(
        num_rows=len(source),
        height=4,
        width=6,
        channels=1,
        dtype="uint8",
        labels=source.labels,
        domain="real",
        source={"name": "test", "listing": source.content_digest()},
        preprocess="none",
        rows_per_chunk=2,
        rows_per_shard=4,
    )
    return spec.model_copy(update=changes)


def write(url: str, source: ArraysSource, appending: Appending, shards: list[int]) -> None:
    writer, num_kept = appending
    new = select_new(url, source) if num_kept else source
    for shard in shards:
        rows = writer.shard_rows(shard)
        first = max(rows.start, num_kept)
        blocks: list[SampleBlock] = [new.read(first, rows.stop)]
        if first > rows.start:
            blocks.insert(0, open_dataset(url).read(rows.start, first))
        writer.write_shard(shard, concatenated(blocks, len(rows)))


def append(url: str, source: ArraysSource) -> DatasetInfo:
    appending = open_to_append(url, spec_of(source), source)
    if not appending.writer.complete:
        write(url, source, appending, appending.writer.pending_shards())
    return appending.writer.finish()


def rows_of(url: str) -> dict[str, int]:
    """The first pixel of every row by its id."""
    block = open_dataset(url).load(valid_only=False)
    return dict(zip(block.ids, block.images[:, 0, 0, 0].tolist(), strict=True))


def test_new_samples_become_rows_after_the_old_ones(place_url: str, tmp_path: Path) -> None:
    append(place_url, eyes(tmp_path, [3, 5, 7, 9, 11, 13]))
    info = append(place_url, eyes(tmp_path, [1, 3, 4, 5, 7, 8, 9, 11, 13, 15]))
    assert list(rows_of(place_url)) == ["3", "5", "7", "9", "11", "13", "1", "4", "8", "15"]
    assert all(pixel in (int(name), 0) for name, pixel in rows_of(place_url).items())
    assert info.num_rejected == 1
    dataset = open_dataset(place_url)
    assert [r.row for record in dataset.records() for r in record.rejections] == [5]
    assert dataset.info == info


def test_what_is_there_is_not_read_again(url: str, tmp_path: Path) -> None:
    append(url, eyes(tmp_path, [2, 4, 6, 8, 10]))
    other = eyes(tmp_path, [2, 4, 6, 8, 10, 12])
    images = np.full((6, 4, 6), 99, np.uint8)
    np.savez(other._file.path, image=images, gaze=np.full((6, 3), -1.0), id=np.arange(2, 13, 2))
    append(
        url, ArraysOptions(file=str(other._file.path), images="image", gaze="gaze", id="id").open()
    )
    assert list(rows_of(url).values()) == [2, 4, 6, 8, 10, 99]


def test_nothing_new_changes_nothing(url: str, tmp_path: Path) -> None:
    info = append(url, eyes(tmp_path, [2, 4, 6]))
    assert append(url, eyes(tmp_path, [6, 2])) == info


def test_every_day_adds_to_the_day_before(url: str, tmp_path: Path) -> None:
    for last in range(3, 20, 4):
        append(url, eyes(tmp_path, list(range(last))))
    assert rows_of(url) == {str(n): 0 if n == 13 else n for n in range(19)}
    appended = open_dataset(url).info.spec.source["appended"]
    assert [part["first_row"] for part in appended] == [3, 7, 11, 15]


def test_earlier_states_are_known_by_their_digests(url: str, tmp_path: Path) -> None:
    states = [append(url, eyes(tmp_path, list(range(last)))).digest for last in (3, 14, 16, 19)]
    dataset = open_dataset(url)
    assert [num_rows_when(dataset, digest) for digest in states] == [3, 14, 16, None]
    assert num_rows_when(dataset, "0" * 64) is None


@pytest.mark.parametrize("num_written", [0, 1, 2])
def test_stopped_and_gone_on_with_is_the_same_dataset(
    url: str, tmp_path: Path, num_written: int
) -> None:
    before, after = eyes(tmp_path, [1, 2, 3, 4, 5, 6]), eyes(tmp_path, list(range(15)))
    append(url, before)
    stopped = open_to_append(url, spec_of(after), after)
    pending = stopped.writer.pending_shards()
    assert pending == [1, 2, 3]  # the one full shard is kept
    write(url, after, stopped, pending[:num_written])
    resumed = open_to_append(url, spec_of(after), after)
    assert resumed.writer.pending_shards() == pending[num_written:]
    undisturbed = url + ".undisturbed"
    append(undisturbed, before)
    assert append(url, after).digest == append(undisturbed, after).digest


def test_readers_have_the_old_rows_until_all_new_ones_are_there(
    place_url: str, tmp_path: Path
) -> None:
    info = append(place_url, eyes(tmp_path, [1, 2, 3, 4, 5]))
    early, after = open_dataset(place_url), eyes(tmp_path, list(range(12)))
    appending = open_to_append(place_url, spec_of(after), after)
    write(place_url, after, appending, appending.writer.pending_shards())
    assert open_dataset(place_url).info == info
    appending.writer.finish()
    assert len(open_dataset(place_url)) == 12
    assert early.load().images[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]


def test_a_source_that_grew_meanwhile_begins_the_addition_anew(url: str, tmp_path: Path) -> None:
    append(url, eyes(tmp_path, [1, 2, 3]))
    once, twice = eyes(tmp_path, [1, 2, 3, 4, 5]), eyes(tmp_path, [0, 1, 2, 3, 4, 5, 6])
    stopped = open_to_append(url, spec_of(once), once)
    write(url, once, stopped, [0])
    append(url, twice)
    assert list(rows_of(url)) == ["1", "2", "3", "0", "4", "5", "6"]


def test_a_dataset_that_was_never_complete_is_begun_anew_when_its_source_has_changed(
    url: str, tmp_path: Path
) -> None:
    before, after = eyes(tmp_path, [1, 2, 3, 4, 5]), eyes(tmp_path, [0, 1, 2, 3, 4, 5])
    write(url, before, open_to_append(url, spec_of(before), before), [0])
    append(url, after)
    assert list(rows_of(url)) == ["0", "1", "2", "3", "4", "5"]


def test_a_dataset_made_otherwise_is_refused_and_stays(url: str, tmp_path: Path) -> None:
    info = append(url, eyes(tmp_path, [1, 2, 3]))
    more = eyes(tmp_path, [1, 2, 3, 4])
    for changes in ({"domain": "synthetic"}, {"rows_per_shard": 8}, {"preprocess": "equalize"}):
        with pytest.raises(DatasetExistsError, match=f"otherwise: {next(iter(changes))} is"):
            open_to_append(url, spec_of(more, **changes), more)
    assert open_dataset(url).info == info


def test_an_addition_given_up_leaves_the_dataset(url: str, tmp_path: Path) -> None:
    info = append(url, eyes(tmp_path, [1, 2, 3]))
    more = eyes(tmp_path, [1, 2, 3, 4])
    open_to_append(url, spec_of(more), more).writer.discard()
    assert open_dataset(url).info == info
    assert read_root(locate(url).sibling(".building"), url) is None


def test_extending_needs_a_complete_dataset(tmp_path: Path, spec: DatasetSpec) -> None:
    with pytest.raises(ValueError, match="no dataset"):
        DatasetWriter.extend(str(tmp_path / "d"), spec)
    DatasetWriter.open(str(tmp_path / "d"), spec)
    with pytest.raises(ValueError, match="incomplete"):
        DatasetWriter.extend(str(tmp_path / "d"), spec)
