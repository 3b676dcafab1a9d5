"""The tests marked `gpu`, their outcomes as JSON: `python -m benchmarks.gpu.tests --json FILE`."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results_file import ResultsFile

LONGEST_ERROR = 2000
"""Characters that are kept of the end of an error."""


class Outcomes:
    """Keep every test's outcome as soon as it is known: one that hangs hides no other."""

    def __init__(self, results: ResultsFile) -> None:
        self._results = results
        self._tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a test begins."""
        self._set(nodeid, {"outcome": "begun"})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the outcome of a test, or of what it needs where that failed or was skipped."""
        if report.when != "call" and report.passed:
            return
        test: dict[str, Any] = {"outcome": report.outcome, "seconds": round(report.duration, 2)}
        if isinstance(report.longrepr, tuple):  # where it was skipped: file, line, reason
            test["reason"] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            test["error"] = report.longreprtext[-LONGEST_ERROR:]
        self._set(report.nodeid, test)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Take a file that cannot be imported as a failed test."""
        if report.failed:
            error = report.longreprtext[-LONGEST_ERROR:]
            self._set(report.nodeid, {"outcome": "failed", "error": error})

    def _set(self, nodeid: str, test: dict[str, Any]) -> None:
        self._tests[nodeid] = test
        counts = Counter(test["outcome"] for test in self._tests.values())
        self._results.update({"counts": counts, "tests": self._tests})


def main() -> None:
    """Run them; files without such a test are not imported, for what they need may be missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the results")
    asked = parser.parse_args()
    files = [path for path in Path("tests").rglob("test_*.py") if "mark.gpu(" in path.read_text()]
    options = ["-m", "gpu", "-v", "--timeout=60", "-p", "no:cacheprovider"]
    options += ["--continue-on-collection-errors", *map(str, sorted(files))]
    raise SystemExit(pytest.main(options, plugins=[Outcomes(ResultsFile(asked.json))]))


if __name__ == "__main__":
    main()
