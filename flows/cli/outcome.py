"""Result of a command, as text and as JSON."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """JSON-able figures, and the same in words."""

    result: dict[str, Any]
    text: str


def dataset_outcome(info: Any) -> Outcome:
    """Tell of a dataset that is complete."""
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
