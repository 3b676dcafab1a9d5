"""The way to run for a team: Prefect on PostgreSQL, passwords, an address beyond loopback's own.

The address is 127.0.0.2, which reaches no further than 127.0.0.1 but which nothing takes for it.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

pytestmark = pytest.mark.drill

HOST = "127.0.0.2"
USER, PASSWORD = "team", "correct horse battery staple"
NUM_TASKS = 500
MAPPED = f"""
from prefect import flow, task

@task
def one(number: int) -> int:
    return number

@flow
def many() -> None:
    one.map(range({NUM_TASKS})).result()

many()
"""


def postgres_binary(name: str) -> str:
    """The path of one of PostgreSQL's programs, which Debian keeps off the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        if "CI" in os.environ:
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return found


@pytest.fixture(scope="module")
def postgres(new_port: Any) -> Iterator[str]:
    """A PostgreSQL server of our own on loopback; the URL of a new database."""
    initdb, server = postgres_binary("initdb"), postgres_binary("postgres")
    # It refuses to run as root, and pytest's folders are for their owner alone.
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), new_port()
    os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"
    common: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "cwd": folder}
    words = [initdb, "-D", str(data), "-U", "prefect", "--auth=trust", "--no-sync"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, **common)
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [server, "-D", str(data), *options], stdout=log, stderr=log, **common
        )
    try:
        url = f"postgresql://prefect@127.0.0.1:{port}/postgres"
        _wait_for_database(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        shutil.rmtree(folder)


def _wait_for_database(url: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        assert process.poll() is None, "PostgreSQL ended while it was starting"
        try:
            asyncio.run(_ask(url, "SELECT 1"))
        except (OSError, asyncpg.PostgresError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError("PostgreSQL did not start")


async def _ask(url: str, query: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def guarded(postgres: str, new_team: Any) -> Iterator[Any]:
    """`simgan up` in the foreground, as a team runs it."""
    team = new_team(
        "guarded",
        HOST,
        PREFECT_API_AUTH_STRING=f"{USER}:{PASSWORD}",
        MLFLOW_TRACKING_USERNAME=USER,
        MLFLOW_TRACKING_PASSWORD=PASSWORD,
        PREFECT_SERVER_DATABASE_CONNECTION_URL=postgres.replace("://", "+asyncpg://"),
    )
    process = team.start_up("--host", HOST)
    try:
        for line in process.stderr:
            if "all green" in line:
                break
        else:
            raise AssertionError(process.communicate())
        yield team, process
    finally:
        process.kill()
        process.communicate()
        team.down()


@pytest.mark.parametrize("auth", [None, (USER, "wrong")])
def test_a_request_without_the_password_gets_nowhere(guarded: Any, auth: Any) -> None:
    team, _ = guarded
    stranger = httpx.Client(auth=auth, timeout=30)
    with stranger:
        for method, url in (
            ("POST", f"{team.prefect}/api/deployments/filter"),
            ("POST", f"{team.prefect}/api/flow_runs/"),
            ("GET", f"{team.prefect}/api/admin/settings"),
            ("POST", f"{team.mlflow}/api/2.0/mlflow/experiments/search"),
            ("GET", f"{team.mlflow}/api/2.0/mlflow-artifacts/artifacts"),
            ("POST", f"{team.mlflow}/graphql"),
            ("GET", f"{team.mlflow}/"),
        ):
            reply = stranger.request(method, url, json={"max_results": 1})
            assert reply.status_code == 401, (url, reply.text[:200])


def test_passwords_are_in_no_file_and_no_command_line(guarded: Any) -> None:
    team, _ = guarded
    for path in (team.folder / "home").rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path
    assert all(PASSWORD not in " ".join(process.cmdline()) for process in team.processes())


def test_with_the_password_runs_work_and_are_tracked(guarded: Any) -> None:
    team, _ = guarded
    run_id = team.run("simulate", {"domain": "real", "out": "sim", "count": 15, "seed": 1})
    assert team.wait(run_id) == "COMPLETED"
    search = f"{team.mlflow}/api/2.0/mlflow/experiments/search"
    found = httpx.post(search, json={"max_results": 5}, auth=(USER, PASSWORD), timeout=30)
    assert found.status_code == 200


def test_five_hundred_mapped_tasks_keep_their_whole_history(guarded: Any, postgres: str) -> None:
    team, _ = guarded
    surroundings = {**team.environment, "PREFECT_API_URL": f"{team.prefect}/api"}
    subprocess.run([sys.executable, "-c", MAPPED], env=surroundings, check=True)
    query = """
        SELECT array_agg(s.type::text ORDER BY s.timestamp) AS states
        FROM task_run t JOIN task_run_state s ON s.task_run_id = t.id
        JOIN flow_run r ON r.id = t.flow_run_id JOIN flow f ON f.id = r.flow_id
        WHERE f.name = 'many' GROUP BY t.id
    """
    whole = ["PENDING", "RUNNING", "COMPLETED"]

    def all_there() -> bool:
        rows = asyncio.run(_ask(postgres, query))
        return len(rows) == NUM_TASKS and all(row["states"] == whole for row in rows)

    # The server records what tasks tell a few seconds after them.
    team.until(all_there, 120, "the history")


def test_a_killed_supervisor_is_noticed_and_ctrl_c_leaves_no_process(guarded: Any) -> None:
    team, process = guarded
    team.kill("supervisor.supervisord")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert team.processes() == []
    again = team.start_up("--host", HOST)
    for line in again.stderr:
        if "all green" in line:
            break
    assert team.processes() != []
    again.send_signal(signal.SIGINT)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert team.processes() == []
