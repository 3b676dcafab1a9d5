"""Render the built-in simulators in the layouts of UnityEyes, MPIIGaze and NYU hands."""

from typing import Annotated, Literal

from prefect import flow, unmapped
from pydantic import Field

from flows.run_names import named
from simgan_core.errors import InputError
from simgan_core.simulator.eyes import NUM_REAL_PEOPLE
from storage.exclusive_lock import exclusive_lock
from storage.schema import DatasetInfo
from tasks.runtime.policies import (
    Runner,
    placed,
    require_runner,
    runner_of_flow,
    task_runner,
    tasks_stop_too,
)
from tasks.simulate import simulate_hand, simulate_real, simulate_synthetic
from tasks.simulation.unityeyes import (
    CropConfig,
    FrameConfig,
    Simulation,
    finish_simulation,
    plan_simulation,
    simulate_shards,
    write_pairs,
)


@flow(name="simulate", flow_run_name="simulate-{domain}-{count}")
def simulate(
    domain: Literal["synthetic", "real"],
    out: str,
    count: int,
    seed: int,
    people: int = NUM_REAL_PEOPLE,
) -> str:
    """Render `count` images of one domain into the folder `out`; the same seed, the same files.

    The real domain is of so many people, p00, p01, …; in the synthetic one everyone is another.
    """
    if domain == "synthetic":
        return simulate_synthetic(out, count, seed)
    return simulate_real(out, count, seed, people)


@flow(name="simulate-hands", flow_run_name="simulate-{domain}-hands-{count}")
def simulate_hands(domain: Literal["synthetic", "real"], out: str, count: int, seed: int) -> str:
    """Render `count` depth frames of hands into the folder `out`; the same seed, the same files."""
    return simulate_hand(out, domain, count, seed)


@flow(name="simulate-unityeyes", flow_run_name="simulate-unityeyes-{count}")
def simulate_unityeyes(
    simulation: Simulation,
    count: Annotated[int, Field(ge=1)],
    out: str | None = None,
    to: str | None = None,
    frame: FrameConfig = FrameConfig(),
    crop: CropConfig = CropConfig(),
    overwrite: bool = False,
    runner: Runner = Runner(),
) -> DatasetInfo | None:
    """Render UnityEyes' eyes as files or as a dataset; after a stop the same run resumes.

    Args:
        simulation: What decides every image.
        count: Images.
        out: Folder for N.jpg + N.json in UnityEyes' layout.
        to: Path or URL of a dataset to render into, instead.
        frame: Frames of the files.
        crop: Images of the dataset.
        overwrite: Replace another dataset that is at `to`.
        runner: Where the dataset's shards are rendered: in this process, or by Dask's workers.
    """
    require_runner(runner)
    if (out is None) == (to is None):
        raise InputError("simulate unityeyes needs either --out FOLDER or --to DATASET")
    if out is not None:
        write_pairs(out, count, simulation, frame)
        return None
    assert to is not None
    with exclusive_lock(to, "simulating"):
        plan = plan_simulation(to, count, simulation, crop, overwrite)
        if plan.groups:
            simulate_groups.with_options(task_runner=task_runner(runner))(
                plan.groups, to, simulation, crop
            )
        return finish_simulation(to)


@flow(name="simulate-groups", flow_run_name=named("shards of {to}"))
def simulate_groups(
    groups: list[list[int]], to: str, simulation: Simulation, crop: CropConfig
) -> None:
    """Render groups of shards, wherever the task runner puts them.

    Args:
        groups: Numbers of the shards, a list a task.
        to: Path or URL of the dataset.
        simulation: What decides every image.
        crop: Images of the dataset.
    """
    on: Literal["gpu", "cpu"] = "gpu" if simulation.device == "cuda" else "cpu"
    with tasks_stop_too(), placed(runner_of_flow(), on):
        simulate_shards.map(
            groups, to=to, simulation=unmapped(simulation), crop=unmapped(crop)
        ).result()
