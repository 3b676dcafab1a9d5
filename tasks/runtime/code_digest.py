"""Digest of the code that a function reaches: syntax trees, without docstrings and comments.

Names are followed statically through the definitions of the project's own packages. The digest is
of a set of definitions, so that it changes neither with formatting, docstrings, comments and type
comments, nor when a definition moves to another module; it is the same on every Python version.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("flows", "tasks", "simgan_core", "storage")

_WITHOUT_MEANING = {"ctx", "kind", "type_comment", "type_params"}
"""Fields of syntax nodes that are the same for the same code, or that not every Python has."""


@dataclass
class _Module:
    statements: dict[str, list[ast.stmt]] = field(default_factory=dict)
    """Top-level statements by the names that they define."""
    nameless: list[ast.stmt] = field(default_factory=list)
    """Top-level statements that define no name, such as calls."""
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """By local name: the module, and the name in it if it is not the module itself."""


class CodeReader:
    """Parse the project's packages under `root` and digest what functions of them reach.

    Modules named in `boundaries`, and those below them, are neither followed nor digested.
    """

    def __init__(self, root: Path, boundaries: Iterable[str] = ()) -> None:
        self._root = root
        self._boundaries = tuple(boundaries)
        self._modules: dict[str, _Module | None] = {}
        self._described: dict[ast.stmt, tuple[str, set[str]]] = {}

    def digest(self, entries: Iterable[str]) -> str:
        """Return 16 hexadecimal digits for all code that the entries (`module:name`) reach.

        Raises ValueError where an entry does not exist.
        """
        found: set[str] = set()
        seen: set[tuple[str, str]] = set()
        waiting: list[tuple[str, str]] = []
        for entry in entries:
            module, _, name = entry.partition(":")
            known = self._module(module)
            if known is None or name not in known.statements:
                raise ValueError(f"{entry} does not exist; correct the entry")
            waiting.append((module, name))
        while waiting:
            module, name = waiting.pop()
            if (module, name) in seen or self._is_outside(module):
                continue
            seen.add((module, name))
            known = self._module(module)
            assert known is not None
            for statement in known.nameless + known.statements.get(name, []):
                text, names = self._describe(statement)
                found.add(text)
                for used in names:
                    if used in known.statements:
                        waiting.append((module, used))
                    elif used in known.imports:
                        waiting += self._followed(used, *known.imports[used], found)
        return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]

    def _describe(self, statement: ast.stmt) -> tuple[str, set[str]]:
        """Return a statement as text, and the names in it."""
        if statement not in self._described:
            names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            self._described[statement] = _text(statement), names
        return self._described[statement]

    def _followed(
        self, local: str, module: str, name: str | None, found: set[str]
    ) -> list[tuple[str, str]]:
        """Return the definitions of an imported name; add another project's to `found`."""
        if module.partition(".")[0] not in PACKAGES:
            found.add(f"import {module} {name} as {local}")
            return []
        if name is not None and self._module(f"{module}.{name}") is not None:
            module, name = f"{module}.{name}", None
        known = self._module(module)
        if known is None or self._is_outside(module):
            return []
        if name is None:
            return [(module, each) for each in known.statements]
        if name in known.imports:
            return self._followed(local, *known.imports[name], found)
        return [(module, name)]

    def _is_outside(self, module: str) -> bool:
        return any(
            module == boundary or module.startswith(f"{boundary}.") for boundary in self._boundaries
        )

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            base = self._root.joinpath(*name.split("."))
            paths = [base.with_suffix(".py"), base / "__init__.py"]
            path = next((path for path in paths if path.is_file()), None)
            self._modules[name] = None if path is None else _parse(path)
        return self._modules[name]


def _parse(path: Path) -> _Module:
    tree = ast.parse(path.read_text("utf-8"), str(path))
    module = _Module()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module.imports[alias.asname or alias.name] = (str(node.module), alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                module.imports[bound] = (alias.name, None)
    for statement in tree.body:
        if _is_left_out(statement):
            continue
        names = set(_defined_by(statement))
        for name in names:
            module.statements.setdefault(name, []).append(statement)
        if not names and not _is_for_types_alone(statement):
            module.nameless.append(statement)
    return module


def _defined_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _is_left_out(node: object) -> bool:
    """Return true for docstrings, and for imports, which are followed instead."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_for_types_alone(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and isinstance(statement.test, ast.Name)
        and statement.test.id == "TYPE_CHECKING"
    )


def _text(node: object) -> str:
    """Write a syntax tree as text; `ast.dump` differs between Python versions."""
    if isinstance(node, list):
        return f"[{','.join(_text(each) for each in node if not _is_left_out(each))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={_text(value)}"
        for name, value in ast.iter_fields(node)
        if name not in _WITHOUT_MEANING and value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(fields)})"
