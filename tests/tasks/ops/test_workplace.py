"""Who may ask the servers of `simgan up`, and where they are."""

from pathlib import Path

import pytest

from simgan_core.errors import InputError
from tasks.ops.workplace import Workplace, passwords, require_password, services

PASSWORDS = {
    "PREFECT_API_AUTH_STRING": "team:secret-1",
    "MLFLOW_TRACKING_USERNAME": "team",
    "MLFLOW_TRACKING_PASSWORD": "secret-2",
}


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A place of two GPUs with servers of its own, without passwords."""
    (tmp_path / "services").mkdir()
    return Workplace(tmp_path, tmp_path, "127.0.0.1", 4200, 5000, 2, True, True)


@pytest.fixture(autouse=True)
def no_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set but what a test sets."""
    for name in (*PASSWORDS, "MLFLOW_SERVER_ALLOWED_HOSTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("missing", PASSWORDS)
def test_beyond_loopback_every_password_has_to_be_set(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_password("127.0.0.1")
    for name, value in PASSWORDS.items():
        monkeypatch.setenv(name, value)
    require_password("0.0.0.0")
    monkeypatch.delenv(missing)
    with pytest.raises(InputError, match=f"set {missing} first"):
        require_password("0.0.0.0")


def test_passwords_reach_servers_by_their_environment_alone(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert passwords(place) == {}
    for name, value in PASSWORDS.items():
        monkeypatch.setenv(name, value)
    found = passwords(place)
    assert found["PREFECT_SERVER_API_AUTH_STRING"] == "team:secret-1"
    assert found["MLFLOW_AUTH_ADMIN_PASSWORD"] == "secret-2"
    written = (place.home / "services" / "mlflow-auth.ini").read_text()
    assert "secret" not in written + str(services(place))
    assert services(place)[1].command[-2:] == ["--app-name", "basic-auth"]


def test_mlflow_answers_under_the_name_that_it_listens_at(place: Workplace) -> None:
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" not in services(place)[1].environment
    elsewhere = services(place._replace(host="gpu-box"))[1].environment
    assert "gpu-box:*" in elsewhere["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")


def test_every_gpu_has_a_worker_of_its_own(place: Workplace) -> None:
    workers = {found.name: found for found in services(place)[2:]}
    assert list(workers) == ["worker-cpu", "worker-gpu-0", "worker-gpu-1"]
    assert workers["worker-gpu-1"].environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert "simgan-gpu" in workers["worker-gpu-1"].command


def test_servers_of_the_users_are_not_started(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.team:4200/api")
    theirs = place._replace(own_prefect=False, num_gpus=0)
    assert theirs.addresses().prefect == "http://prefect.team:4200"
    assert [service.name for service in services(theirs)] == ["mlflow-server", "worker-cpu"]
