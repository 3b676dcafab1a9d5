"""Checks and help groups of arguments, shared by all commands."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number
from pydantic import BaseModel, ValidationError

from simgan_core.config import MAX_SEED, EstimatorConfig, TrainingConfig
from simgan_core.errors import InputError

Count = Annotated[int, Parameter(validator=Number(gte=1, lte=10_000_000))]
Seed = Annotated[int, Parameter(validator=Number(gte=0, lte=MAX_SEED))]
Seeds = Annotated[int, Parameter(validator=Number(gte=1, lte=100))]
RunnerKind = Annotated[
    Literal["local", "dask"],
    Parameter(help="Where the work is done: in this process, or by Dask's workers."),
]
Workers = Annotated[
    int | None,
    Parameter(
        validator=Number(gte=1, lte=1024),
        help="With dask: number of workers to start on this machine.",
    ),
]
DaskAddress = Annotated[
    str | None,
    Parameter(help="With dask: address of a running cluster's scheduler, tcp://HOST:PORT."),
]
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))]

COMMON = Group("Options of every command", sort_key=4)
COMPARISON = Group("Comparison", sort_key=1)
ESTIMATOR = Group("Estimator", sort_key=2)
TRAINING = Group("Training; defaults are those of the preset", sort_key=3)
Estimator = Annotated[EstimatorConfig, Parameter(group=ESTIMATOR)]
# The defaults of `TrainingConfig` are not shown, since a preset replaces them.
Training = Annotated[TrainingConfig, Parameter(group=TRAINING, show_default=False)]
FLAT = Parameter(name="*")

_MAX_INT = 2**63 - 1
"""Prefect's and MLflow's databases keep whole numbers in 64 bits."""

_FRACTION = re.compile(r"[+-]?\d*\.\d*")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_TOO_LONG = re.compile(r"\d{100,}")


def require_whole_numbers(app: App, tokens: tuple[str, ...]) -> None:
    """Refuse a fraction for an option that takes a whole number, which cyclopts would round.

    Also refuse a number of more digits than Python turns into one.
    """
    _, apps, rest = app.parse_commands(tokens, include_parent_meta=False)
    if apps[-1].default_command is None:
        return
    whole = {
        name
        for argument in apps[-1].assemble_argument_collection()
        if _takes_whole_numbers(argument.hint)
        for name in argument.names
    }
    for token, after in pairwise([*rest, ""]):
        name, equals, value = token.partition("=")
        value = value if equals else after
        if name in whole and (_is_fraction(value) or _TOO_LONG.search(value)):
            raise InputError(f"{name} is {_shown(value)}: expected a whole number")


def require_not_empty(tokens: Sequence[str]) -> None:
    """Refuse empty arguments: an empty path would mean the current folder."""
    for before, token in pairwise(["", *tokens]):
        name, equals, value = token.partition("=")
        if token == "" or (name.startswith("--") and equals and not value):
            option = name or (before if before.startswith("--") else "an argument")
            raise InputError(f"{option} is '': expected a value; leave it out for the default")


def require_usable(arguments: Mapping[str, Any]) -> None:
    """Refuse values that no option accepts: numbers out of range, and text that is not Unicode.

    Also refuse a URL for a path on this machine.
    """
    for name, value in _leaves(arguments):
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, int) and abs(value) > _MAX_INT:
            raise InputError(f"{option} is {_shown(value)}: expected a number within 64 bits")
        if isinstance(value, float) and not abs(value) < sys.float_info.max:
            raise InputError(f"{option} is {value}: expected a finite number")
        if isinstance(value, str | Path):
            _require_text(option, str(value))
        if isinstance(value, Path) and _URL.match(str(value)):
            raise InputError(
                f"{option} is {str(value)!r}: expected a path on this machine, and no URL"
            )


def in_a_sentence(error: ValidationError) -> str:
    """Return which settings are refused, why, and what was found."""
    reasons = []
    for each in error.errors(include_url=False, include_context=False):
        # A rule about several settings names them itself, and is of none of them.
        where = ".".join(map(str, each["loc"]))
        reason = each["msg"].removeprefix("Value error, ")
        found = "" if isinstance(each["input"], dict) else f", found {_shown(each['input'])}"
        reasons.append((f"{where}: " if where else "") + reason + found)
    return "; ".join(reasons)


def _require_text(option: str, text: str) -> None:
    if "\0" in text:
        raise InputError(f"{option} is {text!r}: expected text without a null character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{option} is {text!r}: expected UTF-8; rename the file or folder"
        ) from None


def _takes_whole_numbers(hint: Any) -> bool:
    kinds = set(_types(hint))
    return int in kinds and float not in kinds and str not in kinds


def _types(hint: Any) -> Iterator[Any]:
    yield hint
    for each in get_args(hint):
        # Of a Literal the arguments are its values.
        yield from _types(type(each) if isinstance(each, int | str) else each)


def _is_fraction(text: str) -> bool:
    return bool(_FRACTION.fullmatch(text)) and text.strip("+-.") != "" and not _is_whole(text)


def _is_whole(text: str) -> bool:
    return float(text).is_integer()


def _leaves(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield single values by their dotted names."""
    if isinstance(values, BaseModel):
        values = {each: getattr(values, each) for each in type(values).model_fields}
    if isinstance(values, Mapping):
        for each, value in values.items():
            yield from _leaves(value, f"{name}.{each}" if name else str(each))
    elif isinstance(values, Iterable) and not isinstance(values, str | Path):
        for value in values:
            yield from _leaves(value, name)
    else:
        yield name, values


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
