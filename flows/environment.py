"""The surroundings of a command: everything under SIMGAN_HOME unless the user says otherwise.

Prefect and MLflow read their settings from the environment when they are imported, so the
command line calls `prepare` before it imports a flow. What the user has set stays as it is.
"""

import os
from pathlib import Path

OWN_LOGGERS = ("simgan_core", "storage", "tasks")


def prepare(home: Path | None = None) -> Path:
    """Set what is not set: SIMGAN_HOME, an embedded Prefect, MLflow on SQLite; no telemetry."""
    folder = (home or Path(os.environ.get("SIMGAN_HOME", ".simgan"))).expanduser().resolve()
    defaults = {
        "SIMGAN_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A new database takes 13 s to set up on two idle cores, and the default limit is 20 s.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(OWN_LOGGERS),
        # Threads that spin for each other lose the cores that other processes want: on two busy
        # cores a training step took six times as long as with threads that sleep.
        "OMP_WAIT_POLICY": "PASSIVE",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if not any(name in os.environ for name in ("PREFECT_API_URL", "PREFECT_PROFILE")):
        defaults["PREFECT_HOME"] = str(folder / "prefect")
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    (folder / "prefect").mkdir(parents=True, exist_ok=True)
    return folder
