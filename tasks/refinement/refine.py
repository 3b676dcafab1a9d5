"""Bulk refinement: every valid row of a dataset through a refiner, shard by shard.

While a shard is computed, the next one is read, and those before it are inspected and written. A
constant number of shards is in memory.
"""

import logging
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from prefect import task
from pydantic import JsonValue

from simgan_core.compute.malloc import return_freed_blocks
from simgan_core.compute.settings import choose_inference_settings
from simgan_core.errors import InputError
from simgan_core.inference import RefinedImages
from simgan_core.quality.gate import Inspection, inspect
from storage.appending import num_rows_when
from storage.errors import DatasetIncompleteError, DatasetNotFoundError
from storage.manifest import ShardRecord
from storage.reader import Dataset, open_dataset
from storage.samples import Rejection, SampleBlock
from storage.schema import PUPIL_PX, DatasetInfo, DatasetSpec
from storage.writer import DatasetWriter
from tasks.refinement.backends import (
    Backend,
    Precision,
    RowRefiner,
    RowSettings,
    open_backend,
)
from tasks.runtime.code_version import code_version
from tasks.runtime.compatibility import require_domain
from tasks.runtime.devices import default_device, take_device_of_worker
from tasks.runtime.policies import (
    CACHE,
    IO_RETRIES,
    IO_RETRY_DELAYS_S,
    Runner,
    groups_of_shards,
    require_runner,
    retry_on_io,
    stop_if_told,
)
from tasks.runtime.recipes import recipe_version
from tasks.runtime.refiners import fixed_refiner
from tasks.runtime.stages import position
from tasks.runtime.styles import read_styled, styles_of
from tasks.runtime.tracking.runs import warnings_of_refiner

logger = logging.getLogger(__name__)

Dtype = Literal["auto", "fp32", "bf16"]

SHARDS_FINISHING = 2
"""Shards inspected and written while another is computed."""


class RefinementPlan(NamedTuple):
    """Shards left to refine, in groups, and the start time."""

    groups: list[list[int]]
    num_rows: int
    began: float
    """Seconds since the epoch."""
    refiner: str
    """Name of the refiner for all shards: the version that an alias named when it was planned."""


@task(
    name="plan-refinement",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def plan_refinement(
    dataset: str,
    refiner: str,
    to: str,
    overwrite: bool = False,
    dtype: Dtype = "auto",
    gate_shift_px: float | None = None,
    runner: Runner = Runner(),
    append: bool = False,
    styles: int = 1,
    style_seed: int = 0,
) -> RefinementPlan:
    """Create or resume the refined dataset; returns the groups of shards left to refine."""
    began = time.time()
    require_runner(runner)
    synthetic = open_dataset(dataset)
    parent = synthetic.info
    require_domain(parent, "to be refined, the", "synthetic", "refined")
    refiner = fixed_refiner(refiner)
    backend = open_backend(refiner, synthetic)
    _require_pupils(parent, gate_shift_px)
    _require_styles(backend, refiner, styles, style_seed)
    backend.require_usable(synthetic)
    for warning in warnings_of_refiner(backend.refiner):
        logger.warning("this refiner's images did worse than synthetic ones: %s", warning)
    made = _Made(backend.digest, "fp32", gate_shift_px, styles, style_seed)
    made = made._replace(dtype=_resolve_precision(dtype, parent, backend, to, made, append))
    spec = _refined_spec(parent, backend, made)
    if append and _holds_refined_beginning(to, spec, synthetic):
        writer = DatasetWriter.extend(to, spec)
    else:
        writer = DatasetWriter.open(to, spec, overwrite=overwrite)
    pending = [] if writer.complete else writer.pending_shards()
    num_rows = sum(len(writer.shard_rows(shard)) for shard in pending)
    done, total = parent.spec.num_rows - num_rows, parent.spec.num_rows
    at = position("refining", done, total)
    logger.info("%s: %d of %d rows to refine", dataset, num_rows, total, extra=at)
    # One group in one process, so that reading and writing overlap from end to end.
    groups = groups_of_shards(pending) if runner.kind == "dask" else [pending] if pending else []
    return RefinementPlan(groups, num_rows, began, refiner)


@task(
    name="refine-shards",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def refine_shards(shards: list[int], dataset: str, refiner: str, to: str) -> int:
    """Refine, inspect and write the pending ones of these shards; returns their number of rows."""
    return_freed_blocks()
    parent, writer = open_dataset(dataset), DatasetWriter.attach(to)
    _require_parent(dataset, parent, writer.spec)
    made = _Made.by(writer.spec)
    rows = _refiner_once_a_process(refiner, made, dataset, parent.info.digest)
    pending = sorted(set(shards) & set(writer.pending_shards()))
    with ThreadPoolExecutor(SHARDS_FINISHING) as pool:
        finishing = deque[Future[ShardRecord]]()
        # Closed even while a traceback refers to it, since it holds the GPU.
        with closing(_refined(parent, writer, rows, made, pending)) as computed:
            for shard, block, refined in computed:
                while len(finishing) >= SHARDS_FINISHING:
                    _say_done(finishing.popleft().result())
                finishing.append(
                    pool.submit(_finish_shard, writer, shard, block, refined, made.gate_shift_px)
                )
        while finishing:
            _say_done(finishing.popleft().result())
    if pending:
        # The dataset may have been replaced while it was read.
        _require_parent(dataset, open_dataset(dataset), writer.spec)
    return sum(len(writer.shard_rows(shard)) for shard in pending)


@task(
    name="finish-refinement",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def finish_refinement(to: str) -> DatasetInfo:
    """Mark the refined dataset complete, so that readers accept it."""
    writer = DatasetWriter.attach(to)
    info = writer.finish(code_version()._asdict())
    logger.info(
        "%s: %s images refined%s, %s rejected",
        Path(to).name,
        f"{info.spec.num_rows:,}",
        _pupils_moved(writer.records()),
        f"{info.num_rejected:,}",
    )
    return info


def _pupils_moved(records: Iterable[ShardRecord]) -> str:
    """Return mean and standard deviation of the pupils' shifts in words, empty where unmeasured."""
    measured = [
        (max(record.num_valid, 1), record.figures["pupil_shift_px.mean"], sd)
        for record in records
        if (sd := record.figures.get("pupil_shift_px.sd")) is not None
    ]
    if not measured:
        return ""
    num_rows, means, sds = np.array(measured).T
    mean = np.average(means, weights=num_rows)
    sd = np.sqrt(np.average(sds**2 + (means - mean) ** 2, weights=num_rows))
    return f", pupils moved {mean:.2f} ± {sd:.2f} px"


def _holds_refined_beginning(to: str, spec: DatasetSpec, synthetic: Dataset) -> bool:
    """Return true where `to` is the dataset as it was before rows were added, refined alike."""
    try:
        found = open_dataset(to).info.spec
    except (DatasetNotFoundError, DatasetIncompleteError):
        return False
    if not _made_alike(found, spec):
        return False
    num_rows = num_rows_when(synthetic, str(found.provenance["parent_digest"]))
    return num_rows is not None and num_rows * _Made.by(found).styles == found.num_rows


def _made_alike(found: DatasetSpec, spec: DatasetSpec) -> bool:
    """Return true where two refined datasets differ in the state of their parent alone."""
    parent_digest = spec.provenance["parent_digest"]
    grown = found.model_copy(
        update={
            "num_rows": spec.num_rows,
            "source": spec.source,
            "provenance": {**found.provenance, "parent_digest": parent_digest},
        }
    )
    return grown.canonical() == spec.canonical()


def _require_parent(url: str, found: Dataset, spec: DatasetSpec) -> None:
    """Raise InputError where the dataset is not the parent of `spec`.

    Rows appended since then are no difference: those before them stay as they are.
    """
    digest = str(spec.provenance["parent_digest"])
    num_rows = spec.num_rows // _Made.by(spec).styles
    if found.info.digest != digest and num_rows_when(found, digest) != num_rows:
        raise InputError(
            f"{url} was replaced by another dataset since its refinement began (digest "
            f"{digest[:12]}, found {found.info.digest[:12]}): run the same command again with "
            "--overwrite"
        )


class _Made(NamedTuple):
    """Refinement settings in a refined dataset's provenance."""

    weights_digest: str
    dtype: Precision
    gate_shift_px: float | None
    styles: int = 1
    style_seed: int = 0

    @classmethod
    def by(cls, spec: DatasetSpec) -> "_Made":
        made = {name: spec.provenance[name] for name in cls._fields if name in spec.provenance}
        return cls(**made)  # type: ignore[arg-type]


def _resolve_precision(
    dtype: Dtype, parent: DatasetInfo, backend: Backend, to: str, made: _Made, append: bool
) -> Precision:
    """Return the number format to compute in; "auto" becomes the fastest on this machine.

    A refinement that an earlier run began at `to` goes on in the format that it began with, and so
    does one that is appended to, whichever machine made its rows.
    """
    if dtype != "auto" and dtype not in backend.precisions:
        raise InputError(
            f"--dtype {dtype}: expected {' or '.join(backend.precisions)} for {backend.family}; "
            "leave it out"
        )
    if dtype != "auto":
        return dtype
    if len(backend.precisions) == 1:
        return backend.precisions[0]
    with suppress(DatasetNotFoundError):
        begun = DatasetWriter.attach(to).spec
        for precision in backend.precisions:
            ours = _refined_spec(parent, backend, made._replace(dtype=precision))
            if ours.canonical() == begun.canonical() or (append and _made_alike(begun, ours)):
                return precision
    return choose_inference_settings(default_device()).precision


def _refined_spec(parent: DatasetInfo, backend: Backend, made: _Made) -> DatasetSpec:
    """Return the refined dataset's spec: its parent's, with provenance.

    Provenance holds digests and no paths: the same work elsewhere gives the same dataset.
    """
    provenance: dict[str, JsonValue] = {
        "parent_digest": parent.digest,
        "refiner": backend.refiner,
        "weights_digest": backend.digest,
        "real_digest": backend.real_digest,
        "recipe": recipe_version("refine"),
        "dtype": made.dtype,
        "gate_shift_px": made.gate_shift_px,
    }
    if backend.style_size:
        provenance |= {"styles": made.styles, "style_seed": made.style_seed}
    if earlier := styles_of(parent):
        provenance["styles_before"] = [*earlier]
    num_rows = parent.spec.num_rows * made.styles
    return parent.spec.model_copy(
        update={"domain": "refined", "provenance": provenance, "num_rows": num_rows}
    )


@lru_cache(maxsize=2)
def _refiner_once_a_process(
    refiner: str, made: _Made, dataset: str, parent_digest: str
) -> RowRefiner:
    """Load a backend; by the dataset's digest, since images are matched with its rows."""
    del parent_digest
    take_device_of_worker()
    parent = open_dataset(dataset)
    backend = open_backend(refiner, parent)
    if backend.digest != made.weights_digest:
        raise InputError(
            f"{refiner} now names other weights than when this refinement began (digest "
            f"{backend.digest[:12]}, not {made.weights_digest[:12]}); run refine again with "
            "the first refiner's id, or with --overwrite"
        )
    settings = RowSettings(made.dtype, made.styles, made.style_seed)
    return backend.load(parent.info, settings)


def _read_ahead(
    parent: Dataset, writer: DatasetWriter, styles: int, shards: list[int]
) -> Iterator[tuple[int, SampleBlock]]:
    """Yield the parent's rows of each shard; a thread reads the next shard meanwhile."""

    def read(shard: int) -> SampleBlock:
        return read_styled(parent, writer.shard_rows(shard), styles)

    with ThreadPoolExecutor(1) as pool:
        coming = deque([pool.submit(read, shard) for shard in shards[:1]])
        for shard, after in zip(shards, [*shards, None][1:], strict=True):
            block = coming.popleft().result()
            if after is not None:
                coming.append(pool.submit(read, after))
            yield shard, block


def _refined(
    parent: Dataset, writer: DatasetWriter, rows: RowRefiner, made: _Made, shards: list[int]
) -> Generator[tuple[int, SampleBlock, RefinedImages], None, None]:
    """Yield each shard with its rows and its refined valid rows; a GPU has begun the next."""
    under_way = deque[tuple[int, SampleBlock]]()

    def blocks() -> Iterator[SampleBlock]:
        for shard, block in _read_ahead(parent, writer, made.styles, shards):
            stop_if_told()
            under_way.append((shard, block))
            yield block

    with closing(rows.refine_each(blocks())) as computed:
        for refined in computed:
            yield *under_way.popleft(), refined


def _finish_shard(
    writer: DatasetWriter,
    shard: int,
    block: SampleBlock,
    refined: RefinedImages,
    gate_shift_px: float | None,
) -> ShardRecord:
    """Inspect a shard's refined rows, apply the label gate and write the shard.

    Invalid rows, labels and ids stay as they are.
    """
    all_valid = bool(block.valid.all())
    pupil_px = block.labels.get(PUPIL_PX.name)
    if pupil_px is not None and not all_valid:
        pupil_px = pupil_px[block.valid]
    inspection = inspect(refined.synthetic, refined.refined, pupil_px)
    images = refined.images
    if not all_valid:
        images = np.zeros_like(block.images)
        images[block.valid] = refined.images
    finished = replace(block, images=images)
    if gate_shift_px is not None:
        finished = _gated(finished, inspection, gate_shift_px, writer.shard_rows(shard).start)
    return writer.write_shard(shard, finished, figures=inspection.figures())


def _say_done(record: ShardRecord) -> None:
    num_rows = record.stop - record.start
    logger.debug("shard %d: %d of %d rows valid", record.shard, record.num_valid, num_rows)


def _gated(
    refined: SampleBlock, inspection: Inspection, gate_shift_px: float, first_row: int
) -> SampleBlock:
    """Mark the rows that the label gate rejects as invalid, with the reason; pixels stay."""
    valid = refined.valid.copy()
    rejections = list(refined.rejections)
    reasons = inspection.reasons(gate_shift_px)
    for row, reason in zip(np.flatnonzero(refined.valid).tolist(), reasons, strict=True):
        if reason is not None:
            valid[row] = False
            rejections.append(Rejection(first_row + row, refined.ids[row], reason))
    rejections.sort(key=lambda rejection: rejection.row)
    return replace(refined, valid=valid, rejections=tuple(rejections))


def _require_styles(backend: Backend, refiner: str, styles: int, style_seed: int) -> None:
    if backend.style_size == 0 and (styles, style_seed) != (1, 0):
        raise InputError(
            f"--styles {styles} --style-seed {style_seed}: refiner {refiner} is of the family "
            f"{backend.family!r}, which takes no style; leave both out, or train with "
            "--family bilateral"
        )


def _require_pupils(parent: DatasetInfo, gate_shift_px: float | None) -> None:
    names = [label.name for label in parent.spec.labels]
    if gate_shift_px is not None and PUPIL_PX.name not in names:
        raise InputError(
            f"--gate-shift needs the label {PUPIL_PX.name!r}, dataset {parent.url} has: "
            f"{', '.join(names) or 'none'}; refine without the gate, or ingest with pupil centres"
        )
