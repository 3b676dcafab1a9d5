"""Results of a benchmark as JSON, whole after every update: what was measured survives a kill."""

import json
from pathlib import Path
from typing import Any


class ResultsFile:
    """Results by name, in a file, or in memory alone where no path is given."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.values: dict[str, Any] = {}

    def update(self, values: dict[str, Any]) -> None:
        """Add results, or replace those of the same names."""
        self.values |= values
        if self._path is not None:
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps(self.values, indent=1))
            partial.replace(self._path)
