"""What becomes of a bulk refinement when things go wrong, on a real server and worker.

The run that dies in the first test is found dead in the last, while the others are at work.
`benchmarks/operate.py soak` does the same again and again.
"""

from collections.abc import Callable

import pytest

from tests.operating_team import (
    Refinement,
    Team,
    cancel,
    digest_of,
    finish_by_retry,
    kill_worker_with_its_runs,
    start_refinement,
    take_a_small_run,
    wait_until_found_dead,
)

pytestmark = pytest.mark.drill

Record = Callable[[str, float], None]


@pytest.fixture(scope="module")
def undisturbed(team: Team, work: dict[str, str]) -> str:
    """The digest of the dataset that every one of these refinements ends in."""
    run = start_refinement(team, work, "undisturbed")
    assert team.wait(run.run_id) == "COMPLETED"
    return digest_of(team, run.to)


@pytest.fixture(scope="module")
def dead(team: Team, work: dict[str, str], undisturbed: str) -> Refinement:
    """A run that was killed together with its worker."""
    run = start_refinement(team, work, "dead")
    kill_worker_with_its_runs(team)
    return run


def test_killed_worker_is_back_and_takes_the_next_run(team: Team, dead: Refinement) -> None:
    assert team.state(dead.run_id) == "RUNNING"
    take_a_small_run(team)


def test_cancelled_within_half_a_minute_and_retried_to_the_end(
    team: Team, work: dict[str, str], undisturbed: str, record_property: Record
) -> None:
    run = start_refinement(team, work, "cancelled")
    record_property("seconds_to_cancel", cancel(team, run))
    assert finish_by_retry(team, run) == undisturbed


def test_restarted_server_does_not_stop_a_run(
    team: Team, work: dict[str, str], undisturbed: str
) -> None:
    run = start_refinement(team, work, "server")
    team.kill("prefect server start")
    assert team.wait(run.run_id) == "COMPLETED"
    assert digest_of(team, run.to) == undisturbed


def test_dead_run_is_called_crashed_frees_its_slot_and_is_retried_to_the_end(
    team: Team, dead: Refinement, undisturbed: str, record_property: Record
) -> None:
    record_property("seconds_until_called_crashed", wait_until_found_dead(team, dead))
    assert finish_by_retry(team, dead) == undisturbed
