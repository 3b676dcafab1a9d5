"""`prefect.yaml` on a real Prefect server: what the UI offers, and what its forms refuse."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectHTTPStatusError

from tasks.ops.prefect_setup import code_digest, connect, prepare_server

WORSE = "Refined got worse: pause the nightly pipeline"
DEPLOYMENTS = {
    "bulk-refine",
    "choose-refiner",
    "compare",
    "demo",
    "evaluate",
    "ingest-real",
    "ingest-synthetic",
    "nightly-pipeline",
    "pipeline",
    "simulate",
    "simulate-unityeyes",
    "train-refiner",
}


@pytest.fixture(scope="module")
def deployed(api_with_deployments: str) -> dict[str, DeploymentResponse]:
    """Every deployment on the server, by name."""
    return read(api_with_deployments)


def read(api: str) -> dict[str, DeploymentResponse]:
    """What the server has."""

    async def ask() -> list[DeploymentResponse]:
        async with connect(api) as client:
            return await client.read_deployments()

    return {found.name: found for found in asyncio.run(ask())}


def form_of(deployment: DeploymentResponse, *path: str) -> Any:
    """A part of a deployment's form, references followed."""
    schema: Any = deployment.parameter_openapi_schema
    found = schema
    for name in path:
        if "$ref" in found:
            found = schema["definitions"][found["$ref"].rsplit("/", 1)[1]]
        found = found["properties"][name]
    return found


def test_every_deployment_says_what_it_is_and_how_it_waits(
    deployed: dict[str, DeploymentResponse],
) -> None:
    assert set(deployed) == DEPLOYMENTS
    for deployment in deployed.values():
        assert deployment.description
        assert "simgan" in deployment.tags
        assert deployment.version == code_digest()
        assert deployment.work_pool_name == "simgan-cpu"
        assert deployment.global_concurrency_limit is not None
        assert deployment.concurrency_options is not None


def test_a_night_that_would_overlap_is_called_off_and_no_night_runs_unasked(
    deployed: dict[str, DeploymentResponse],
) -> None:
    nightly = deployed["nightly-pipeline"]
    assert nightly.concurrency_options is not None
    assert nightly.concurrency_options.collision_strategy.value == "CANCEL_NEW"
    assert [schedule.active for schedule in nightly.schedules] == [False]


def test_forms_show_help_units_choices_and_limits(deployed: dict[str, DeploymentResponse]) -> None:
    train = deployed["train-refiner"]
    steps = form_of(train, "config", "steps")
    assert steps["description"].startswith("Refiner updates of the adversarial phase")
    assert steps["minimum"] == 1
    assert form_of(train, "config", "refiner", "kernel_size")["enum"] == [3, 5, 7]
    assert "in pixels" in form_of(deployed["compare"], "estimator", "max_shift_px")["description"]
    for name in ("compare", "pipeline"):
        assert form_of(deployed[name], "comparison", "match_labels")["default"] == "auto"
    assert "label matching" in form_of(deployed["compare"], "unlabelled")["description"]


def test_forms_name_what_exists_in_words(deployed: dict[str, DeploymentResponse]) -> None:
    refine = deployed["bulk-refine"]
    assert refine.parameters["refiner"] == "models:/refiner@champion"
    assert form_of(refine, "gate_shift")["title"] == "Gate shift"
    positions = [form_of(refine, name)["position"] for name in ("to", "append", "overwrite")]
    assert positions == [2, 3, 4]
    assert "paper has" in form_of(deployed["train-refiner"], "config")["description"]


@pytest.mark.parametrize(
    ("name", "parameters", "field"),
    [
        ("train-refiner", {"config": {"steps": -1}}, "steps"),
        ("compare", {"seeds": 0}, "seeds"),
        ("ingest-real", {"max_bad": 2}, "max_bad"),
        ("ingest-synthetic", {"preprocess": "sharpen"}, "preprocess"),
        ("bulk-refine", {"refiner": 3}, "refiner"),
    ],
)
def test_bad_values_are_refused_before_the_run(
    environment: dict[str, str],
    deployed: dict[str, DeploymentResponse],
    name: str,
    parameters: dict[str, Any],
    field: str,
) -> None:
    async def run() -> None:
        async with connect(environment["PREFECT_API_URL"]) as client:
            await client.create_flow_run_from_deployment(deployed[name].id, parameters=parameters)

    with pytest.raises(PrefectHTTPStatusError, match="409") as refusal:
        asyncio.run(run())
    assert field in refusal.value.response.text


def test_made_anew_a_deployment_keeps_what_people_set(
    environment: dict[str, str],
    deployed: dict[str, DeploymentResponse],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api, nightly = environment["PREFECT_API_URL"], deployed["nightly-pipeline"]

    async def set_by_hand() -> None:
        async with connect(api) as client:
            (schedule,) = nightly.schedules
            await client.update_deployment_schedule(nightly.id, schedule.id, active=True)
            await client.request(
                "PATCH",
                "/deployments/{id}",
                path_params={"id": nightly.id},
                json={"parameters": {**nightly.parameters, "out": "data/ours"}},
            )

    asyncio.run(set_by_hand())
    monkeypatch.setattr("tasks.ops.prefect_setup.code_digest", lambda: "another")
    asyncio.run(prepare_server(api, num_gpus=0, folder=Path.cwd()))
    anew = read(api)["nightly-pipeline"]
    assert anew.version == "another"
    assert anew.parameters["out"] == "data/ours"
    assert [schedule.active for schedule in anew.schedules] == [True]


def test_a_nightly_deployment_that_was_deleted_is_paused_again_once_it_is_made_anew(
    environment: dict[str, str],
    deployed: dict[str, DeploymentResponse],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api, version = (
        environment["PREFECT_API_URL"],
        read(environment["PREFECT_API_URL"])["demo"].version,
    )

    async def delete() -> None:
        async with connect(api) as client:
            await client.delete_deployment(deployed["nightly-pipeline"].id)

    async def paused() -> list[UUID | None]:
        async with connect(api) as client:
            (found,) = await client.read_automations_by_name(WORSE)
            return [each.deployment_id for each in found.actions]

    asyncio.run(delete())
    monkeypatch.setattr("tasks.ops.prefect_setup.code_digest", lambda: version)
    asyncio.run(prepare_server(api, num_gpus=0, folder=Path.cwd()))
    assert "nightly-pipeline" not in read(api)
    monkeypatch.setattr("tasks.ops.prefect_setup.code_digest", lambda: "a later one")
    asyncio.run(prepare_server(api, num_gpus=0, folder=Path.cwd()))
    assert asyncio.run(paused()) == [read(api)["nightly-pipeline"].id]
