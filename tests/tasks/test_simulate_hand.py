from pathlib import Path

import numpy as np
import pytest

from simgan_core.errors import InputError
from storage.sources.formats.nyu_hand import NyuHandOptions
from tasks.simulate import simulate_hand


@pytest.mark.parametrize("domain", ["synthetic", "real"])
def test_joints_lie_in_the_hand_that_is_seen(tmp_path: Path, domain: str) -> None:
    folder = simulate_hand.fn(str(tmp_path / "h"), domain, 4, seed=1)
    source = NyuHandOptions(
        folder=folder, labels=f"{folder}/labels.txt", height=128, width=128, domain=domain
    ).open()
    block = source.read(0, 4)
    assert block.valid.all()
    joints, centre = block.labels["joints_uvd"], block.labels["cube_centre_mm"]
    u, v = np.moveaxis(joints[..., :2].astype(int), 2, 0)
    value = block.images[np.arange(4)[:, None], v, u, 0]
    seen_mm = value * (300 / 65535) + centre[:, 2:] - 150
    shown = value < 65535
    # At a fingertip's edge, or in a hole of the real domain, the wall behind is seen.
    assert shown.mean() > 0.85
    in_front_mm = (joints[..., 2] - seen_mm)[shown]
    assert (in_front_mm > -6).all()
    assert np.median(in_front_mm) < 20


def test_frames_that_are_there_are_kept_and_the_same_seed_gives_the_same_files(
    tmp_path: Path,
) -> None:
    first, again = (Path(simulate_hand.fn(str(tmp_path / n), "real", 3, seed=2)) for n in "ab")
    names = sorted(path.name for path in first.iterdir())
    assert names[-1] == "labels.txt"
    assert all((first / n).read_bytes() == (again / n).read_bytes() for n in names)
    (again / "depth_1_0000002.png").unlink()
    kept = (again / "depth_1_0000001.png").stat().st_mtime_ns
    simulate_hand.fn(str(again), "real", 3, seed=2)
    assert (again / "depth_1_0000001.png").stat().st_mtime_ns == kept
    assert all((first / n).read_bytes() == (again / n).read_bytes() for n in names)
    with pytest.raises(InputError, match="another simulation"):
        simulate_hand.fn(str(again), "real", 4, seed=2)
