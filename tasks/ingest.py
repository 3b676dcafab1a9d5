"""Ingestion: a source's files become the shards of a dataset."""

import logging
import time
from collections import Counter
from dataclasses import replace
from typing import Literal, NamedTuple

from prefect import task

from simgan_core.preprocess import preprocess as apply_preprocess
from storage.errors import SourceError
from storage.samples import SampleBlock
from storage.schema import DatasetInfo, DatasetSpec
from storage.sources.source import Source
from storage.writer import DatasetWriter
from tasks.inputs import SourceInput, open_listed
from tasks.policies import CACHE, IO_RETRIES, IO_RETRY_DELAYS_S, groups_of_shards, retry_on_io

logger = logging.getLogger(__name__)

Preprocess = Literal["none", "equalize"]


class IngestionPlan(NamedTuple):
    """What is left to ingest: the listing it belongs to and groups of shards."""

    listing_digest: str
    groups: list[list[int]]


@task(name="plan-ingestion", cache_policy=CACHE)
def plan_ingestion(
    source: SourceInput, to: str, preprocess: Preprocess, rows_per_shard: int, overwrite: bool
) -> IngestionPlan:
    """List the source and open the dataset for it, new or where an earlier run left it."""
    opened = source.open()
    spec = _spec(opened, preprocess, rows_per_shard)
    writer = DatasetWriter.open(to, spec, overwrite=overwrite)
    pending = [] if writer.complete else writer.pending_shards()
    logger.info("%s: %d samples, %d shards to do", opened.name, len(opened), len(pending))
    return IngestionPlan(opened.content_digest(), groups_of_shards(pending))


@task(
    name="ingest-shards",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def ingest_shards(
    shards: list[int], source: SourceInput, listing_digest: str, to: str, preprocess: Preprocess
) -> int:
    """Read, preprocess and write these shards; returns how many rows they hold."""
    opened = open_listed(source, listing_digest)
    writer = DatasetWriter.attach(to)
    num_rows = 0
    for shard in shards:
        rows = writer.shard_rows(shard)
        started = time.perf_counter()
        block = _preprocessed(opened.read(rows.start, rows.stop), opened, preprocess)
        writer.write_shard(shard, block)
        num_rows += len(rows)
        rate = len(rows) / (time.perf_counter() - started)
        logger.info("shard %d of %d: %d rows, %.0f a second", shard + 1, writer.num_shards,
                    len(rows), rate)  # fmt: skip
    return num_rows


@task(name="finish-ingestion", cache_policy=CACHE)
def finish_ingestion(to: str, max_bad: float) -> DatasetInfo:
    """Close the dataset, unless more than the share `max_bad` of its samples were bad."""
    writer = DatasetWriter.attach(to)
    _refuse_too_many_bad(writer, max_bad)
    info = writer.finish()
    logger.info("%s is complete: %d rows, %d rejected", to, info.spec.num_rows, info.num_rejected)
    return info


def _spec(source: Source, preprocess: Preprocess, rows_per_shard: int) -> DatasetSpec:
    """Describe the dataset that a source becomes."""
    height, width, channels = source.image_shape
    return DatasetSpec(
        num_rows=len(source),
        height=height,
        width=width,
        channels=channels,
        dtype=source.dtype,
        labels=source.labels,
        domain=source.domain,
        source={"name": source.name, "listing": source.content_digest(), **source.options},
        # Images that come equalised stay so: equalising is recorded, whoever did it.
        preprocess=source.preprocess if preprocess == "none" else preprocess,
        provenance={},
        rows_per_chunk=min(1024, rows_per_shard),
        rows_per_shard=rows_per_shard,
    )


def _preprocessed(block: SampleBlock, source: Source, preprocess: Preprocess) -> SampleBlock:
    """Apply the dataset's preprocessing, unless the source's images have had it already."""
    if preprocess in ("none", source.preprocess):
        return block
    images = apply_preprocess(block.images, preprocess)
    images[~block.valid] = 0
    return replace(block, images=images)


def _refuse_too_many_bad(writer: DatasetWriter, max_bad: float) -> None:
    rejections = [r for record in writer.records() for r in record.rejections]
    share = len(rejections) / writer.spec.num_rows
    if share <= max_bad:
        return
    reasons = Counter(rejection.reason for rejection in rejections)
    listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
    first = ", ".join(rejection.id for rejection in rejections[:3])
    writer.discard()
    raise SourceError(
        f"{len(rejections)} of {writer.spec.num_rows} samples are bad ({share:.1%}), more than "
        f"--max-bad {max_bad:.1%}: {listed} (first: {first}). Mend or remove them, or allow more; "
        "nothing was kept"
    )
