"""One service of `simgan up`, as supervisor starts it: `python -m tasks.ops.service NAME`.

supervisor's configuration file has a syntax of its own for percent signs, quotes, semicolons and
spaces, which any folder's name may hold. So commands, folders and variables are not in it but in
`services.json`, and this module replaces itself with the command named there.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FILE = "services.json"


class Service(NamedTuple):
    """Process to keep running."""

    name: str
    command: list[str]
    environment: dict[str, str]
    priority: int
    """Started from the lowest to the highest, stopped the other way round."""
    directory: str | None = None
    """Working directory; None: that of `simgan up`."""


def write_services(services: Iterable[Service], folder: Path, directory: Path) -> None:
    """Write what `main` reads; ASCII, so that names that are no Unicode come back as they were."""
    content = {
        service.name: {
            "command": service.command,
            "environment": service.environment,
            "directory": service.directory or str(directory),
        }
        for service in services
    }
    (folder / FILE).write_text(json.dumps(content), encoding="ascii")


def main(name: str) -> None:
    """Replace this process by the service that the working directory describes."""
    service = json.loads(Path(FILE).read_text(encoding="ascii"))[name]
    os.chdir(service["directory"])
    command = service["command"]
    os.execvpe(command[0], command, {**os.environ, **service["environment"]})


if __name__ == "__main__":
    main(sys.argv[1])
