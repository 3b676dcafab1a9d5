"""What the doctor finds, and what to do about it."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.ops import doctor
from tasks.ops.doctor import Diagnosis, Finding, diagnose
from tasks.runtime.code_version import code_version


@pytest.fixture(autouse=True)
def _embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path / "home"))
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[str]:
    """A server that answers as those do that want a password."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    found = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    thread.join()
    found.server_close()


def finding(what: str) -> Finding:
    return next(each for each in diagnose().findings if each.what == what)


def test_an_embedded_installation_is_healthy_and_names_its_code() -> None:
    found = diagnose()
    assert found.healthy, found.text()
    assert f"simgan {code_version().version}" in finding("packages").found
    assert finding("Prefect").found == "local server: starts with the first command that needs it"
    assert found.text().endswith("next   simgan demo")
    assert finding("MLflow").found.startswith("sqlite:///")


def test_servers_that_answer_are_healthy(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{server}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert diagnose().healthy


def test_the_server_of_prefects_profile_is_looked_at(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_PROFILE", "team")
    with temporary_settings({PREFECT_API_URL: f"{server}/api"}):
        assert finding("Prefect").found == f"{server}/api"


@pytest.mark.parametrize(
    ("name", "value", "what", "remedy"),
    [
        ("PREFECT_API_URL", "http://127.0.0.1:9/api", "Prefect", "prefect server start"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9", "MLflow", "unset MLFLOW_TRACKING_URI"),
        ("MLFLOW_TRACKING_URI", "file:./mlruns", "MLflow", "use sqlite:///PATH or a server"),
        ("SIMGAN_HOME", "/proc/none", "SIMGAN_HOME", "set SIMGAN_HOME to a folder of yours"),
    ],
)
def test_what_is_wrong_comes_with_a_remedy(
    name: str, value: str, what: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert not diagnose().healthy
    assert remedy in str(finding(what).model_dump())


def test_a_fastapi_that_breaks_flows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda _name: "0.151.0")
    assert "pip install 'fastapi<0.151'" in str(finding("packages").model_dump())


def test_what_is_wrong_is_marked_and_the_remedy_stands_below() -> None:
    findings = (Finding(what="a", found="x"), Finding(what="b", found="y", remedy="do z"))
    lines = Diagnosis(healthy=False, findings=findings).text().splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "wrong", "→", "next"]
