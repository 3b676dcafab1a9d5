"""Ingest a source into one zarr dataset, or append its new samples."""

from typing import Annotated

from prefect import flow, unmapped
from pydantic import Field

from flows.run_names import named
from storage.schema import DatasetInfo, Preprocess
from tasks.ingestion.ingest import finish_ingestion, ingest_shards, plan_ingestion, sole_ingestion
from tasks.ingestion.inputs import SourceInput
from tasks.runtime.policies import threads


# Two shards under way: while one is written, the cores decode the other.
@flow(
    name="ingest",
    task_runner=threads(2),
    flow_run_name=named("ingest {source.format} into {to}"),
)
def ingest(
    source: SourceInput,
    to: str,
    preprocess: Preprocess = "none",
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.01,
    rows_per_shard: Annotated[int, Field(ge=1, le=1 << 24)] = 16384,
    overwrite: bool = False,
    append: bool = False,
) -> DatasetInfo:
    """Read every sample of a source into a dataset; run again, it goes on where it was.

    Args:
        source: What to read.
        to: Path or URL of the dataset.
        preprocess: Applied to every image and recorded; both domains of a training want the same.
        max_bad: Share of bad samples above which the run fails.
        rows_per_shard: Images in one shard, the unit of resuming; fewer where they are large.
        overwrite: Replace another dataset that is at `to`.
        append: Add the samples that the dataset at `to` does not have, by id, reading only these;
            begin it where there is none.
    """
    with sole_ingestion(to):
        plan = plan_ingestion(source, to, preprocess, rows_per_shard, overwrite, append)
        done = ingest_shards.map(
            plan.groups,
            source=unmapped(source),
            listing_digest=plan.listing_digest,
            to=to,
            preprocess=preprocess,
            num_kept=plan.num_kept,
        )
        done.result()
        return finish_ingestion(to, max_bad, plan.num_kept)
