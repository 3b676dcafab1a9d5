"""Requests that met a locked database are repeated by the server."""

import asyncio

import httpx

from tasks.ops.locked_database import (
    UNAVAILABLE,
    WAITS_S,
    App,
    Message,
    Receive,
    Send,
    repeating_when_locked,
)


def locked(num_times: int, seen: list[bytes]) -> App:
    """An application whose database is locked so many times; it gives the request's body back."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        seen.append(body)
        status = UNAVAILABLE if len(seen) <= num_times else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})
        if status == UNAVAILABLE:
            raise OSError("database is locked")  # as Starlette does, once it has answered

    return app


def post(app: App, body: bytes) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/", content=body)

    return asyncio.run(ask())


def test_a_request_that_met_a_lock_is_answered_as_if_it_had_not() -> None:
    seen: list[bytes] = []
    answer = post(repeating_when_locked(locked(2, seen)), b"a task run's state")
    assert (answer.status_code, answer.content) == (200, b"a task run's state")
    assert seen == [b"a task run's state"] * 3


def test_the_client_hears_of_a_lock_that_stays() -> None:
    seen: list[bytes] = []
    answer = post(repeating_when_locked(locked(100, seen)), b"")
    assert answer.status_code == UNAVAILABLE
    assert len(seen) == len(WAITS_S) + 1
