from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from simgan_core.errors import InputError
from simgan_core.simulator.eyes import sample_scenes
from storage.sources.formats.mpiigaze import MPIIGazeOptions
from tasks.simulate import simulate_hand, simulate_real, simulate_synthetic


def test_files_show_as_many_people_as_asked_for_in_turn(tmp_path: Path) -> None:
    folder = simulate_real.fn(str(tmp_path / "r"), 24, seed=2, num_people=4)
    source = MPIIGazeOptions(folder=Path(folder)).open()
    block = source.read(0, 24)
    assert {name.split("/")[0] for name in block.ids} == {"p00", "p01", "p02", "p03"}
    scenes = sample_scenes("real", 24, seed=2, num_people=4)
    lefts = [row for row, name in enumerate(block.ids) if name.startswith("p03") and "left" in name]
    expected = scenes.gaze[(scenes.person == 3) & ~scenes.is_right]
    np.testing.assert_allclose(block.labels["gaze"][lefts], expected, atol=1e-6)


@pytest.mark.parametrize("num_people", [3, 15])
def test_an_odd_count_is_the_number_of_eyes_that_are_listed(
    tmp_path: Path, num_people: int
) -> None:
    folder = simulate_real.fn(str(tmp_path / "r"), 9, seed=2, num_people=num_people)
    source = MPIIGazeOptions(folder=Path(folder)).open()
    assert len(source) == 9
    assert sum(name.endswith("right") for name in source.ids(0, 9)) == 4


def test_a_folder_of_other_people_is_not_mixed_with_these(tmp_path: Path) -> None:
    folder = simulate_real.fn(str(tmp_path / "r"), 8, seed=2, num_people=4)
    with pytest.raises(InputError, match=r"holds another .*4 people.*asked for.*2 people"):
        simulate_real.fn(folder, 8, seed=2, num_people=2)


@pytest.mark.parametrize(
    ("simulation", "wrong"),
    [
        (simulate_real.fn, {"count": 0}),
        (partial(simulate_real.fn, num_people=0), {}),
        (simulate_synthetic.fn, {"count": 0}),
        (simulate_synthetic.fn, {"seed": -1}),
        (partial(simulate_hand.fn, domain="real"), {"count": 0}),
    ],
)
def test_numbers_of_no_simulation_are_refused_and_leave_the_folder_to_the_right_ones(
    tmp_path: Path, simulation: Callable[..., str], wrong: dict[str, int]
) -> None:
    numbers = {"count": 2, "seed": 1} | wrong
    with pytest.raises(InputError, match="count ≥ 1"):
        simulation(out=str(tmp_path / "s"), **numbers)
    assert not (tmp_path / "s").exists()


def test_a_run_that_was_killed_while_it_marked_its_folder_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / ".simulation").touch()
    simulate_synthetic.fn(str(tmp_path), 1, 0)
    assert (tmp_path / "1.jpg").exists()
    (tmp_path / ".simulation").write_text("")
    with pytest.raises(InputError, match="is not empty"):
        simulate_synthetic.fn(str(tmp_path), 1, 0)
