"""Bulk refinement: every valid row of a dataset through a refiner, shard by shard."""

import logging
import time
from dataclasses import replace
from functools import lru_cache

import numpy as np
from prefect import task

from simgan_core.checkpoint import LoadedRefiner
from simgan_core.errors import InputError
from simgan_core.quality import pupil_shift_px
from simgan_core.refinement import refine_images
from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import DatasetInfo, DatasetSpec
from storage.writer import DatasetWriter
from tasks.compatibility import as_uint8, require_refiner_fits
from tasks.devices import default_device
from tasks.identity import code_version
from tasks.policies import CACHE, IO_RETRIES, IO_RETRY_DELAYS_S, groups_of_shards, retry_on_io
from tasks.refiners import open_refiner

logger = logging.getLogger(__name__)


@task(name="plan-refinement", cache_policy=CACHE)
def plan_refinement(dataset: str, refiner: str, to: str, overwrite: bool) -> list[list[int]]:
    """Open the refined dataset, new or where an earlier run left it: groups of shards to do."""
    parent = open_dataset(dataset).info
    loaded = open_refiner(refiner)
    require_refiner_fits(loaded, refiner, parent)
    writer = DatasetWriter.open(to, _spec(parent, loaded), overwrite=overwrite)
    pending = [] if writer.complete else writer.pending_shards()
    logger.info("%s: %d rows, %d shards to do", dataset, parent.spec.num_rows, len(pending))
    return groups_of_shards(pending)


@task(
    name="refine-shards",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def refine_shards(shards: list[int], dataset: str, refiner: str, to: str) -> int:
    """Refine and write these shards; returns how many rows they hold."""
    parent, writer = open_dataset(dataset), DatasetWriter.attach(to)
    loaded = _refiner_once_a_process(refiner, str(writer.spec.provenance["weights_digest"]))
    num_rows = 0
    for shard in shards:
        rows = writer.shard_rows(shard)
        started = time.perf_counter()
        block = parent.read(rows.start, rows.stop)
        refined = _refined(block, parent.info, loaded)
        writer.write_shard(shard, refined, figures=_shift_figures(block, refined))
        num_rows += len(rows)
        rate = len(rows) / (time.perf_counter() - started)
        logger.info("shard %d of %d: %d rows, %.0f a second", shard + 1, writer.num_shards,
                    len(rows), rate)  # fmt: skip
    return num_rows


@task(name="finish-refinement", cache_policy=CACHE)
def finish_refinement(to: str) -> DatasetInfo:
    """Close the refined dataset, which every reader then accepts."""
    info = DatasetWriter.attach(to).finish()
    logger.info("%s is complete: %d rows, %d of them valid", to, info.spec.num_rows, info.num_valid)
    return info


def _spec(parent: DatasetInfo, loaded: LoadedRefiner) -> DatasetSpec:
    """Describe the refined dataset: its parent's, with where it comes from.

    Digests, no places: the same work elsewhere gives the same dataset.
    """
    provenance = {
        "parent_digest": parent.digest,
        "refiner": loaded.metadata["refiner"],
        "weights_digest": loaded.weights_digest,
        "real_digest": loaded.metadata["real_digest"],
        "code_version": code_version(),
    }
    return parent.spec.model_copy(update={"domain": "refined", "provenance": provenance})


@lru_cache(maxsize=2)
def _refiner_once_a_process(refiner: str, weights_digest: str) -> LoadedRefiner:
    loaded = open_refiner(refiner)
    if loaded.weights_digest != weights_digest:
        raise InputError(
            f"{refiner} now names other weights than when this refinement began (digest "
            f"{loaded.weights_digest[:12]}, not {weights_digest[:12]}); run refine again with the "
            "first refiner's id, or with --overwrite"
        )
    return loaded


def _refined(block: SampleBlock, info: DatasetInfo, loaded: LoadedRefiner) -> SampleBlock:
    """Refine the valid rows of a block; the others, the labels and the ids stay as they are."""
    synthetic = as_uint8(block.images, info)
    images = np.zeros_like(synthetic)
    images[block.valid] = refine_images(
        loaded.refiner, synthetic[block.valid], device=default_device()
    )
    return replace(block, images=images)


def _shift_figures(synthetic: SampleBlock, refined: SampleBlock) -> dict[str, float]:
    """How far refinement moved the pupils of this block, where the labels say where they are."""
    if "pupil_px" not in synthetic.labels:
        return {}
    valid = synthetic.valid
    shift = pupil_shift_px(
        synthetic.images[valid], refined.images[valid], synthetic.labels["pupil_px"][valid]
    )
    figures = shift.summary()
    if figures["share_found"] == 0:
        return {}
    return {f"pupil_shift_px.{name}": value for name, value in figures.items()}
