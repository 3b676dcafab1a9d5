"""A change of code that decides results comes with another recipe version, and with other ids."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from simgan_core.config import TrainingConfig
from tasks.runtime import recipes
from tasks.runtime.code_digest import PACKAGES
from tasks.runtime.recipes import STAGES, Stage, changed_stages, explain, read_recipes, record
from tasks.training.train import _refiner_id

ROOT = Path(__file__).parents[3]
LOSSES = "simgan_core/training/losses.py"
CONSTANT = "return (1 - lead).square().mean()", "return (0.9 - lead).square().mean()"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the project's packages, to change."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def command(sources: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.runtime.recipes", *arguments],
        cwd=sources,
        capture_output=True,
        text=True,
        check=False,
    )


def edit(sources: Path, path: str, old: str, new: str) -> None:
    text = (sources / path).read_text("utf-8")
    assert old in text
    (sources / path).write_text(text.replace(old, new, 1), "utf-8")


def versions(sources: Path) -> dict[Stage, int]:
    return {stage: recipe.version for stage, recipe in read_recipes(sources).items()}


def refiner_id(sources: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(recipes, "_ROOT", sources)
    recipes._recorded.cache_clear()
    spec = SimpleNamespace(dtype="uint8", height=35, width=55, channels=1)
    dataset = SimpleNamespace(info=SimpleNamespace(digest="0" * 64, num_valid=1, spec=spec))
    found = _refiner_id(dataset, dataset, TrainingConfig())
    recipes._recorded.cache_clear()
    return found


def test_every_recipe_version_is_recorded_for_the_code_as_it_is() -> None:
    changed = changed_stages()
    assert not changed, explain(changed)


def test_a_constant_of_the_losses_fails_the_check_until_a_version_is_recorded(
    sources: Path,
) -> None:
    edit(sources, LOSSES, *CONSTANT)
    assert changed_stages(sources) == ["train"]
    found = command(sources)
    assert found.returncode == 1
    assert "results of train has changed" in found.stdout
    assert "python -m tasks.runtime.recipes results-changed" in found.stdout
    assert command(sources, "results-changed").returncode == 0
    assert changed_stages(sources) == []


def test_changed_results_give_the_refiner_another_id(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, named = versions(sources), refiner_id(sources, monkeypatch)
    edit(sources, LOSSES, *CONSTANT)
    record(["train"], "results-changed", sources)
    assert versions(sources) == before | {"train": before["train"] + 1}
    assert refiner_id(sources, monkeypatch) != named


def test_unchanged_results_keep_the_refiner_its_id(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, named = versions(sources), refiner_id(sources, monkeypatch)
    edit(sources, LOSSES, *CONSTANT)
    record(["train"], "results-unchanged", sources)
    assert changed_stages(sources) == []
    assert versions(sources) == before
    assert refiner_id(sources, monkeypatch) == named


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    lead = lead_of_real", "    # nats\n    lead = lead_of_real"),
        ('"""Return the logit of', '"""The logit of'),
        (
            "def lead_of_real(logits: Tensor)",
            "def lead_of_real(\n    logits: Tensor,\n)",
        ),
    ],
    ids=["comment", "docstring", "format"],
)
def test_comments_docstrings_and_format_are_no_changes(sources: Path, old: str, new: str) -> None:
    edit(sources, LOSSES, old, new)
    assert changed_stages(sources) == []


def test_a_renamed_module_is_no_change(sources: Path) -> None:
    (sources / LOSSES).rename(sources / "simgan_core/training/objectives.py")
    for path in sources.rglob("*.py"):
        text = path.read_text("utf-8")
        path.write_text(text.replace("training.losses", "training.objectives"), "utf-8")
    assert changed_stages(sources) == []


def test_a_definition_in_another_module_is_no_change(sources: Path) -> None:
    text = (sources / LOSSES).read_text("utf-8")
    start = text.index("def gradient_penalty")
    (sources / LOSSES).write_text(text[:start], "utf-8")
    (sources / "simgan_core/training/penalty.py").write_text(
        "import torch\nfrom torch import Tensor\n"
        "from simgan_core.training.losses import lead_of_real\n\n\n" + text[start:],
        "utf-8",
    )
    steps = sources / "simgan_core/training/steps.py"
    lines = steps.read_text("utf-8").replace("gradient_penalty,", "", 1).splitlines()
    first = next(row for row, line in enumerate(lines) if line.startswith("from simgan_core"))
    lines.insert(first, "from simgan_core.training.penalty import gradient_penalty")
    steps.write_text("\n".join(lines), "utf-8")
    assert changed_stages(sources) == []


@pytest.mark.parametrize(
    ("stage", "path", "old", "new"),
    [
        ("simulate", "simgan_core/simulator/structured_light.py", "1 / 16", "1 / 32"),
        ("ingest", "storage/sources/formats/unityeyes.py", "IRIS_WAY = ", "IRIS_WAY = 1.01 * "),
        ("refine", "tasks/refinement/refine.py", "SHARDS_FINISHING = 2", "SHARDS_FINISHING = 3"),
        (
            "estimate",
            "simgan_core/estimation/fitting.py",
            "_NUM_VALIDATIONS = 20",
            "_NUM_VALIDATIONS = 21",
        ),
        ("compare", "simgan_core/stats/bootstrap.py", "2000", "2001"),
    ],
)
def test_each_stage_has_its_own_code(
    sources: Path, stage: Stage, path: str, old: str, new: str
) -> None:
    edit(sources, path, old, new)
    assert changed_stages(sources) == [stage]


def test_reports_and_tracking_are_of_no_recipe(sources: Path) -> None:
    for path in ("tasks/comparison/reporting/charts.py", "tasks/comparison/reporting/report.py"):
        edit(sources, path, "def ", "def more() -> int:\n    return 1\n\n\ndef ")
    edit(
        sources,
        "tasks/runtime/tracking/runs.py",
        "POINTS_PER_BATCH = 500",
        "POINTS_PER_BATCH = 501",
    )
    assert changed_stages(sources) == []


def test_a_merge_conflict_keeps_the_higher_version(sources: Path) -> None:
    recorded = sources / "tasks/runtime/recipes.toml"
    line = next(line for line in recorded.read_text("utf-8").splitlines() if "train" in line)
    theirs = 'train = { version = 7, digest = "0123456789abcdef" }'
    edit(sources, "tasks/runtime/recipes.toml", line,
         f"<<<<<<< ours\n{theirs}\n=======\n{line}\n>>>>>>> theirs")  # fmt: skip
    record(["train"], "results-unchanged", sources)
    assert changed_stages(sources) == []
    assert versions(sources)["train"] == 7
    assert "<<<" not in recorded.read_text("utf-8")


def test_an_unknown_stage_is_refused_with_the_known_ones(sources: Path) -> None:
    found = command(sources, "results-changed", "distil")
    assert found.returncode == 2
    assert f"no stage distil; there are {', '.join(STAGES)}" in found.stderr
