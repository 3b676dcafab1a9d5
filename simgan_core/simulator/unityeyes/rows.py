"""Rows of dataclasses whose fields are arrays [N, ...], or such dataclasses again."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

RowsT = TypeVar("RowsT")


def choose(table: RowsT, rows: slice | NDArray[np.intp]) -> RowsT:
    """Return the chosen rows of every array."""
    return _each(lambda arrays: arrays[0][rows], [table])


def convert(table: RowsT, function: Callable[[NDArray[Any]], Any]) -> RowsT:
    """Return a table with a function applied to every array."""
    return _each(lambda arrays: function(arrays[0]), [table])


def join(tables: Sequence[RowsT]) -> RowsT:
    """Return tables one after the other."""
    return _each(np.concatenate, tables)


def _each(function: Any, tables: Sequence[RowsT]) -> RowsT:
    first: Any = tables[0]
    made: dict[str, Any] = {}
    for field in fields(first):
        values = [getattr(table, field.name) for table in tables]
        nested = is_dataclass(values[0])
        made[field.name] = _each(function, values) if nested else function(values)
    return type(first)(**made)  # type: ignore[no-any-return]
