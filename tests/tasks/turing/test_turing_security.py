"""Requests that are not from the server's own pages have no effect."""

import asyncio
from typing import Any

import pytest

from tasks.turing.security import HEADERS, MAX_BODY_BYTES, Guard

OWN = {"host": "lab.example:80", "origin": "http://lab.example:80",
       "content-type": "application/json", "content-length": "2"}  # fmt: skip


def status_of(method: str, headers: dict[str, str]) -> int:
    """Send a request through the guard to an application that answers everything with 204."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/", "headers": raw}
    asyncio.run(Guard(app, "lab.example")(scope, receive, send))
    names = {name.decode() for name, _ in sent[0]["headers"]}
    assert {name.lower() for name in HEADERS} <= names
    return int(sent[0]["status"])


@pytest.mark.parametrize("host", ["lab.example:80", "localhost", "127.0.0.1:8000", "[::1]:8000"])
def test_the_servers_own_names_and_addresses_are_served(host: str) -> None:
    assert status_of("GET", {"host": host}) == 204


@pytest.mark.parametrize("host", ["rebound.example", "", "lab.example.evil", "[bad"])
def test_a_name_that_is_not_the_servers_is_refused(host: str) -> None:
    assert status_of("GET", {"host": host}) == 421


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 204),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 204),
        ({"content-length": str(MAX_BODY_BYTES + 1)}, 413),
        ({"content-length": ""}, 413),
    ],
)
def test_only_small_json_of_its_own_pages_writes(changes: dict[str, str], status: int) -> None:
    assert status_of("POST", OWN | changes) == status
