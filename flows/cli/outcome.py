"""Result of a command, as text and as JSON."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """Result of a command as JSON-able values, and as text."""

    result: dict[str, Any]
    text: str


def dataset_outcome(info: Any) -> Outcome:
    """Return the outcome of a command that completed a dataset."""
    result = {
        "dataset": info.url,
        "num_rows": info.spec.num_rows,
        "num_valid": info.num_valid,
        "num_rejected": info.num_rejected,
        "digest": info.digest,
        "domain": info.spec.domain,
        "preprocess": info.spec.preprocess,
    }
    return Outcome(
        result,
        f"{info.url}: {info.spec.num_rows} rows, {info.num_rejected} rejected, "
        f"digest {info.digest[:12]}",
    )
