"""What becomes of a bulk refinement when things go wrong, on a real server and worker.

The run that dies in the first test is found dead in the last, while the others are at work.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from storage.reader import open_dataset

pytestmark = pytest.mark.drill

SECONDS_TO_CANCEL = 30
SECONDS_UNTIL_DEAD = 90
NUM_SHARDS = 240


class Refinement(NamedTuple):
    """A flow run and what it makes."""

    run_id: str
    to: str


@pytest.fixture(scope="module")
def refine(team: Any, work: dict[str, str]) -> Callable[[str], Refinement]:
    """Press Run for a bulk refinement, and wait until it is in the middle of its work."""

    def start(name: str) -> Refinement:
        to = f"data/{name}.zarr"
        run_id = team.run("bulk-refine", {**work, "to": to})
        team.until(lambda: team.num_done(to) >= 3, 240, "the first shards")
        return Refinement(run_id, to)

    return start


@pytest.fixture(scope="module")
def dead(team: Any, refine: Callable[[str], Refinement]) -> Refinement:
    """A run that was killed together with its worker: nobody is left to tell the server."""
    started = refine("dead")
    team.kill("prefect worker start", "prefect.engine")
    return started


def rows_left(done: int) -> str:
    """What a run says when it begins, with so many shards done."""
    return f"{16 * (NUM_SHARDS - done)} of {16 * NUM_SHARDS} rows to refine"


def digest_of(team: Any, to: str) -> str:
    """The digest of a complete dataset."""
    return open_dataset(str(team.folder / to)).info.digest


def test_killed_worker_is_back_and_takes_the_next_run(team: Any, dead: Refinement) -> None:
    assert team.state(dead.run_id) == "RUNNING"
    run_id = team.run("simulate", {"domain": "real", "out": "sim", "count": 15, "seed": 1})
    assert team.wait(run_id) == "COMPLETED"


def test_cancelled_within_half_a_minute_and_retried_to_the_end(
    team: Any, refine: Callable[[str], Refinement], record_property: Callable[[str, float], None]
) -> None:
    run = refine("cancelled")
    team.set_state(run.run_id, "CANCELLING")
    seconds = team.until(
        lambda: not team.running(run.run_id), SECONDS_TO_CANCEL, "the run's process to end"
    )
    record_property("seconds_to_cancel", seconds)
    team.until(lambda: team.state(run.run_id) == "CANCELLED", 120, "the server to know")
    done = team.num_done(run.to)
    assert 3 <= done < NUM_SHARDS
    team.retry(run.run_id)
    assert team.wait(run.run_id) == "COMPLETED"
    assert rows_left(done) in team.log(run.run_id)


def test_restarted_server_does_not_stop_a_run(
    team: Any, refine: Callable[[str], Refinement]
) -> None:
    run = refine("server")
    team.kill("prefect server start")
    assert team.wait(run.run_id) == "COMPLETED"
    assert digest_of(team, run.to) == digest_of(team, "data/cancelled.zarr")


def test_dead_run_is_called_crashed_frees_its_slot_and_is_retried_to_the_end(
    team: Any, dead: Refinement, record_property: Callable[[str, float], None]
) -> None:
    seconds = team.until(
        lambda: team.state(dead.run_id) == "CRASHED", SECONDS_UNTIL_DEAD + 60, "the automation"
    )
    record_property("seconds_until_called_crashed", seconds)
    assert team.ask("GET", "v2/concurrency_limits/gpu")["active_slots"] == 0
    done = team.num_done(dead.to)
    assert done < NUM_SHARDS
    team.retry(dead.run_id)
    assert team.wait(dead.run_id) == "COMPLETED"
    assert rows_left(done) in team.log(dead.run_id)
    assert digest_of(team, dead.to) == digest_of(team, "data/cancelled.zarr")
