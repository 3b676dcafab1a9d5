"""Health of the servers that the environment names."""

import socket
from collections.abc import Iterator

import pytest

from simgan_core.errors import InputError, UnavailableError
from tasks.runtime.processes.servers import PROBES, require_mlflow, require_prefect
from tests.http_statuses import StatusServer


@pytest.fixture
def server() -> Iterator[StatusServer]:
    """A server that answers with a status of the test's choice."""
    with StatusServer() as server:
        yield server


@pytest.mark.parametrize("status", [200, 401, 403])
def test_prefect_that_answers_passes_also_where_it_wants_a_password(
    server: StatusServer, status: int
) -> None:
    server.status = status
    require_prefect(f"{server.url}/api/")
    assert server.asked == ["/api/health"]


@pytest.mark.parametrize("status", [404, 500])
def test_another_programs_server_is_wrong_input(server: StatusServer, status: int) -> None:
    server.status = status
    with pytest.raises(InputError, match=rf"not as Prefect's API does \(HTTP {status}"):
        require_prefect(server.url)


@pytest.mark.parametrize("require", [require_prefect, require_mlflow])
@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_whose_server_is_down_is_asked_again_and_named(
    server: StatusServer, status: int, require: object
) -> None:
    server.status = status
    assert callable(require)
    with pytest.raises(UnavailableError, match=rf"is down \(HTTP {status}\)"):
        require(server.url)
    assert len(server.asked) == PROBES


def test_mlflow_that_answers_anything_passes(server: StatusServer) -> None:
    server.status = 404
    require_mlflow(server.url)
    assert server.asked == ["/health"]


def test_where_nobody_listens_the_remedy_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UnavailableError, match="or unset PREFECT_API_URL"):
        require_prefect(f"{url}/api")
    with pytest.raises(UnavailableError, match="or unset MLFLOW_TRACKING_URI"):
        require_mlflow(url)


@pytest.mark.parametrize("url", ["", "team:4200/api", "ftp://team/api", "http://", "http://a:b/"])
def test_what_is_no_url_is_wrong_input_with_an_example(url: str) -> None:
    with pytest.raises(InputError, match="PREFECT_API_URL should be a URL such as http://"):
        require_prefect(url)


@pytest.mark.parametrize("uri", ["sqlite:////tmp/mlflow.db", "postgresql://db/mlflow"])
def test_tracking_in_a_database_asks_no_server(uri: str) -> None:
    require_mlflow(uri)
