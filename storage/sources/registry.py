"""Registry of source formats: the modules of `storage.sources.formats`, and what is registered.

The format `eye-gaze` is the module `eye_gaze`, whose first line describes it. Names and
descriptions are found without importing a module: decoding libraries load where a source is used.
"""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import TypeVar

from storage.errors import SourceError
from storage.sources.options import SourceOptions

Options = TypeVar("Options", bound=SourceOptions)

_FORMATS = "storage.sources.formats"
"""Imported by name: its modules import this one."""

_REGISTERED: dict[str, type[SourceOptions]] = {}
_FIRST_LINE = re.compile(r'\s*"""(.*?)(?:"""|\n|$)')


def register(options: type[Options]) -> type[Options]:
    """Register a format by its options; a class decorator.

    A format of another package is registered before `flows` is imported, whose forms list them.
    Raises ValueError where the format's name is taken.
    """
    name = options.model_fields["format"].default
    known = _REGISTERED.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (
        options.__module__,
        options.__qualname__,
    ):
        raise ValueError(
            f"the source format {name!r} is registered by {known.__module__}; give {options} "
            "another name"
        )
    _REGISTERED[name] = options
    return options


def format_names() -> list[str]:
    """Return the names of all formats, sorted; imports none of them."""
    return sorted({*_REGISTERED, *_module_files()})


def describe_format(name: str) -> str:
    """Return a format's description: the first line of its module, which is not imported."""
    path = _module_files().get(name)
    if path is None:
        return (_REGISTERED[name].__doc__ or "").partition("\n")[0]
    with path.open(encoding="utf-8") as file:
        found = _FIRST_LINE.match(file.readline())
    return "" if found is None else found[1]


def options_of(name: str) -> type[SourceOptions]:
    """Import a format and return its options; raises SourceError where there is none."""
    if name not in _REGISTERED and name in _module_files():
        importlib.import_module(f"{_FORMATS}.{name.replace('-', '_')}")
    if name not in _REGISTERED:
        raise SourceError(
            f"there is no source format {name!r}; there are: {', '.join(format_names())}. A module "
            "of a format registers options whose `format` is the module's name"
        )
    return _REGISTERED[name]


def _module_files() -> dict[str, Path]:
    """Return the modules' files by the formats' names."""
    return {
        module.name.replace("_", "-"): Path(folder) / f"{module.name}.py"
        for folder in importlib.import_module(_FORMATS).__path__
        for module in pkgutil.iter_modules([folder])
    }
