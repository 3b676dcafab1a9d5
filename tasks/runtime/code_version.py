"""Version, commit and dirty state of the running code, for the provenance of results.

Recipe versions (`tasks.runtime.recipes`) decide whether results are reused; these only record where
they come from.
"""

import re
import subprocess
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[2]
_BUILD = Path(__file__).with_name("build.toml")
"""Written by setuptools-scm as a package is built; in a checkout git is asked instead."""
_PACKAGES = ("flows", "tasks", "simgan_core", "storage")


class CodeVersion(NamedTuple):
    """Version of the code."""

    version: str
    """Of the installed package, from the tags; "unknown" where it is not installed."""
    commit: str | None
    """In hexadecimal, of a built package the first 9 digits; None where it is not known."""
    dirty: bool | None
    """True where tracked files of the packages differ from the commit; None without a commit."""

    def tags(self) -> dict[str, str]:
        """Return the version as tags of an MLflow run."""
        tags = {"simgan.version": self.version}
        if self.commit is not None:
            tags["mlflow.source.git.commit"] = self.commit
            tags["simgan.dirty"] = str(self.dirty).lower()
        return tags


@cache
def code_version() -> CodeVersion:
    """Return the code version, read once in each process."""
    return read_code_version(_ROOT)


def read_code_version(root: Path) -> CodeVersion:
    """Read the version from git where `root` is a checkout, else from the package's record."""
    try:
        installed = version("simgan")
    except PackageNotFoundError:
        installed = "unknown"
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *_PACKAGES)
        if commit and changes is not None:
            return CodeVersion(installed, commit, bool(changes))
    try:
        built = tomllib.loads((root / _BUILD.relative_to(_ROOT)).read_text("utf-8"))
    except FileNotFoundError:
        return CodeVersion(installed, None, None)
    return _of_build(**built)


def _of_build(version: str, commit: str) -> CodeVersion:
    """Parse setuptools-scm's record: commits begin with g, dirty versions end in a date."""
    if commit == "None":
        return CodeVersion(version, None, None)
    is_dirty = re.search(r"[.+]d\d{8}$", version) is not None
    return CodeVersion(version, commit.removeprefix("g"), is_dirty)


def _git(root: Path, *arguments: str) -> str | None:
    """Return the output of a git command; None where it fails or git is not installed."""
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
