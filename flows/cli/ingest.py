"""`simgan ingest`: one command per source format, made from the format's options.

A format's module is imported when its command is used, and everything else that is heavy inside
the command, so that help answers at once.
"""

# ruff: noqa: PLC0415

import re
from collections.abc import Callable
from inspect import Parameter as Argument
from inspect import Signature
from typing import Annotated, Any, Literal, get_args

from cyclopts import App, Parameter, validators
from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from flows.cli.outcome import Outcome, dataset_outcome
from simgan_core.config import Config
from simgan_core.errors import InputError
from storage.schema import Preprocess
from storage.sources.registry import describe_format, format_names, options_of

_SIDE = re.compile(r"[0-9]{1,9}")
_UNIT = re.compile(r"_(deg|px|mm|s)$")
_COMMAND = "ingest_"
_BOUNDS = {"ge": "gte", "gt": "gt", "le": "lte", "lt": "lt"}
"""pydantic's names of a number's bounds, and cyclopts'."""


class Storing(Config):
    """Destination of the samples, and how they are stored: the same for every format."""

    to: str
    """Path or URL of the dataset."""
    preprocess: Preprocess = "none"
    """Histogram equalisation, as MPIIGaze's images have it, or none."""
    max_bad: str = "1%"
    """Largest share of bad samples; beyond it the ingestion fails and keeps nothing."""
    rows_per_shard: int = Field(default=16384, ge=1, le=1 << 24)
    """Number of images in a shard, the unit of resuming; choose fewer for large images."""
    append: bool = False
    """Read and add only the samples whose ids the dataset does not have."""
    overwrite: bool = False
    """Replace an existing dataset."""
    runner: Literal["local", "dask"] = "local"
    """Decode in this process, or by Dask's workers."""
    workers: int | None = Field(default=None, ge=1, le=1024)
    """With dask: number of workers to start on this machine."""
    dask_address: str | None = None
    """With dask: address of a running cluster's scheduler, tcp://HOST:PORT."""


def ingest_app() -> App:
    """Return the command with one subcommand per format, imported on use."""
    app = App(name="ingest", help="Convert images and labels of a format into a dataset.")
    for name in format_names():
        app.command(f"{__name__}:{_COMMAND}{name}", name=name, help=describe_format(name))
    return app


def __getattr__(name: str) -> Callable[..., Outcome]:
    """Return the command `ingest_FORMAT`, which cyclopts looks up when it is used."""
    if not name.startswith(_COMMAND):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return _command(name.removeprefix(_COMMAND))


def _command(name: str) -> Callable[..., Outcome]:
    """Make a format's command; its options are the fields of the format's options model.

    The first required field is an argument. Height and width, or a pair, are --size HEIGHTxWIDTH;
    names of units are left out (head_limit_deg is --head-limit).
    """
    options = options_of(name)
    fields = {name: field for name, field in options.model_fields.items() if name != "format"}
    place = next(name for name, field in fields.items() if field.is_required())

    def command(first: Any, *, storing: Storing, **given: Any) -> Outcome:
        values = {place: first, **given}
        if isinstance(values.get("size"), str):
            height, width = height_and_width(values.pop("size"))
            values |= (
                {"size": (height, width)}
                if "size" in fields
                else {"height": height, "width": width}
            )
        for key, value in values.items():
            if isinstance(value, str) and _is_list(fields[key]):
                values[key] = tuple(filter(None, map(str.strip, value.split(","))))
        try:
            source = options.model_validate(values)
        except ValidationError as error:
            raise InputError(_refusal(error)) from error
        return _ingest(source, storing)

    arguments = [
        Argument(
            name,
            Argument.POSITIONAL_OR_KEYWORD if name == place else Argument.KEYWORD_ONLY,
            default=Argument.empty if field.is_required() else field.default,
            annotation=_annotation(name, field),
        )
        for name, field in fields.items()
        if name not in ("height", "width")
    ]
    if "height" in fields:
        default = f"{fields['height'].default}x{fields['width'].default}"
        shown = Parameter(help="Height x width of the stored images, in pixels.")
        arguments.append(
            Argument(
                "size", Argument.KEYWORD_ONLY, default=default, annotation=Annotated[str, shown]
            )
        )
    arguments.append(
        Argument(
            "storing", Argument.KEYWORD_ONLY, annotation=Annotated[Storing, Parameter(name="*")]
        )
    )
    arguments.sort(key=lambda argument: argument.name != place)
    command.__annotations__.clear()
    command.__signature__ = Signature(arguments)  # type: ignore[attr-defined]
    command.__doc__ = options.__doc__
    return command


def _annotation(name: str, field: FieldInfo) -> Any:
    """Return an option's type on the command line, with its name, help and bounds."""
    hint, text = field.annotation, " ".join((field.description or "").split())
    if name == "size":
        hint, text = str | None, f"{text} As HEIGHTxWIDTH, such as 35x55."
    elif _is_list(field):
        hint, text = str | None, f"{text} Separated by commas."
    bounds = {
        known: getattr(bound, ours)
        for bound in field.metadata
        for ours, known in _BOUNDS.items()
        if hasattr(bound, ours)
    }
    validator = validators.Number(**bounds) if bounds else None
    return Annotated[hint, Parameter(name=_option(name), help=text, validator=validator)]


def _option(name: str) -> str:
    return f"--{_UNIT.sub('', name).replace('_', '-')}"


def _refusal(error: ValidationError) -> str:
    """Return which options are refused, by their names on the command line, and why."""
    reasons = []
    for each in error.errors(include_url=False, include_context=False):
        name, reason = "".join(map(str, each["loc"][:1])), each["msg"].removeprefix("Value error, ")
        if name in ("height", "width"):
            reason = f"--size: {name}: {reason}, found {each['input']}"
        elif name:
            reason = f"{_option(name)}: {reason}, found {each['input']!r}"
        reasons.append(reason)
    return "; ".join(reasons)


def _is_list(field: FieldInfo) -> bool:
    """Return true for a tuple of any length, or None."""
    return any(
        Ellipsis in get_args(each) for each in (field.annotation, *get_args(field.annotation))
    )


def _ingest(source: Any, storing: Storing) -> Outcome:
    from flows.ingest import ingest
    from tasks.runtime.policies import Runner

    info = ingest(
        source,
        storing.to,
        storing.preprocess,
        _share(storing.max_bad),
        storing.rows_per_shard,
        storing.overwrite,
        storing.append,
        Runner(kind=storing.runner, workers=storing.workers, dask_address=storing.dask_address),
    )
    return dataset_outcome(info)


def height_and_width(text: str) -> tuple[int, int]:
    """Return the numbers of --size HEIGHTxWIDTH; raises InputError for other text."""
    height, times, width = text.lower().partition("x")
    if not (times and _SIDE.fullmatch(height) and _SIDE.fullmatch(width)):
        raise InputError(f"--size {text}: expected height x width in pixels, such as 35x55")
    return int(height), int(width)


def _share(text: str) -> float:
    number, scale = (text[:-1], 100.0) if text.endswith("%") else (text, 1.0)
    try:
        share = float(number) / scale
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"--max-bad {text}: expected a share such as 1% or 0.01")
    return share
