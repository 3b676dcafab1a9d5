"""What a command found."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """JSON-able figures, and the same in words."""

    result: dict[str, Any]
    text: str
