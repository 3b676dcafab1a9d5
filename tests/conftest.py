"""Fixtures that all four packages' tests share."""

import gc
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.s3_proxy import S3Proxy

BUCKET = "datasets"

# Read as PyTorch is loaded. Threads that spin for each other take the cores from tests beside them;
# commands set this for themselves (flows/cli/environment.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# As commands do (flows/cli/main.py): objects that stay are not looked through all the time.
gc.set_threshold(10_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where PyTorch sees none; each gives its reason in the marker.

    The wheel's file, which takes a minute, comes first: two workers then end at about one time.
    """
    items.sort(key=lambda item: item.path.name != "test_wheel.py")
    marked = [(item, mark) for item in items if (mark := item.get_closest_marker("gpu"))]
    for item, mark in marked:
        if len(mark.args) != 1:
            raise pytest.UsageError(f'{item.nodeid}: write gpu("why this test needs a GPU")')
    if not marked:
        return
    import torch  # noqa: PLC0415  seconds that most test files do not need

    if not torch.cuda.is_available():
        for item, mark in marked:
            item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {mark.args[0]}"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real samples beside the checkout; skips the test where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real samples are not here")
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def empty_prefect(shared_folder: Path) -> Path:
    """A database of Prefect in which nothing is; setting one up takes 5 s of processor time."""
    path = shared_folder / "prefect.db"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            made = path.with_name("prefect-being-made.db")
            subprocess.run(
                [sys.executable, "-P", "-m", "prefect", "server", "database", "upgrade", "-y"],
                env={
                    **os.environ,
                    "PREFECT_HOME": str(shared_folder / "prefect"),
                    "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{made}",
                },
                check=True,
                capture_output=True,
            )
            made.rename(path)
    return path


@pytest.fixture(scope="session")
def empty_mlflow(shared_folder: Path) -> Path:
    """A database of MLflow in which nothing is; setting one up takes 2 s of processor time."""
    # Here, so that tests of the core run where MLflow is not installed.
    from tasks.runtime.tracking.mlflow_database import (  # noqa: PLC0415
        require_tracking_database,
    )

    path = shared_folder / "mlflow.db"
    require_tracking_database(path)
    return path


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """A bucket on a real S3 server on loopback, which the environment names."""
    # Here, so that tests that need no S3 run where moto is not installed, as on a GPU machine.
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_REGION", "us-east-1")
        create = urllib.request.Request(f"http://{host}:{port}/{BUCKET}", method="PUT")
        urllib.request.urlopen(create).close()
        yield f"s3://{BUCKET}"
    server.stop()


@pytest.fixture
def s3_proxy(s3_bucket: str) -> Iterator[S3Proxy]:
    """A way to the S3 server on which requests meet with accidents."""
    with S3Proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        yield proxy


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts file systems of so many bytes; skips the test where that is not allowed."""
    mounted: list[Path] = []

    def mount(num_bytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a small disk needs the right to mount")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
