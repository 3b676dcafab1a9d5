"""Restricted reader of pickles that hold plain data; nothing is looked up, called or built.

Only the operations that make dicts, lists, tuples, text, numbers and None are known; any other,
and first of all those by which a pickle names code, is refused.
"""

import pickletools
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100
"""Open brackets; plain data nest a few."""

_MARK = object()


class NotPlainError(ValueError):
    """A pickle is damaged, or holds something else than plain data."""


def load_plain(data: bytes) -> Any:
    """Return the dicts, lists, tuples, text and numbers of a pickle; raises NotPlainError.

    Keys of dicts are text or whole numbers.
    """
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(data):
            machine.do(operation.name, argument)
    except NotPlainError:
        raise
    # What pickletools raises on damaged files, and what a stack that runs empty raises here.
    except (ValueError, LookupError, TypeError, OverflowError, AttributeError) as error:
        raise NotPlainError(f"damaged: {error}") from error
    if len(machine.stack) != 1 or machine.stack[0] is _MARK:
        raise NotPlainError("damaged: it does not end with one value")
    return machine.stack[0]


class _Machine:
    """The stack on which a pickle puts values together, and its memo of earlier ones."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def do(self, operation: str, argument: Any) -> None:
        if operation not in _OPERATIONS:
            raise NotPlainError(f"it has {operation}, which no plain data need")
        _OPERATIONS[operation](self, argument)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        if self.stack.count(_MARK) >= MAX_DEPTH:
            raise NotPlainError(f"nested over {MAX_DEPTH} deep")
        self.push(_MARK)

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def take(self, count: int) -> list[Any]:
        """Take the last values."""
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def since_mark(self) -> list[Any]:
        """Take what came since the last mark."""
        count = self.stack[::-1].index(_MARK)
        values = self.take(count) if count else []
        self.stack.pop()
        return values

    def extend(self, values: list[Any]) -> None:
        """Put values at the end of the list on top."""
        _of_type(self.stack[-1], list).extend(values)

    def update(self, values: list[Any]) -> None:
        """Put keys and values, in turn, into the dict on top."""
        target = _of_type(self.stack[-1], dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Hashing a tuple that holds itself many times over would take for ever.
            if type(key) not in (str, int):
                raise NotPlainError(f"a key is a {type(key).__name__}")
            target[key] = value


def _of_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise NotPlainError(f"damaged: a {kind.__name__} was expected")
    return value


def _dict_since_mark(machine: _Machine) -> None:
    values = machine.since_mark()
    machine.push({})
    machine.update(values)


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(["PROTO", "FRAME", "STOP"], lambda machine, argument: None),
    **dict.fromkeys(
        ["BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT",
         "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING",
         "SHORT_BINSTRING"],
        _Machine.push,
    ),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "MARK": lambda machine, _: machine.mark(),
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT"], _Machine.remember),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    **dict.fromkeys(
        ["GET", "BINGET", "LONG_BINGET"],
        lambda machine, place: machine.push(machine.memo[place]),
    ),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "DICT": lambda machine, _: _dict_since_mark(machine),
}  # fmt: skip
