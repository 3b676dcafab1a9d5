"""Recipe versions: a number for the code of each stage, part of the ids of its results.

A stage's version rises when a change of its code changes its results; what an older version made
is then not found by its id and is made again. `recipes.toml` keeps, beside each version, a
digest of the code that decides the stage's results, so that a change cannot go by unnoticed:

python -m tasks.runtime.recipes                        # which stages' code has changed (status 1)
python -m tasks.runtime.recipes results-changed        # give those stages the next version
python -m tasks.runtime.recipes results-unchanged      # keep the versions: the same bits as before

Both take names of stages where not all of the changed ones are meant, and both resolve a merge
conflict in `recipes.toml`: of the two sides' versions the higher one counts. After a merge of two
branches that each changed a stage's results, `results-changed` is right: its results are new.
"""

import argparse
import re
import sys
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from tasks.runtime.code_digest import CodeReader

Stage = Literal[
    "simulate", "unityeyes", "ingest", "landmarks", "train", "refine", "estimate", "compare"
]
STAGES: tuple[Stage, ...] = get_args(Stage)

_ROOT = Path(__file__).parents[2]
_RECORD = "tasks/runtime/recipes.toml"
_COMMAND = "python -m tasks.runtime.recipes"

_ENTRIES: dict[Stage, tuple[str, ...]] = {
    "simulate": (
        "tasks.simulate:simulate_synthetic",
        "tasks.simulate:simulate_real",
        "tasks.simulate:simulate_hand",
    ),
    "unityeyes": (
        "tasks.simulation.unityeyes:write_pairs",
        "tasks.simulation.unityeyes:simulate_shards",
        "tasks.simulation.unityeyes_assets:load_assets",
        "simgan_core.simulator.unityeyes.kernels:draw",
        "simgan_core.simulator.unityeyes.batched.render:BatchRenderer",
    ),
    "ingest": ("tasks.ingestion.ingest:plan_ingestion", "tasks.ingestion.ingest:ingest_shards"),
    "landmarks": ("tasks.training.landmarks:_trained",),
    "train": (
        "simgan_core.training.trainer:Trainer",
        "simgan_core.models.checkpoint:save_refiner",
        "tasks.training.data:open_training_data",
    ),
    "refine": ("tasks.refinement.refine:refine_shards",),
    "estimate": (
        "tasks.comparison.estimate:_predictions",
        "tasks.comparison.label_prior:_estimated",
        "tasks.comparison.pseudo_labels:_predicted",
    ),
    "compare": (
        "tasks.comparison.arm_choice:choose_arms",
        "tasks.comparison.criterion:error_on_pseudo_labels_deg",
        "tasks.comparison.predictions:read_predictions",
        "tasks.comparison.reporting.analysis:results_from_predictions",
        "simgan_core.quality.label_drift:pupil_shift_px",
    ),
}
"""Functions and classes that compute a stage's results, as `module:name`."""

_FORMATS = "storage.sources.formats"
"""Package of the source formats: found by file, so that no import of ingestion leads to them."""

_BOUNDARIES = (
    "tasks.runtime",
    "storage.atomic_file",
    "storage.errors",
    "storage.exclusive_lock",
    "storage.layout",
    "storage.location",
    "storage.manifest",
    "storage.raw_shards",
    "storage.replacement",
    "storage.verification",
    "storage.writer",
)
"""Code that schedules, reports, or carries bytes that digests and the layout's version guard."""


class Recipe(NamedTuple):
    """Recorded recipe of a stage."""

    version: int
    digest: str
    """Digest of the code when the version was recorded."""


def recipe_version(stage: Stage) -> int:
    """Return the version of a stage's recipe: a part of the ids of what the stage makes."""
    return _recorded()[stage].version


def changed_stages(root: Path = _ROOT) -> list[Stage]:
    """Return the stages whose code is not what was recorded, of the sources under `root`."""
    recorded = read_recipes(root)
    digests = _digests(root)
    return [
        stage
        for stage in STAGES
        if stage not in recorded or recorded[stage].digest != digests[stage]
    ]


def record(
    stages: list[Stage], outcome: Literal["results-changed", "results-unchanged"], root: Path
) -> None:
    """Record these stages' code; where results changed, as the next version."""
    recorded, digests = read_recipes(root), _digests(root)
    for stage in stages:
        version = recorded[stage].version if stage in recorded else 0
        if outcome == "results-changed" or version == 0:
            version += 1
        recorded[stage] = Recipe(version, digests[stage])
    lines = [
        f'{stage} = {{ version = {recorded[stage].version}, digest = "{recorded[stage].digest}" }}'
        for stage in STAGES
    ]
    (root / _RECORD).write_text("\n".join([_HEAD, *lines, ""]), "utf-8")


_HEAD = f"# Written by `{_COMMAND}`, which says what each line is for."
_LINE = re.compile(r'^(\w+) = \{ version = (\d+), digest = "(\w+)" \}$', re.MULTILINE)


def read_recipes(root: Path) -> dict[Stage, Recipe]:
    """Read the record; between the marks of a merge conflict, the higher version of each stage."""
    found: dict[Stage, Recipe] = {}
    for name, version, digest in _LINE.findall((root / _RECORD).read_text("utf-8")):
        if name in STAGES and (name not in found or int(version) > found[name].version):
            found[name] = Recipe(int(version), digest)
    return found


@cache
def _recorded() -> dict[Stage, Recipe]:
    return read_recipes(_ROOT)


def _digests(root: Path) -> dict[Stage, str]:
    reader = CodeReader(root, _BOUNDARIES)
    entries = {**_ENTRIES, "ingest": (*_ENTRIES["ingest"], *_format_options(root))}
    return {stage: reader.digest(entries[stage]) for stage in STAGES}


def _format_options(root: Path) -> list[str]:
    """Return the options model of every source format, which leads to its reader."""
    return [
        f"{_FORMATS}.{path.stem}:{name}"
        for path in sorted(root.joinpath(*_FORMATS.split(".")).glob("*.py"))
        for name in re.findall(r"^class (\w+Options)\(", path.read_text("utf-8"), re.MULTILINE)
    ]


def main() -> int:
    """Check or record; returns 1 where code has changed and nothing was recorded."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description="Check or record stages' recipes.")
    parser.add_argument("outcome", nargs="?", choices=("results-changed", "results-unchanged"))
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(STAGES))
    given = parser.parse_args()
    if unknown := set(given.stages) - set(STAGES):
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    changed = changed_stages()
    if given.outcome is not None:
        record(given.stages or changed, given.outcome, _ROOT)
        changed = changed_stages()
        versions = [f"{stage} {read_recipes(_ROOT)[stage].version}" for stage in STAGES]
        sys.stdout.write(f"recipes: {', '.join(versions)}\n")
    if changed:
        sys.stdout.write(explain(changed) + "\n")
    return 1 if changed else 0


def explain(changed: list[Stage]) -> str:
    """Return a message with what to do about stages whose code has changed."""
    return (
        f"the code that decides the results of {', '.join(changed)} has changed since its recipe "
        f"version was recorded; run `{_COMMAND} results-changed` if results differ (their ids then "
        f"differ, too), or `{_COMMAND} results-unchanged` if they are the same bits as before"
    )


if __name__ == "__main__":
    sys.exit(main())
