"""Health checks of the servers that the environment names, before anything waits for them."""

import urllib.error
import urllib.request
from urllib.parse import urlsplit

from simgan_core.errors import InputError, UnavailableError

PROBE_TIMEOUT_S = 3.0
PROBES = 3
"""A server that has just started on a busy machine was silent for 6 s; together they stay below the
10 s after which a command under way gives a server up."""

_NOT_READY = {502, 503, 504}
"""Status codes of a proxy whose server is down, or of a server that cannot work now."""


def require_prefect(api: str) -> None:
    """Raise unless Prefect's API answers at `api`, the value of PREFECT_API_URL.

    InputError where that is no URL or another program's, UnavailableError without an answer.
    """
    _require_http("PREFECT_API_URL", api, "http://127.0.0.1:4200/api")
    remedy = (
        "start it (`simgan up`, or `prefect server start`), or unset PREFECT_API_URL to run with "
        "a local server; then run the same command again"
    )
    status = _status(f"{api.rstrip('/')}/health", "Prefect's server", remedy)
    if status not in {200, 401, 403}:
        raise InputError(
            f"PREFECT_API_URL={api} answers, but not as Prefect's API does (HTTP {status} for "
            f"/health): it should end in /api, as http://127.0.0.1:4200/api; else {remedy}"
        )


def require_mlflow(uri: str) -> None:
    """Raise UnavailableError unless an HTTP tracking URI answers; other URIs pass."""
    if not uri.startswith(("http://", "https://")):
        return
    _require_http("MLFLOW_TRACKING_URI", uri, "http://127.0.0.1:5000")
    _status(f"{uri.rstrip('/')}/health", "MLflow's server", mlflow_remedy())


def mlflow_remedy() -> str:
    """Return the remedy for an MLflow server that does not answer."""
    return (
        "start it (`simgan up`, or `mlflow server`), or unset MLFLOW_TRACKING_URI to use the "
        "database under SIMGAN_HOME; then run the same command again: it goes on where it was"
    )


def _require_http(name: str, url: str, example: str) -> None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_url = False
    if not is_url:
        raise InputError(f"{name} should be a URL such as {example}, found {url!r}")


def _status(url: str, what: str, remedy: str) -> int:
    """Return the HTTP status of a server; a slow one is probed again."""
    reason = ""
    for _ in range(PROBES):
        try:
            with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            if error.code not in _NOT_READY:
                return error.code
            reason = f"HTTP {error.code}"
        except TimeoutError:
            reason = f"no answer within {PROBE_TIMEOUT_S:.0f} s"
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "reason", error))
            break
    raise UnavailableError(f"{what} at {url.removesuffix('/health')} is down ({reason}): {remedy}")
