"""Content ids: the same inputs and settings always give the same id.

A command that was killed and is run again finds its earlier work by such a name. What code makes
is named with its recipe version (`tasks.runtime.recipes`) too.
"""

import hashlib
import json
from typing import Any


def content_id(kind: str, content: dict[str, Any]) -> str:
    """Name `content` (JSON-able) by its hash: `<kind>-<12 hexadecimal digits>`."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"{kind}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"
