"""Prefect forms of deployments: titles, order, and help that lists presets and datasets.

Prefect draws a form from the flow's parameters alone; it knows neither the presets nor which
datasets were made. They are named in the help under the fields, as of the last `simgan up`.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from simgan_core.config import DEFAULT_PRESET, PRESETS
from storage.errors import StorageError
from storage.reader import open_dataset

MAX_NAMED = 8
MAX_OPENED = 50
_DATASETS = ("dataset", "synthetic", "refined", "real", "test", "train", "unlabelled")
"""Parameters that name a dataset where their value is text."""
_AFTER = {"append": "to", "overwrite": "to", "seeds": "estimator"}
"""Parameters that are shown right after another one."""


def with_what_exists(schema: Mapping[str, Any], datasets: Mapping[str, str]) -> dict[str, Any]:
    """Return a form's schema with titles, ordered fields, and existing datasets in the help.

    `datasets` are descriptions by place, as `datasets_below` returns them.
    """
    changed = deepcopy(dict(schema))
    properties = changed.get("properties", {})
    for name, field in properties.items():
        field["title"] = name.replace("_", " ").capitalize()
        if name in _DATASETS and _is_text(field):
            _add_help(field, "Here:", _listed(datasets))
        if field.get("$ref", "").endswith("/TrainingConfig"):
            _add_help(field, f"Presets, against `{DEFAULT_PRESET}`:", _presets())
    for place, name in enumerate(_ordered(list(properties))):
        properties[name]["position"] = place
    return changed


def datasets_below(folder: Path) -> dict[str, str]:
    """Return domain and number of images of the complete datasets of a folder, by relative path.

    The newest first, of the folder itself and those in it: deeper ones may hold millions of files.
    """
    # A link to a disk that is not mounted exists not.
    matches = [*folder.glob("*.zarr"), *folder.glob("*/*.zarr")]
    places = [place for place in matches if place.exists()]
    found = {}
    for place in sorted(places, key=lambda each: each.stat().st_mtime, reverse=True)[:MAX_OPENED]:
        try:
            info = open_dataset(str(place)).info
        except StorageError:
            continue
        found[str(place.relative_to(folder))] = f"{info.spec.domain}, {info.num_valid:,} images"
    return found


def _is_text(field: Mapping[str, Any]) -> bool:
    return any(each.get("type") == "string" for each in (field, *field.get("anyOf", [])))


def _add_help(field: dict[str, Any], label: str, text: str) -> None:
    """Add a paragraph below a field's help, in place of one that begins with the same label."""
    before = str(field.get("description", "")).partition(f"\n\n{label}")[0]
    field["description"] = f"{before}\n\n{label} {text}" if text else before


def _listed(datasets: Mapping[str, str]) -> str:
    named = [f"{place} ({what})" for place, what in list(datasets.items())[:MAX_NAMED]]
    more = len(datasets) - len(named)
    return ", ".join(named) + (f", and {more} more" if more else "")


def _presets() -> str:
    default = dict(_leaves(PRESETS[DEFAULT_PRESET].model_dump(mode="json")))
    shown = []
    for name, preset in PRESETS.items():
        # A training of the convolutional family leaves its name out.
        values = {"family": "convolutional"} | dict(_leaves(preset.model_dump(mode="json")))
        differing = [f"{key} {value}" for key, value in values.items() if value != default.get(key)]
        if differing:
            shown.append(f"{name} has {', '.join(differing)}")
    return "; ".join(shown)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _ordered(names: list[str]) -> list[str]:
    """Return the parameters in their order, those of `_AFTER` moved behind the other one."""
    kept = [name for name in names if _AFTER.get(name) not in names]
    for name in names:
        if name not in kept:
            kept.insert(kept.index(_AFTER[name]) + 1, name)
    return kept
