"""Ingestion of a source into the shards of a dataset, new or existing."""

import logging
import math
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from prefect import runtime, task
from prefect.artifacts import create_markdown_artifact

from simgan_core.data.preprocess import Preprocess
from storage.appending import open_to_append
from storage.errors import SourceError
from storage.reader import open_dataset
from storage.samples import Rejection, SampleBlock, concatenated
from storage.schema import LANDMARKS_PX, DatasetInfo, DatasetSpec
from storage.sources.source import Source
from storage.writer import DatasetWriter
from tasks.ingestion.reading import Reader
from tasks.ingestion.session import IngestionSession
from tasks.runtime.code_version import code_version
from tasks.runtime.content_ids import content_id
from tasks.runtime.policies import (
    CACHE,
    IO_RETRIES,
    IO_RETRY_DELAYS_S,
    groups_of_shards,
    retry_on_io,
)
from tasks.runtime.recipes import recipe_version
from tasks.runtime.stages import position

logger = logging.getLogger(__name__)

MAX_SHARD_BYTES = 1 << 27
"""Largest shard: two are in memory at a time, one of them twice for a moment."""


class IngestionPlan(NamedTuple):
    """Plan of an ingestion: the listing's digest and the groups of pending shards."""

    listing_digest: str
    num_kept: int
    """Rows that the dataset had before."""
    groups: list[list[int]]


@task(
    name="plan-ingestion",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def plan_ingestion(
    session: IngestionSession,
    preprocess: Preprocess = "none",
    rows_per_shard: int = 16384,
    overwrite: bool = False,
    append: bool = False,
) -> IngestionPlan:
    """List the source and open the dataset for it, new, to append, or where a run left it."""
    if overwrite and append:
        raise SourceError("--overwrite replaces a dataset, --append adds to it: give one of them")
    opened = session.list_source()
    spec = _spec(opened, preprocess, rows_per_shard)
    if append:
        writer, num_kept = open_to_append(session.to, spec, opened)
    else:
        writer, num_kept = DatasetWriter.open(session.to, spec, overwrite=overwrite), 0
    pending = [] if writer.complete else writer.pending_shards()
    at = position("ingesting", writer.num_shards - len(pending), writer.num_shards)
    logger.info("%s: %d samples, %d shards to do", opened.name, len(opened), len(pending), extra=at)
    return IngestionPlan(opened.content_digest(), num_kept, groups_of_shards(pending))


@task(
    name="ingest-shards",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def ingest_shards(
    shards: list[int],
    session: IngestionSession,
    listing_digest: str,
    preprocess: Preprocess = "none",
    num_kept: int = 0,
) -> int:
    """Read, preprocess and write these shards; returns how many rows they hold.

    Their rows before `num_kept` are in the dataset that is being extended, and come from there.
    """
    reader, writer = session.open(listing_digest, preprocess, num_kept)
    num_rows = 0
    for shard in shards:
        rows = writer.shard_rows(shard)
        started = time.perf_counter()
        writer.write_shard(shard, _read_shard(reader, session.to, rows, num_kept))
        num_rows += len(rows)
        rate = len(rows) / (time.perf_counter() - started)
        at = position("ingesting", shard + 1, writer.num_shards)
        words = "shard %d of %d: %d rows, %.0f a second"
        logger.info(words, shard + 1, writer.num_shards, len(rows), rate, extra=at)
    return num_rows


@task(
    name="finish-ingestion",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def finish_ingestion(session: IngestionSession, max_bad: float, num_kept: int = 0) -> DatasetInfo:
    """Close the dataset, unless more than the share `max_bad` of its new samples were bad."""
    writer, to = session.writer(), session.to
    rejections = [
        rejection
        for record in writer.records()
        for rejection in record.rejections
        if rejection.row >= num_kept
    ]
    num_new = writer.spec.num_rows - num_kept
    if runtime.task_run.id is not None:
        create_markdown_artifact(
            _rejections_table(rejections, num_new, to),
            key=content_id("rejections", {"to": to}),
            description=f"Samples of {to} that were left out, by reason.",
        )
    _refuse_too_many_bad(writer, [r for r in rejections if not r.by_choice], num_new, max_bad)
    info = writer.finish(code_version()._asdict())
    new = f", {num_new:,} of them new" if num_kept else ""
    logger.info(
        "%s: %s images ingested%s, %s rejected",
        Path(to).name,
        f"{info.spec.num_rows:,}",
        new,
        f"{info.num_rejected:,}",
    )
    _say_how_many_are_cut_in_their_middle(info)
    return info


def _say_how_many_are_cut_in_their_middle(info: DatasetInfo) -> None:
    """Log in how many images no corners were found to cut them by; their landmarks are NaN."""
    if LANDMARKS_PX.name not in [label.name for label in info.spec.labels]:
        return
    dataset = open_dataset(info.url)
    landmarks = dataset.read_labels()[LANDMARKS_PX.name][dataset.read_valid()]
    num_missed = int(np.isnan(landmarks).any(axis=(1, 2)).sum())
    logger.info(
        "%s of %s images are cropped at their middle: no eye corners were found in them",
        f"{num_missed:,}",
        f"{len(landmarks):,}",
    )


def _spec(source: Source, preprocess: Preprocess, rows_per_shard: int) -> DatasetSpec:
    """Return the spec of a source's dataset."""
    height, width, channels = source.image_shape
    image_bytes = math.prod(source.image_shape) * np.dtype(source.dtype).itemsize
    rows_per_chunk = min(1024, rows_per_shard, max(1, MAX_SHARD_BYTES // image_bytes))
    chunks_per_shard = max(1, MAX_SHARD_BYTES // (rows_per_chunk * image_bytes))
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
        provenance={"recipe": recipe_version("ingest")},
        rows_per_chunk=rows_per_chunk,
        rows_per_shard=min(rows_per_shard, rows_per_chunk * chunks_per_shard),
    )


def _read_shard(reader: Reader, to: str, rows: range, num_kept: int) -> SampleBlock:
    first_new = max(rows.start, num_kept)
    new = reader.read(first_new, rows.stop)
    if first_new == rows.start:
        return new
    return concatenated([open_dataset(to).read(rows.start, first_new), new], len(rows))


def _rejections_table(rejections: list[Rejection], num_samples: int, to: str) -> str:
    """Return a Markdown table of rejections by reason."""
    counts = Counter((r.reason, r.by_choice) for r in rejections)
    first = {r.reason: r.id for r in reversed(rejections)}
    rows = [
        f"| {count} | {count / num_samples:.2%} | {reason}{' (by choice)' if chosen else ''} "
        f"| `{first[reason]}` |"
        for (reason, chosen), count in counts.most_common()
    ]
    head = ["| samples | share | reason | first |", "|---:|---:|---|---|"] if rows else []
    return "\n".join([f"{len(rejections)} of {num_samples} samples of {to} are left out.", "",
                      *head, *rows])  # fmt: skip


def _refuse_too_many_bad(
    writer: DatasetWriter, bad: list[Rejection], num_samples: int, max_bad: float
) -> None:
    if len(bad) <= max_bad * num_samples:
        return
    reasons = Counter(rejection.reason for rejection in bad)
    listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
    first = ", ".join(rejection.id for rejection in bad[:3])
    kept = "the dataset stays as it was made, with another --max-bad"
    if not writer.complete:
        writer.discard()
        kept = "nothing was kept"
    raise SourceError(
        f"{len(bad)} of {num_samples} samples are bad ({len(bad) / num_samples:.1%}), more than "
        f"--max-bad {max_bad:.1%}: {listed} (first: {first}). Repair or remove them, or "
        f"raise --max-bad; {kept}"
    )
