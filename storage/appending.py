"""Append a source's new samples to its dataset; existing rows stay as they are.

The rows that are there stay as they are, and only new files are read. The longer dataset is built
beside the old one and takes its place when complete (`DatasetWriter.extend`), so readers never see
it half appended and a killed attempt loses nothing.
"""

import logging
from typing import NamedTuple

from pydantic import JsonValue

from storage.errors import DatasetExistsError
from storage.layout import read_root
from storage.location import locate
from storage.manifest import block_digest, dataset_digest
from storage.reader import Dataset, open_dataset
from storage.replacement import put_in_place
from storage.schema import DatasetSpec
from storage.sources.selection import Selection, new_places
from storage.sources.source import Source
from storage.writer import DatasetWriter

logger = logging.getLogger(__name__)


class Appending(NamedTuple):
    """Writer of a dataset to which a source's new samples are appended."""

    writer: DatasetWriter
    num_kept: int
    """Rows before appending."""


def open_to_append(url: str, spec: DatasetSpec, source: Source) -> Appending:
    """Open a dataset for a source's samples whose ids it does not have.

    `spec` is what the dataset would be if the source were ingested anew: but for its rows and
    listing, the dataset must have been made so. Where there is no dataset yet, one is created; an
    incomplete one, which nobody could read, is resumed, or replaced where the source has changed
    since.

    Raises DatasetExistsError where the place holds another dataset, or something else.
    """
    target = locate(url)
    put_in_place(target)
    found = read_root(target, target.url)
    if found is None:
        return Appending(DatasetWriter.open(url, spec), 0)
    if found.info is None:
        if found.spec != spec and _but_for_rows(spec, found.spec) == found.spec:
            logger.info("%s was incomplete and its source has changed: it is replaced", target.url)
            target.delete_all()
        return Appending(DatasetWriter.open(url, spec), 0)
    num_kept = found.spec.num_rows
    differences = _but_for_rows(spec, found.spec).differences(found.spec)
    if differences:
        raise DatasetExistsError(
            f"{target.url} was made otherwise: {'; '.join(differences)}. Append with the options "
            "that it was made with, or choose another place"
        )
    num_new = len(new_places(source, open_dataset(url).read_ids()))
    logger.info("%s: %d samples are new, %d are kept", target.url, num_new, num_kept)
    if num_new == 0:
        return Appending(DatasetWriter.open(url, found.spec), num_kept)
    listing = source.content_digest()
    return Appending(DatasetWriter.extend(url, _extended(found.spec, num_new, listing)), num_kept)


def select_new(url: str, source: Source) -> Selection:
    """Select a source's samples that a dataset lacks, as its following rows."""
    dataset = open_dataset(url)
    return Selection(source, new_places(source, dataset.read_ids()), len(dataset))


def num_rows_when(dataset: Dataset, digest: str) -> int | None:
    """Return a dataset's number of rows at an earlier digest, before rows were appended.

    None where it never was. Only the last shard of that state is read again, if it was not full;
    those before it are known by their records.
    """
    spec = dataset.info.spec
    added = spec.source.get("appended", [])
    assert isinstance(added, list)
    for count in reversed(range(len(added))):
        before = _before_adding(spec, count)
        full, rest = divmod(before.num_rows, spec.rows_per_shard)
        shards = [record.digest for record in dataset.records()[:full]]
        if rest:
            shards.append(block_digest(dataset.read(before.num_rows - rest, before.num_rows)))
        if dataset_digest(before, shards) == digest:
            return before.num_rows
    return None


def _before_adding(spec: DatasetSpec, count: int) -> DatasetSpec:
    """Return the spec after the first `count` additions."""
    added = spec.source["appended"]
    assert isinstance(added, list)
    source = {name: value for name, value in spec.source.items() if name != "appended"}
    if count:
        source["appended"] = added[:count]
    num_rows = added[count]["first_row"]  # type: ignore[index,call-overload]
    return spec.model_copy(update={"num_rows": num_rows, "source": source})


def _but_for_rows(spec: DatasetSpec, found: DatasetSpec) -> DatasetSpec:
    """Return a spec with another spec's number of rows and listings."""
    source = dict(spec.source)
    for name in ("listing", "appended"):
        if name in found.source:
            source[name] = found.source[name]
    return spec.model_copy(update={"num_rows": found.num_rows, "source": source})


def _extended(spec: DatasetSpec, num_new: int, listing: str) -> DatasetSpec:
    """Return the spec with rows added; its source lists the first row of every addition."""
    before = spec.source.get("appended", [])
    assert isinstance(before, list)
    appended: list[JsonValue] = [*before, {"first_row": spec.num_rows, "listing": listing}]
    return spec.model_copy(
        update={
            "num_rows": spec.num_rows + num_new,
            "source": {**spec.source, "appended": appended},
        }
    )
