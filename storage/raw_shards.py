"""Raw shard I/O: a full shard of images as the bytes of its object, past zarr's codecs.

Images are not compressed and their chunks follow one another along the first axis. So the object of
a full shard is the images as they lie in memory and, after them, the index of the chunks: zarr v3's
codec `sharding_indexed`, its index at the end and checked by CRC-32C. Taken as such they are copied
once, where zarr's codecs copy them three times. What lies otherwise is left to zarr.
"""

import struct
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from storage.layout import chunk_key
from storage.location import Claim, Location
from storage.schema import DatasetSpec


def read_images(place: Location, spec: DatasetSpec, shard: int, images: NDArray[Any]) -> bool:
    """Read a shard's images into `images` [n, H, W, C]; false where it is not one raw block.

    They are then undefined, and zarr knows why: a shard that is not full, damaged or gone.
    """
    stored = place.open(_key(shard)) if _is_full(spec, images) else None
    if stored is None:
        return False
    with stored:
        return stored.readinto(_bytes_of(images)) == images.nbytes and stored.read() == _index(spec)


def write_images(claim: Claim, spec: DatasetSpec, shard: int, images: NDArray[Any]) -> bool:
    """Write a full shard's images [n, H, W, C] under a claim; false, nothing written, if not full.

    Raises ClaimLostError.
    """
    if not _is_full(spec, images):
        return False
    claim.write(_key(shard), _bytes_of(np.ascontiguousarray(images)), _index(spec))
    return True


def _is_full(spec: DatasetSpec, images: NDArray[Any]) -> bool:
    # Pixels of several bytes are stored with the lowest first, as they lie in memory nearly always.
    return len(images) == spec.rows_per_shard and images.dtype == np.dtype(spec.dtype).newbyteorder(
        "<"
    )


def _bytes_of(images: NDArray[Any]) -> memoryview:
    return images.data.cast("B")


def _key(shard: int) -> str:
    return chunk_key("images", shard, num_axes=4)


def _index(spec: DatasetSpec) -> bytes:
    """Return a full shard's index of chunks, with its checksum."""
    pixel_bytes = np.dtype(spec.dtype).itemsize
    chunk_bytes = spec.rows_per_chunk * spec.height * spec.width * spec.channels * pixel_bytes
    return _index_of(spec.rows_per_shard // spec.rows_per_chunk, chunk_bytes)


@lru_cache
def _index_of(num_chunks: int, chunk_bytes: int) -> bytes:
    entries = ((chunk * chunk_bytes, chunk_bytes) for chunk in range(num_chunks))
    index = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    return index + struct.pack("<I", google_crc32c.value(index))
