"""Pull step of every deployment (`prefect.yaml`): load the flows, then change the folder."""

import importlib
import os
import pkgutil

import flows


def enter_folder(directory: str) -> dict[str, str]:
    """Make `directory` the working directory of a run whose code is loaded already.

    Prefect puts the working directory first on the path while it imports a flow. A folder of data
    may hold a `tasks`, a `storage` or a `token.py` of its team's, which would be imported instead.
    """
    for module in pkgutil.iter_modules(flows.__path__):
        importlib.import_module(f"flows.{module.name}")
    os.chdir(directory)
    return {"directory": directory}
