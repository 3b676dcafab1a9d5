"""Prefect set-up: work pools, concurrency limits, automations, deployments.

Every function can be called again: what exists stays, what people changed in the UI
stays changed, and deployments are made anew only when `prefect.yaml` or the code has changed.
"""

import hashlib
import logging
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    WorkPoolCreate,
)
from prefect.client.schemas.objects import StateType, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ChangeFlowRunState, PauseDeployment
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from tasks.ops.forms import datasets_below, with_what_exists
from tasks.runtime.policies import GPU_SLOT, HEARTBEAT_S, REFINED_GOT_WORSE
from tasks.runtime.processes.child_path import without_current_folder

logger = logging.getLogger(__name__)

CPU_POOL, GPU_POOL = "simgan-cpu", "simgan-gpu"
CODE = Path(__file__).resolve().parents[2]
"""Folder of the four packages: the checkout, or where a wheel was installed."""

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
NIGHTLY = "nightly-pipeline"
TAG = "simgan"  # of every deployment of ours


def connect(api: str) -> PrefectClient:
    """Return a client of the server at `api`, with the password of Prefect's own variable."""
    return PrefectClient(api, auth_string=os.environ.get("PREFECT_API_AUTH_STRING"))


async def prepare_server(api: str, num_gpus: int, folder: Path) -> None:
    """Make the work pools, the `gpu` slots and deployments, then the automations about them.

    Forms name the datasets that are in `folder`, from which relative paths in them start.
    """
    async with connect(api) as client:
        for pool in work_pools(num_gpus):
            await _make_pool(client, pool)
        # One slot a GPU; without one, a slot for the processor, which a computation fills, too.
        await client.upsert_global_concurrency_limit_by_name(GPU_SLOT, max(1, num_gpus))
        version = code_digest()
        known = await client.read_deployments()
        if _out_of_date(known, version):
            deploy(api, num_gpus, version)
            for deployment in known:
                if TAG in deployment.tags:
                    await _keep_what_people_set(client, deployment)
            known = await client.read_deployments()
        datasets = datasets_below(folder)
        for deployment in known:
            if TAG in deployment.tags:
                await _bring_form_up_to_date(client, deployment, datasets)
        await _make_automation(client, when_a_run_died(), known)
        for nightly in known:
            # Who deleted it in the UI does without.
            if nightly.name == NIGHTLY:
                await _make_automation(client, when_refined_got_worse(nightly), known)


def work_pools(num_gpus: int) -> list[str]:
    """Return the names of the work pools that this machine's workers serve."""
    return [CPU_POOL, GPU_POOL] if num_gpus else [CPU_POOL]


def deploy(api: str, num_gpus: int, version: str) -> None:
    """Create every deployment of `prefect.yaml` on the server by `prefect deploy --all`.

    Raises RuntimeError with what Prefect said when it refuses one.
    """
    environment = {
        **without_current_folder(),
        "PREFECT_API_URL": api,
        "SIMGAN_GPU_POOL": work_pools(num_gpus)[-1],
        "SIMGAN_VERSION": version,
    }
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "prefect",
            "--no-prompt",
            "deploy",
            "--all",
            "--prefect-file",
            str(DEPLOYMENTS),
        ],
        cwd=CODE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"prefect deploy --all: {done.stdout}{done.stderr}")


def code_digest() -> str:
    """Return 12 hexadecimal digits of all that forms depend on: `prefect.yaml` and the code."""
    files = [DEPLOYMENTS]
    for package in ("flows", "tasks", "simgan_core", "storage"):
        files += sorted((CODE / package).rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


async def workers_online(api: str, since: datetime, num_gpus: int) -> bool:
    """Return true where every pool has a worker with a heartbeat after `since`."""
    async with connect(api) as client:
        for pool in work_pools(num_gpus):
            workers = await client.read_workers_for_work_pool(pool)
            if not any(
                worker.status == WorkerStatus.ONLINE
                and worker.last_heartbeat_time is not None
                and worker.last_heartbeat_time >= since
                for worker in workers
            ):
                return False
    return True


def when_a_run_died() -> AutomationCore:
    """Automation: mark a run without heartbeats as crashed, as Prefect's documentation advises.

    A run whose machine, or whose worker too, was killed stays RUNNING for ever and keeps its slot.
    """
    ends = {"Completed", "Failed", "Cancelled", "Crashed"}
    return AutomationCore(
        name="Free what a dead run holds",
        description="A run that gives no sign of life for three heartbeats is marked as crashed; "
        "its slots are freed, and Retry goes on where it was.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=3 * HEARTBEAT_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no sign of life for {3 * HEARTBEAT_S} s; Retry goes on where it was",
            )
        ],
    )


def when_refined_got_worse(nightly: DeploymentResponse) -> AutomationCore:
    """Automation: pause the nightly deployment when refined images got worse."""
    return AutomationCore(
        name="Refined got worse: pause the nightly pipeline",
        description="The last comparison found estimators trained on refined images worse than "
        "those trained on synthetic ones. Nothing more is refined until a person has looked; add "
        "an action here to be told by mail or chat.",
        trigger=EventTrigger(
            expect={REFINED_GOT_WORSE},
            match=ResourceSpecification({"prefect.resource.id": ["simgan.comparison.*"]}),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[PauseDeployment(source="selected", deployment_id=nightly.id)],
    )


async def _make_pool(client: PrefectClient, name: str) -> None:
    template = ProcessWorker.get_default_base_job_template()
    try:
        await client.create_work_pool(
            WorkPoolCreate(name=name, type="process", base_job_template=template)
        )
    except ObjectAlreadyExists:
        logger.debug("work pool %s is there", name)


async def _make_automation(
    client: PrefectClient, automation: AutomationCore, known: list[DeploymentResponse]
) -> None:
    """Create or update an automation; one that was switched off stays off."""
    found = await client.read_automations_by_name(automation.name)
    if not found:
        await client.create_automation(automation)
        return
    automation.enabled = found[0].enabled
    # Actions that people added stay; to pause a deployment that was deleted is no longer one.
    there = {deployment.id for deployment in known}
    kept = [
        each
        for each in found[0].actions
        if not isinstance(each, PauseDeployment) or each.deployment_id in {None, *there}
    ]
    automation.actions = kept + automation.actions * (len(kept) < len(found[0].actions))
    await client.update_automation(found[0].id, automation)


def _out_of_date(known: list[DeploymentResponse], version: str) -> bool:
    ours = [found for found in known if TAG in found.tags]
    return not ours or any(found.version != version for found in ours)


async def _bring_form_up_to_date(
    client: PrefectClient, deployment: DeploymentResponse, datasets: dict[str, str]
) -> None:
    """Update the lists of presets and datasets in a deployment's form."""
    schema = deployment.parameter_openapi_schema or {}
    changed = with_what_exists(schema, datasets)
    if changed != schema:
        update = DeploymentUpdate.model_validate({"parameter_openapi_schema": changed})
        await client.update_deployment(deployment.id, update)


async def _keep_what_people_set(client: PrefectClient, before: DeploymentResponse) -> None:
    """Restore the parameters and schedules of a deployment that was made again."""
    now = await client.read_deployment(before.id)
    known = (now.parameter_openapi_schema or {}).get("properties", {})
    set_before = {name: value for name, value in before.parameters.items() if name in known}
    await client.update_deployment(
        before.id, DeploymentUpdate(parameters={**now.parameters, **set_before})
    )
    if before.schedules:
        for schedule in now.schedules:
            await client.delete_deployment_schedule(before.id, schedule.id)
        await client.create_deployment_schedules(
            before.id,
            [
                DeploymentScheduleCreate(
                    **schedule.model_dump(
                        include={"schedule", "active", "max_scheduled_runs", "parameters", "slug"}
                    )
                )
                for schedule in before.schedules
            ],
        )
