"""The command `demo`, with a hundredth of its images and of its steps."""

import json
import subprocess
import sys
from pathlib import Path

SMALL_DEMO = """
from flows import demo
from flows.cli.main import main
from simgan_core.config import PRESETS, RefinerConfig

demo.NUM_SYNTHETIC, demo.NUM_REAL = 45, 60
demo.ESTIMATOR = demo.ESTIMATOR.model_copy(update={"steps": 4})
small = {"steps": 4, "batch_size": 4, "refiner": RefinerConfig(num_features=4, num_blocks=1)}
PRESETS["demo"] = PRESETS["demo"].model_copy(update=small)
main()
"""


def test_demo_ends_in_a_table_and_owns_up_that_real_is_rendered(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DEMO, "demo", "--out", str(tmp_path), "--json"],
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["num_test"] == 24
    assert all(result[arm]["error_deg"] > 0 for arm in ("synthetic", "refined", "real"))
    assert len(result["refined_minus_synthetic"]["ci95"]) == 2
    assert result["pupil_shift_px"].keys() == {"mean", "sd", "median"}
    assert "Both domains of this demo are rendered" in done.stderr
    for said in ("MLflow", "Prefect", "report", "picture"):
        assert said.lower() in done.stderr.lower(), f"{said} is not said"
