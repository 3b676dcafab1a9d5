"""The blocks of docs/python.md and of README, run one after the other in one process."""

import subprocess
import sys
from pathlib import Path

from simgan_core.simulator.eyes import sample_scenes
from tests.docs.pages import README, ROOT, Page
from tests.flows.conftest import write_eyes
from tests.refinement_inputs import make_refiner

LESS = """
import functools
import simgan_core.config as config

config.PRESETS["demo"] = config.PRESETS["demo"].model_copy(update={
    "steps": 4, "batch_size": 4})
config.EstimatorConfig = functools.partial(config.EstimatorConfig, steps=2, batch_size=8)
"""
SHOW = """
print(trained.step, refined.shape, round(float(error_deg)), info.spec.domain, info.num_valid)
"""


def test_every_block_runs_in_order(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    real = sample_scenes("real", 60, seed=2)
    write_eyes(tmp_path / "data/synthetic.zarr", "synthetic", sample_scenes("synthetic", 30, 1))
    write_eyes(tmp_path / "data/real.zarr", "real", real[real.person < 10])
    write_eyes(tmp_path / "data/test.zarr", "real", real[real.person >= 10])
    home = tmp_path / "home"
    (home / "refiners" / "refiner-0123456789ab").mkdir(parents=True)
    make_refiner(home / "refiners" / "refiner-0123456789ab" / "refiner.pt")
    script = tmp_path / "blocks.py"
    blocks = [*Page(ROOT / "docs/python.md").python, *Page(README).python]
    script.write_text("\n".join([LESS, *blocks, SHOW]))
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**environment, "SIMGAN_HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    step, *_ = done.stdout.splitlines()[-1].split()
    assert int(step) >= 4
    assert "refined 30" in done.stdout
