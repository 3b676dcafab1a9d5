"""Environment of child processes: the current folder is not on the path of their modules.

A folder of data may hold a `token.py` or a `torch.py` of its owner's, which Python would import in
place of its own.
"""

import os


def without_current_folder() -> dict[str, str]:
    """Return this process's environment for a Python that looks for no module in its folder."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    # An empty entry, as "PYTHONPATH=$PYTHONPATH:/more" makes, is the current folder too.
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    environment["PYTHONPATH"] = os.pathsep.join(entries)
    return environment
