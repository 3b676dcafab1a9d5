"""Ingest a source into one zarr dataset, or append its new samples."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.run_names import named
from storage.schema import DatasetInfo, Preprocess
from tasks.ingestion.ingest import finish_ingestion, ingest_shards, plan_ingestion
from tasks.ingestion.inputs import SourceInput
from tasks.ingestion.session import sole_ingestion
from tasks.runtime.policies import (
    Runner,
    placed,
    require_runner,
    task_runner,
    tasks_stop_too,
)


@flow(name="ingest", flow_run_name=named("ingest {source.format} into {to}"))
def ingest(
    source: SourceInput,
    to: str,
    preprocess: Preprocess = "none",
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.01,
    rows_per_shard: Annotated[int, Field(ge=1, le=1 << 24)] = 16384,
    overwrite: bool = False,
    append: bool = False,
    runner: Runner = Runner(),
) -> DatasetInfo:
    """Read every sample of a source into a dataset; after a stop the same run resumes.

    Args:
        source: What to read.
        to: Path or URL of the dataset.
        preprocess: Applied to every image and recorded; both domains of a training want the same.
        max_bad: Share of bad samples above which the run fails.
        rows_per_shard: Images in one shard, the unit of resuming; fewer where they are large.
        overwrite: Replace another dataset that is at `to`.
        append: Add the samples that the dataset at `to` does not have, by id, reading only these;
            begin it where there is none.
        runner: Where shards are decoded and written: in this process, or by Dask's workers, which
            find the files under the same path.
    """
    require_runner(runner)
    with sole_ingestion(source, to) as session:
        plan = plan_ingestion(session, preprocess, rows_per_shard, overwrite, append)
        whole = {
            "session": session,
            "listing_digest": plan.listing_digest,
            "preprocess": preprocess,
            "num_kept": plan.num_kept,
        }
        # Two shards under way in this process: while one is written, the cores decode the other.
        # Tasks are told to stop before their runner waits for them.
        with (
            task_runner(runner, num_threads=2) as tasks,
            tasks_stop_too(),
            placed(tasks, "cpu"),
        ):
            pieces = [
                tasks.submit(ingest_shards, {"shards": each, **whole}) for each in plan.groups
            ]
            for piece in pieces:
                piece.result()
        return finish_ingestion(session, max_bad, plan.num_kept)
