"""Files that a training's settings name: their content decides its id, not their place.

A worker on another machine gets them as content (`contents_of`), and keeps them under its own
SIMGAN_HOME.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from operator import attrgetter
from pathlib import Path

from simgan_core.config import NAMED_FILES, TrainingConfig
from simgan_core.errors import InputError
from storage.atomic_file import atomic_write
from tasks.runtime.paths import home


def contents_of(config: TrainingConfig) -> dict[str, bytes]:
    """Read the files that settings name, by path; raises InputError for one that is not there."""
    return {path: _read(path) for path in _named(config).values()}


def identity_of(config: TrainingConfig) -> dict[str, object]:
    """Return settings and digests of the files that they name, in which no path is left."""
    digests = {field: sha256(_read(path)).hexdigest() for field, path in _named(config).items()}
    settings = _renamed(config, lambda _: None).model_dump(mode="json")
    return {"config": settings, "networks": [list(each) for each in digests.items()]}


def with_received(config: TrainingConfig, contents: Mapping[str, bytes]) -> TrainingConfig:
    """Keep files that came as content on this machine, and name them in the settings."""
    folder = home() / "received"

    def received(path: str) -> str:
        content = contents[path]
        kept = folder / f"{sha256(content).hexdigest()}{Path(path).suffix}"
        if not kept.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(kept) as partial:
                partial.write_bytes(content)
        return str(kept)

    return _renamed(config, received)


def _named(config: TrainingConfig) -> dict[str, str]:
    """Return the paths that settings name, by the field."""
    named = {field: attrgetter(field)(config) for field in NAMED_FILES}
    return {field: path for field, path in named.items() if path is not None}


def _renamed(config: TrainingConfig, rename: Callable[[str], str | None]) -> TrainingConfig:
    """Return the settings with other paths in the fields that name a file."""
    changed: dict[str, object] = {}
    for field, path in _named(config).items():
        group, _, name = field.rpartition(".")
        value: object = rename(path)
        if group:
            value = getattr(config, group).model_copy(update={name: value})
        changed[group or name] = value
    return config.model_copy(update=changed)


def _read(path: str) -> bytes:
    if not Path(path).is_file():
        raise InputError(f"there is no file {path}, which the training's settings name")
    return Path(path).read_bytes()
