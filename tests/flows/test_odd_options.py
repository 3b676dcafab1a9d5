"""Odd options of every command: a sentence and exit code 2, or a flow with parameters it can keep.

The catalogue is the commands themselves: a new option is covered without a new test. Commands run
in this process, as far as the flow that they would start.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin
from unittest.mock import patch

import orjson
import pytest
from cyclopts import App
from cyclopts.argument import Argument
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect import Flow

from flows.cli.main import app, launch, main

NOT_STARTED = {
    *(("up",), ("ui",), ("status",), ("down",), ("doctor",), ("turing", "serve")),
}
"""Commands that would start or look for servers: their arguments alone are tried."""

ODD_TEXT = [
    *("", " ", "-", "--", "=", "0", "-1", "1.5", "3.0", "-0.0", "1e3", "1e400", "nan", "inf"),
    *("-inf", "NaN", "true", "None", "null", "[]", "{}", "1,2", "0x10", "1_000", "１２", "½", "∞"),
    *(str(2**31), str(2**63), str(-(2**63) - 1), str(10**30), "9" * 5000, "1" + "0" * 400),
    *("a\0b", "\udcff", "\n", "a\nb", "é" * 300, "x" * 5000, "../..", "/", "/dev/null", "~"),
    *("s3://", "s3:/bucket/x", "s3://bucket", "s3://bucket/x?y", "http://x/y", "file:", "ftp://x"),
    *("0x0", "0x55", "99999x55", "35x55x1", "-1x5", "1e2x5", "100%", "101%", "-1%", "%", "nan%"),
    *("p00", "p00,", ",", "models:/", "models:/x@y", "runs:/", "${x}", "{x}", "%(x)s", "'", '"'),
]
odd_text = st.sampled_from(ODD_TEXT) | st.text(max_size=20) | st.integers().map(str)
odd_text |= st.floats().map(repr) | st.integers(min_value=-(2**80), max_value=2**80).map(str)


class Command(NamedTuple):
    """A command and its arguments."""

    words: tuple[str, ...]
    arguments: list[Argument]


class ReachedError(SystemExit):
    """Raised where a flow would start."""


def commands(of: App, words: tuple[str, ...] = ()) -> Iterator[Command]:
    for name in of:
        if name.startswith("-"):
            continue
        command, path = of[name], (*words, name)
        if command.default_command is not None:
            found = command.assemble_argument_collection()
            yield Command(path, [each for each in found if not _has_parts(each)])
        yield from commands(command, path)


def _has_parts(argument: Argument) -> bool:
    return argument.name == "*" or bool(argument.children)


COMMANDS = list(commands(app))


def usual(argument: Argument) -> str:
    """Return text that an argument takes, so that odd options beside it are looked at."""
    if get_origin(argument.hint) is Literal:
        return str(get_args(argument.hint)[0])
    return "1" if argument.hint is int else "nothing-here"


@st.composite
def lines(draw: Callable[..., Any]) -> tuple[tuple[str, ...], list[str]]:
    """Draw a command line: what is required, and up to three odd options."""
    command = draw(st.sampled_from(COMMANDS))
    odd = (
        draw(st.lists(st.sampled_from(command.arguments), max_size=3)) if command.arguments else []
    )
    required = [each for each in command.arguments if each.required and each not in odd]
    words = []
    for argument in [*required, *odd]:
        value = draw(odd_text) if argument in odd else usual(argument)
        if argument.name.startswith("--"):
            words.append(f"{argument.name}={value}")
        else:
            words.append(value)
    return command.words, words


def run(words: list[str], folder: Path) -> tuple[int, str]:
    """Run a command in a folder, in this process; returns its exit code and what it said."""

    def reached(flow: Any, *args: Any, **kwargs: Any) -> Any:
        from prefect.utilities.callables import get_call_parameters  # noqa: PLC0415

        parameters = get_call_parameters(flow.fn, args, kwargs)
        flow.validate_parameters(parameters)
        orjson.dumps(flow.serialize_parameters(parameters))
        raise ReachedError(0)

    said = StringIO()
    before, here = sys.argv, Path.cwd()
    os.chdir(folder)
    sys.argv = ["simgan", *words]
    try:
        with (
            patch.object(Flow, "__call__", reached),
            patch("flows.cli.main.prefect_for_flows", lambda _home: nullcontext()),
            patch.dict(os.environ, {"SIMGAN_HOME": str(folder.parent / "home")}),
            redirect_stderr(said),
            redirect_stdout(said),
        ):
            main()
    except SystemExit as ended:
        return int(ended.code or 0), said.getvalue()
    finally:
        sys.argv = before
        os.chdir(here)
    return 0, said.getvalue()


def check(line: tuple[tuple[str, ...], list[str]], folder: Path) -> None:
    command, options = line
    words = [*command, *options]
    if command in NOT_STARTED:
        with patch.object(type(app), "parse_args", _parse_only(app)):
            code, said = run(words, folder)
    else:
        code, said = run(words, folder)
    assert code in (0, 2), said[-2000:]
    assert "Traceback" not in said
    if code == 2:
        assert said.splitlines()[-1].strip() or said.strip()
        assert "error:" in said
        assert list(folder.iterdir()) == []
    for left in folder.iterdir():
        left.unlink()


def _parse_only(of: App) -> Callable[..., Any]:
    parse = type(of).parse_args

    def parsed(*args: Any, **kwargs: Any) -> Any:
        _, bound, ignored = parse(*args, **kwargs)
        return lambda *_, **__: None, bound, ignored

    return parsed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("odd") / "here"
    made.mkdir()
    return made


COMMON = settings(
    database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@settings(COMMON, max_examples=200, derandomize=True)
@given(line=lines())
def test_odd_options_are_refused_in_a_sentence_or_can_be_kept(
    line: tuple[tuple[str, ...], list[str]], folder: Path
) -> None:
    check(line, folder)


@pytest.mark.drill
@pytest.mark.timeout(3600)
@settings(COMMON, max_examples=2000)
@given(line=lines())
def test_thousands_of_odd_options_are_refused_in_a_sentence_or_can_be_kept(
    line: tuple[tuple[str, ...], list[str]], folder: Path
) -> None:
    check(line, folder)


def test_every_command_is_in_the_catalogue() -> None:
    found = {command.words for command in COMMANDS}
    assert found >= NOT_STARTED
    assert {("train",), ("refine",), ("ingest", "arrays"), ("simulate", "real")} <= found
    assert callable(launch)


WHOLE = [
    (command, argument)
    for command in COMMANDS
    for argument in command.arguments
    if argument.hint is int and argument.name.startswith("--")
]


@pytest.mark.parametrize(
    ("command", "argument"),
    WHOLE,
    ids=lambda each: getattr(each, "name", None) or "-".join(each[0]),
)
def test_a_fraction_for_a_whole_number_is_refused_by_name(
    command: Command, argument: Argument, folder: Path
) -> None:
    required = [
        f"{each.name}={usual(each)}" if each.name.startswith("--") else usual(each)
        for each in command.arguments
        if each.required and each != argument
    ]
    for option in ([f"{argument.name}=3.5"], [argument.name, "3.5"]):
        code, said = run([*command.words, *required, *option], folder)
        assert code == 2
        assert f"{argument.name} is '3.5': expected a whole number" in said
