"""ASGI middleware: requests that met a locked database are repeated at once, on the server.

Prefect's server answers 503 where one of its SQLite transactions was overtaken by another, and its
client repeats the request after two seconds. The transaction was rolled back, so it may be repeated
after some milliseconds. Where that does not help either, the client gets its 503.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

WAITS_S = (0.02, 0.05, 0.1, 0.2, 0.4)
UNAVAILABLE = 503


def repeating_when_locked(app: App) -> App:
    """Wrap a server's application; WebSockets and the lifespan pass through."""

    async def wrapped(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request = await _read(receive)
        for wait_s in WAITS_S:
            attempt = _Attempt(request, receive, send)
            try:
                # Applications write into their scope.
                await app(dict(scope), attempt.receive, attempt.send)
            except Exception:
                # Starlette answers first, then raises.
                if not attempt.refused:
                    raise
            if not attempt.refused:
                return
            await asyncio.sleep(wait_s)
        await app(scope, _Attempt(request, receive, send).receive, send)

    return wrapped


class _Attempt:
    """One passing of a request through the application: a 503 is kept from the client."""

    def __init__(self, request: list[Message], receive: Receive, send: Send) -> None:
        self._request, self._receive, self._send = list(request), receive, send
        self.refused = False

    async def receive(self) -> Message:
        return self._request.pop(0) if self._request else await self._receive()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == UNAVAILABLE:
            self.refused = True
        if not self.refused:
            await self._send(message)


async def _read(receive: Receive) -> list[Message]:
    """Receive a request's body to its end, or to where the client went away."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages
