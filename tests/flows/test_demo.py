"""The command `demo`, with a hundredth of its images and of its steps."""

import json
import subprocess
import sys
from pathlib import Path

from tests.terminal_screen import run_on_terminal

SMALL_DEMO = """
from flows.cli.environment import prepare
from flows.cli.main import main
from flows.cli.terminal import terminal_output

prepare()
with terminal_output("normal"):  # it sets what Prefect reads when it is imported
    from flows import demo
from simgan_core.config import PRESETS, StoppingConfig

demo.NUM_SYNTHETIC, demo.NUM_REAL = 45, 60
demo.ESTIMATOR = demo.ESTIMATOR.model_copy(update={"steps": 4})
small = {
    "steps": 4,
    "batch_size": 4,
    "discriminator_pretraining_steps": 2,
    "stopping": StoppingConfig(evaluate_every=4, num_images=20),
}
PRESETS["demo"] = PRESETS["demo"].model_copy(update=small)
main()
"""


STAGES = (
    "rendering synthetic images",
    "rendering real images",
    "ingesting",
    "training the refiner",
    "refining",
    "training and testing estimators",
    "writing charts and report",
)


def test_demo_on_a_terminal_has_a_bar_for_every_stage_and_leaves_thirty_lines(
    environment: dict[str, str], workplace: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SMALL_DEMO, "demo", "--out", str(tmp_path / "demo")]
    shown = run_on_terminal(command, environment, workplace)
    assert shown.returncode == 0, shown.written
    assert [stage for stage in STAGES if stage not in shown.written] == []
    said = "\n".join(shown.lines)
    assert len(shown.lines) <= 30, said
    for words in ("45 images refined, pupils moved", "45 images ingested, 0 rejected"):
        assert words in said
    assert "Both domains of this demo are rendered" in said
    for noise in ("Warning", "Completed", "{", "do not exist"):
        assert noise not in said


def test_demo_ends_in_a_table_and_owns_up_that_real_is_rendered(
    environment: dict[str, str], workplace: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DEMO, "demo", "--out", str(tmp_path), "--json"],
        env=environment,
        cwd=workplace,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["num_test"] == 24
    arms = ("synthetic", "tone_matched", "refined", "real")
    assert all(result[arm]["error_deg"] > 0 for arm in arms)
    assert len(result["refined_minus_synthetic"]["ci95"]) == 2
    assert result["pupil_shift_px"].keys() == {"mean", "sd", "median"}
    assert "Both domains of this demo are rendered" in done.stderr
    said = done.stderr.splitlines()
    for name, file in (("report", "report.html"), ("pictures", "before_after.png")):
        (line,) = (line for line in said if line.startswith(name))
        assert line.endswith(file)
        assert (workplace / line.split()[-1]).is_file()
    assert said[-1].startswith("next      simgan ingest --help")
