"""`prefect.yaml` on a real Prefect server."""

import asyncio
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import PrefectClient

CHECKOUT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = {
    "bulk-refine",
    "compare",
    "evaluate",
    "ingest",
    "nightly-demo",
    "pipeline",
    "simulate",
    "train-refiner",
}


def test_prefect_deploy_all_accepts_every_flow_with_its_form(environment: dict[str, str]) -> None:
    surroundings = {**environment, "SIMGAN_CHECKOUT": str(CHECKOUT)}
    for words in (["work-pool", "create", "simgan", "--type", "process"], ["deploy", "--all"]):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *words],
            env=surroundings,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    async def read() -> dict[str, tuple[dict, int]]:
        async with PrefectClient(environment["PREFECT_API_URL"]) as client:
            found = await client.read_deployments()
        return {d.name: (d.parameter_openapi_schema, len(d.schedules)) for d in found}

    deployed = asyncio.run(read())
    assert set(deployed) == DEPLOYMENTS
    assert deployed["nightly-demo"][1] == 1
    form = deployed["train-refiner"][0]["definitions"]["TrainingConfig"]["properties"]["steps"]
    assert form["description"] == "Refiner updates of the adversarial phase."
    assert form["minimum"] == 1
