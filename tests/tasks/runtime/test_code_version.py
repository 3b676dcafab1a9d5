"""Runs and results name the code that made them: in a checkout, in a package, in neither."""

import subprocess
from pathlib import Path

import pytest

from tasks.runtime.code_version import CodeVersion, read_code_version

SOURCE = "tasks/runtime/paths.py"
BUILD = "tasks/runtime/build.toml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / SOURCE).parent.mkdir(parents=True)
    (tmp_path / SOURCE).write_text("x = 1\n")
    return tmp_path


def git(root: Path, *arguments: str) -> str:
    name = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    return subprocess.run(
        ["git", *name, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(root: Path) -> Path:
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


def test_a_checkout_names_its_commit(checkout: Path) -> None:
    found = read_code_version(checkout)
    assert found.commit == git(checkout, "rev-parse", "HEAD")
    assert found.dirty is False


def test_a_changed_file_of_the_packages_makes_a_checkout_dirty(checkout: Path) -> None:
    (checkout / SOURCE).write_text("x = 2\n")
    assert read_code_version(checkout).dirty is True


def test_files_outside_the_packages_do_not_make_it_dirty(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("mine")
    assert read_code_version(checkout).dirty is False


@pytest.mark.parametrize(
    ("version", "dirty"),
    [("0.2.0", False), ("0.2.1.dev3+gabc123def", False), ("0.2.1.dev3+gabc123def.d20261128", True)],
)
def test_a_package_names_the_commit_that_it_was_built_from(
    root: Path, version: str, dirty: bool
) -> None:
    (root / BUILD).write_text(f'version = "{version}"\ncommit = "gabc123def"\n')
    assert read_code_version(root) == CodeVersion(version, "abc123def", dirty)


def test_a_package_built_without_git_has_no_commit(root: Path) -> None:
    (root / BUILD).write_text('version = "0.0.0"\ncommit = "None"\n')
    assert read_code_version(root) == CodeVersion("0.0.0", None, None)
    assert "mlflow.source.git.commit" not in read_code_version(root).tags()


def test_runs_bear_version_commit_and_state(checkout: Path) -> None:
    found = read_code_version(checkout)
    assert found.tags() == {
        "simgan.version": found.version,
        "mlflow.source.git.commit": found.commit,
        "simgan.dirty": "false",
    }
