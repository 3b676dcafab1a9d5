"""Paths under SIMGAN_HOME, and the URLs of what is kept there."""

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from flows.cli.environment import prepare
from simgan_core.errors import InputError
from tasks.runtime.paths import sqlite_url

PRINTABLE = [chr(code) for code in range(32, 127) if chr(code) not in "/?"]


@pytest.mark.parametrize("dialect", ["sqlite", "sqlite+aiosqlite"])
@pytest.mark.parametrize("character", PRINTABLE)
def test_a_databases_url_names_its_path_whatever_characters_it_has(
    character: str, dialect: str
) -> None:
    path = Path(f"/data/a{character}b/{character}/mlflow.db")
    url = sqlite_url(path).replace("sqlite:", f"{dialect}:")
    assert make_url(url).database == str(path)
    assert not make_url(url).query


def test_a_home_with_a_question_mark_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path / "a?b"))
    with pytest.raises(InputError, match="SIMGAN_HOME"):
        prepare()
    assert list(tmp_path.iterdir()) == []
