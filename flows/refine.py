"""Refine a whole dataset: the same rows, ids and labels, images that look real."""

from prefect import flow

from storage.schema import DatasetInfo
from tasks.policies import threads
from tasks.refine import finish_refinement, plan_refinement, refine_shards


# One group at a time: PyTorch already uses every core within one.
@flow(name="refine", task_runner=threads(1))
def refine(dataset: str, refiner: str, to: str, overwrite: bool = False) -> DatasetInfo:
    """Refine every valid row of a dataset; run again, it goes on where it was.

    Args:
        dataset: The dataset to refine, path or URL.
        refiner: What `train` printed, an MLflow model URI, or the path of a refiner.pt.
        to: Path or URL of the refined dataset.
        overwrite: Replace another dataset that is at `to`.
    """
    groups = plan_refinement(dataset, refiner, to, overwrite)
    refine_shards.map(groups, dataset=dataset, refiner=refiner, to=to).result()
    return finish_refinement(to)
