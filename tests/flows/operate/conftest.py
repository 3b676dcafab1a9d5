"""`simgan up` for the tests of operation, and the first night of its nightly pipeline."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tasks.simulate import simulate_real, simulate_synthetic
from tests.operating_team import Team, free_port, make_work


@pytest.fixture(scope="session")
def new_port() -> Callable[[], int]:
    """Ports that nobody listens at."""
    return free_port


@pytest.fixture(scope="session")
def new_team(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Team]:
    """Places that are not `up` yet."""
    return lambda name, *words, **more: Team(tmp_path_factory.mktemp(name), *words, **more)


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """`simgan up`, from nothing, on SQLite and loopback; stopped at the end."""
    place = Team(tmp_path_factory.mktemp("team"))
    try:
        began = time.monotonic()
        place.up()
        place.seconds_to_green = time.monotonic() - began
        yield place
    finally:
        place.down()
    assert place.processes() == []


@pytest.fixture(scope="session")
def work(team: Team) -> dict[str, str]:
    """What the bulk refinements of these tests refine, and by what."""
    return make_work(team)


class Nights(NamedTuple):
    """What the nightly pipeline is run with, and the first night."""

    parameters: dict[str, Any]
    first: str
    refiner: str


@pytest.fixture(scope="session")
def more_eyes(team: Team) -> Callable[[int], None]:
    """The simulator at work: each call adds pairs to its folder."""
    made = itertools.count(1)

    def add(count: int) -> None:
        batch = next(made)
        folder = team.folder / "data" / "UnityEyes" / f"batch{batch}"
        simulate_synthetic.fn(str(folder), count, seed=batch)

    return add


@pytest.fixture(scope="session")
def nights(team: Team, more_eyes: Callable[[int], None]) -> Nights:
    """The first night of the nightly pipeline, with its own forms' folders and a tiny training."""
    more_eyes(48)
    simulate_real.fn(str(team.folder / "data" / "MPIIGaze"), 90, seed=2)
    tiny = {
        "steps": 6,
        "batch_size": 8,
        "history_size": 16,
        "refiner": {"num_features": 4, "num_blocks": 1},
        "discriminator_pretraining_steps": 2,
    }
    parameters = {"training": tiny, "estimator": {"steps": 20}, "seeds": 2}
    first = team.run("nightly-pipeline", parameters)
    assert team.wait(first) == "COMPLETED", team.log_with_subflows(first)
    (weights,) = (team.folder / "home" / "refiners").glob("*/refiner.pt")
    return Nights(parameters, first, weights.parent.name)
