"""Shard records, and the digests derived from them.

A record is the truth that a resumed run reads: it is written after its shard and never changed.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping

import numpy as np
from blake3 import blake3
from pydantic import Field

from storage.samples import Rejection, SampleBlock
from storage.schema import DatasetSpec, Schema


class ShardRecord(Schema):
    """Record of a finished shard."""

    shard: int = Field(ge=0)
    """Number of the shard, counted from 0."""
    start: int = Field(ge=0)
    """First row."""
    stop: int = Field(ge=1)
    """Row after the last."""
    num_valid: int = Field(ge=0)
    """Valid rows."""
    digest: str
    """BLAKE3 of the samples (`block_digest`)."""
    rejections: tuple[Rejection, ...]
    """One for every row that is not valid."""
    figures: dict[str, float | None]
    """Metrics of the shard by the task that wrote it; None where one was not finite."""


def record_of(
    shard: int, rows: range, block: SampleBlock, digest: str, figures: Mapping[str, float]
) -> ShardRecord:
    """Return the record of a block written as a shard."""
    return ShardRecord(
        shard=shard,
        start=rows.start,
        stop=rows.stop,
        num_valid=int(block.valid.sum()),
        digest=digest,
        rejections=block.rejections,
        figures={name: x if math.isfinite(x) else None for name, x in figures.items()},
    )


def block_digest(block: SampleBlock) -> str:
    """Return the BLAKE3 of a block's names, flags, pixels, labels and rejections."""
    # As strong as SHA-256, and three times as fast: SHA takes longer than writing does.
    digest = blake3()
    rejections = [(r.row, r.id, r.reason) for r in block.rejections]
    digest.update(json.dumps([block.ids, rejections]).encode())
    arrays = {"images": block.images, "valid": block.valid, **block.labels}
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def dataset_digest(spec: DatasetSpec, shard_digests: Iterable[str]) -> str:
    """Return the SHA-256 of the spec and of all shards' digests in their order."""
    lines = [spec.canonical(), *shard_digests]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
