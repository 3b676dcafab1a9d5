"""Diagnosis of the installation: packages, device, servers, and remedies."""

import os
import platform
from collections.abc import Callable
from importlib.metadata import version

import torch
from prefect.settings import get_current_settings
from pydantic import BaseModel, ConfigDict

from simgan_core.errors import InputError, UnavailableError
from tasks.ops.local_server import LocalServer
from tasks.runtime.code_version import code_version
from tasks.runtime.paths import home
from tasks.runtime.processes.servers import require_mlflow, require_prefect
from tasks.runtime.tracking.runs import tracking_uri

PACKAGES = ("torch", "prefect", "fastapi", "mlflow", "zarr", "numpy")


class Finding(BaseModel):
    """Result of one check."""

    model_config = ConfigDict(frozen=True)

    what: str
    found: str
    remedy: str | None = None
    """Remedy; None where nothing is wrong."""


class Diagnosis(BaseModel):
    """Results of all checks."""

    model_config = ConfigDict(frozen=True)

    healthy: bool
    findings: tuple[Finding, ...]

    def text(self) -> str:
        """Return one line for each finding; what is wrong is marked and followed by its remedy."""
        lines = []
        for finding in self.findings:
            mark = "wrong" if finding.remedy else "ok   "
            lines.append(f"{mark}  {finding.what:<16}{finding.found}")
            if finding.remedy:
                lines.append(f"       → {finding.remedy}")
        then = "simgan demo" if self.healthy else "follow the remedies, then simgan doctor again"
        return "\n".join([*lines, f"next   {then}"])


def diagnose() -> Diagnosis:
    """Check everything that a run needs."""
    findings = (_packages(), _device(), _home(), _prefect(), _mlflow(), _s3())
    return Diagnosis(healthy=not any(f.remedy for f in findings), findings=findings)


def _packages() -> Finding:
    found = {name: version(name) for name in PACKAGES}
    remedy = None
    if tuple(int(part) for part in found["fastapi"].split(".")[:2]) >= (0, 151):
        remedy = "fastapi 0.151 and later break Prefect 3.8 and 3.9: pip install 'fastapi<0.151'"
    code = code_version()
    commit = f" ({code.commit[:12]}{', changed' * bool(code.dirty)})" if code.commit else ""
    listed = ", ".join(f"{name} {number}" for name, number in found.items())
    return Finding(
        what="packages",
        found=f"simgan {code.version}{commit}, Python {platform.python_version()}, {listed}",
        remedy=remedy,
    )


def _device() -> Finding:
    if torch.cuda.is_available():
        return Finding(what="device", found=torch.cuda.get_device_name())
    amx = ", AMX" if torch.cpu.get_capabilities().get("amx_tile") else ""
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return Finding(what="device", found=f"CPU, {threads} threads, {capability}{amx}")


def _home() -> Finding:
    folder, remedy = home(), None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        remedy = f"cannot write there ({error.strerror}): set SIMGAN_HOME to a folder of yours"
    return Finding(what="SIMGAN_HOME", found=str(folder), remedy=remedy)


def _prefect() -> Finding:
    url = os.environ.get("PREFECT_API_URL") or _api_of_profile()
    if not url:
        running = LocalServer(home()).url
        state = f"runs at {running}" if running else "starts with the first command that needs it"
        return Finding(what="Prefect", found=f"local server: {state}")
    return Finding(what="Prefect", found=url, remedy=_refusal(require_prefect, url))


def _api_of_profile() -> str | None:
    """Return the URL of Prefect's API in the profile that PREFECT_PROFILE names."""
    return get_current_settings().api.url if "PREFECT_PROFILE" in os.environ else None


def _mlflow() -> Finding:
    uri = tracking_uri()
    remedy = _refusal(require_mlflow, uri)
    known = ("http://", "https://", "sqlite:", "postgresql", "mysql", "mssql", "databricks")
    if not uri.startswith(known):
        remedy = "MLflow 3 refuses its file store: use sqlite:///PATH or a server"
    return Finding(what="MLflow", found=uri, remedy=remedy)


def _s3() -> Finding:
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "AWS")
    has_key = "AWS_ACCESS_KEY_ID" in os.environ
    found = f"{endpoint}, {'a key is set' if has_key else 'no key in the environment'}"
    return Finding(what="S3", found=found)


def _refusal(check: Callable[[str], None], url: str) -> str | None:
    """Return what a check that commands begin with says of a server; None where it passes."""
    try:
        check(url)
    except (InputError, UnavailableError) as error:
        return str(error)
    return None
