"""All parts of `benchmarks/gpu.sh` in one JSON: `python -m benchmarks.gpu.summary PARTS FILE`.

PARTS is the folder of each part's NAME.status, NAME.log and, if it measured anything, NAME.json.
Needs Python's own library alone, and is run after each part.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

FLOP_OF_STEP = 3.47e9
"""Of a refiner step with the paper's networks, an image of 35×55, by PyTorch's counter."""
END_TO_END = "end to end, zarr to zarr"
EYES = "80x120, 2 samples"
LOG_TAIL = 3000
"""Characters that are kept of the end of a part's log."""


class Goal(NamedTuple):
    """A figure, and what it has to reach; None where it was not measured."""

    name: str
    found: float | None
    at_least: float

    def as_json(self) -> dict[str, Any]:
        """Return it with whether it is met."""
        met = self.found is not None and self.found >= self.at_least
        return {**self._asdict(), "met": met}


def main() -> None:
    """Write the file, whole or not at all; goals are a GPU's."""
    folder, out = map(Path, sys.argv[1:])
    parts = {status.stem: _part(status) for status in sorted(folder.glob("*.status"))}
    results = {name: part["results"] for name, part in parts.items()}
    on_gpu = results.get("machine", {}).get("kind") == "cuda"
    found = {
        "goals": [goal.as_json() for goal in goals(results)] if on_gpu else [],
        "parts": parts,
    }
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1))
    partial.replace(out)


def _part(status: Path) -> dict[str, Any]:
    results = status.with_suffix(".json")
    log = status.with_suffix(".log").read_text(errors="replace")
    return {
        **json.loads(status.read_text()),
        "results": json.loads(results.read_text()) if results.exists() else {},
        "log_tail": log[-LOG_TAIL:],
    }


def goals(results: dict[str, dict[str, Any]]) -> list[Goal]:
    """Return what was aimed at, from the results of the parts by name."""
    machine, tests, rates, train, eyes = (
        results.get(name, {}) for name in ("machine", "tests", "rates", "train", "eyes")
    )
    outcomes = tests.get("counts", {})
    end_to_end = rates.get("a_second", {}).get(END_TO_END)
    steps = train.get("refiner_steps_a_second")
    share = None
    if steps and "bf16_matrix_tflops" in machine:
        flops = steps["ours"] * train["batch_size"] * FLOP_OF_STEP
        share = flops / (machine["bf16_matrix_tflops"] * 1e12)
    return [
        Goal(
            "share of GPU tests that pass",
            outcomes.get("passed", 0) / sum(outcomes.values()) if outcomes else None,
            1,
        ),
        Goal("images a second, end to end", max(end_to_end) if end_to_end else None, 150_000),
        *(
            Goal(name, rates.get(name), at_least)
            for name, at_least in (
                ("end to end / computing alone", 0.8),
                ("computing alone / bf16 matrix rate", 0.46),
            )
        ),
        Goal("training / plain loop", train.get("ratio"), 8),
        Goal("training / bf16 matrix rate", share, 0.35),
        Goal("eyes rendered a second", eyes.get("images_a_second", {}).get(EYES), 10_000),
    ]


if __name__ == "__main__":
    main()
