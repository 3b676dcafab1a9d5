"""The pull step of deployments: code is loaded before the team's folder is entered."""

import os
import pkgutil
import sys
from pathlib import Path

import pytest

import flows
from flows.deployment import enter_folder


def test_a_folder_with_modules_of_its_own_is_entered_after_ours_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    for name in ("tasks", "storage", "token"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported from the data')\n")
    assert enter_folder(str(tmp_path)) == {"directory": str(tmp_path)}
    assert Path.cwd() == tmp_path
    loaded = {f"flows.{module.name}" for module in pkgutil.iter_modules(flows.__path__)}
    assert loaded <= set(sys.modules)
    for name in ("tasks", "storage"):
        assert not str(sys.modules[name].__file__).startswith(str(tmp_path) + os.sep)
