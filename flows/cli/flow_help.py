"""Help of commands' options, taken from the docstrings of the flows that they run."""

import ast
import inspect
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., Any])

FLOWS = Path(__file__).parents[1]
_SECTION = "\n\nParameters\n----------\n"


@cache
def parameter_help(module: str, flow: str) -> dict[str, str]:
    """Return the descriptions under `Args:` of a flow in `flows`, by parameter.

    The source is parsed, not imported: Prefect takes seconds to load.
    """
    tree = ast.parse((FLOWS / f"{module}.py").read_text(encoding="utf-8"))
    (function,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == flow
    )
    _, _, described = (ast.get_docstring(function) or "").partition("Args:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", described.split("\n\n")[0], re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in found}


def described_by(module: str, flow: str) -> Callable[[Command], Command]:
    """Give a command's options the descriptions of the flow's parameters of the same names.

    Those in the command's own docstring stay. A flow's parameter in backticks becomes an option.
    """

    def described(command: Command) -> Command:
        summary, _, own = inspect.cleandoc(command.__doc__ or "").partition(_SECTION)
        known = set(re.findall(r"^\w+$", own, re.MULTILINE))
        texts = parameter_help(module, flow)
        wanted = [
            name for name in inspect.signature(command).parameters if name in texts.keys() - known
        ]
        lines = [f"{name}\n    {_with_options(texts[name], texts)}" for name in wanted]
        command.__doc__ = summary + _SECTION + "\n".join([own, *lines] if own else lines)
        return command

    return described


def _with_options(text: str, parameters: dict[str, str]) -> str:
    def option(found: "re.Match[str]") -> str:
        name = found[1]
        return f"--{name.replace('_', '-')}" if name in parameters else found[0]

    return re.sub(r"`(\w+)`", option, text)
