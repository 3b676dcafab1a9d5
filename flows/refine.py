"""Bulk refinement of a dataset: same rows, ids and labels, refined images."""

from typing import Annotated

from prefect import flow, unmapped
from pydantic import Field

from flows.run_names import named
from simgan_core.config import MAX_SEED
from storage.exclusive_lock import exclusive_lock
from storage.schema import DatasetInfo
from tasks.refinement.refine import Dtype, finish_refinement, plan_refinement, refine_shards
from tasks.refinement.report import show_refinement
from tasks.runtime.policies import (
    Runner,
    gpu_slot,
    placed,
    runner_of_flow,
    task_runner,
    tasks_stop_too,
)
from tasks.runtime.progress import reported_progress

GateShift = Annotated[float, Field(gt=0, le=20)]
Styles = Annotated[int, Field(ge=1, le=100)]
StyleSeed = Annotated[int, Field(ge=0, le=MAX_SEED)]


@flow(name="refine", flow_run_name=named("refine {dataset} into {to}"))
def refine(
    dataset: str,
    refiner: str,
    to: str,
    overwrite: bool = False,
    dtype: Dtype = "auto",
    gate_shift: GateShift | None = None,
    runner: Runner = Runner(),
    append: bool = False,
    styles: Styles = 1,
    style_seed: StyleSeed = 0,
) -> DatasetInfo:
    """Refine every valid row of a dataset; after a stop the same run resumes.

    Args:
        dataset: The dataset to refine, path or URL.
        refiner: Id printed by `train` (refiner-…), MLflow model URI, or path of a refiner.pt. Of
            another program: a model (.onnx, or .pt2 of torch.export), or a folder with an image for
            each row, named by its id.
        to: Path or URL of the refined dataset.
        overwrite: Replace an existing dataset at `to`.
        dtype: Number format of the network; auto is the fastest on this machine.
        gate_shift: Label gate: mark rows as not valid whose pupil moved by more than this, in
            pixels.
        runner: Where shards are refined: in this process, or by Dask's workers.
        append: Refine only what was added to the dataset since the same refiner made `to`; full
            shards are kept.
        styles: Number of rows for each image, each in another random style (bilateral family);
            with more than one, ids end in #1, #2, …
        style_seed: The same seed gives the same styles.
    """
    with exclusive_lock(to, "refining"):
        plan = plan_refinement(
            dataset, refiner, to, overwrite, dtype, gate_shift, runner, append, styles, style_seed
        )
        if plan.groups:
            with gpu_slot():
                refine_groups.with_options(task_runner=task_runner(runner))(
                    plan.groups, dataset, plan.refiner, to
                )
        info = finish_refinement(to)
    show_refinement(dataset, to, plan)
    return info


@flow(name="refine-groups", flow_run_name=named("shards of {to}"))
def refine_groups(groups: list[list[int]], dataset: str, refiner: str, to: str) -> None:
    """Refine groups of shards, wherever the task runner puts them.

    Args:
        groups: Numbers of the shards, a list a task.
        dataset: The dataset to refine, path or URL.
        refiner: The refiner.
        to: Path or URL of the refined dataset.
    """
    with reported_progress(to), tasks_stop_too(), placed(runner_of_flow(), "gpu"):
        refine_shards.map(groups, dataset=dataset, refiner=unmapped(refiner), to=to).result()
