"""Request checks of the visual Turing test: host, origin, body size, response headers.

A page of somebody else's can make a browser send requests here, with the session's cookie when it
is careless, and can put our pages in a frame. Neither may have an effect: a request is refused
unless it names this server (a rebound name does not), and one that writes unless it comes from our
own page, as JSON, small. The session's own token is checked where the session is known.
"""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 4096

# The same for every response, whatever it is of: nothing here depends on an image. No cache keeps
# anything, and no proxy may compress: the size would then tell of the pixels.
HEADERS = {
    "Cache-Control": "no-store, no-transform",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """ASGI middleware: refuses requests that are not from our own pages, and adds the headers."""

    def __init__(self, app: ASGIApp, own_host: str) -> None:
        self._app = app
        self._own_host = own_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *RAW_HEADERS]
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        app = self._app if refusal is None else refusal
        await app(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return _refused(421, f"this server is not {host}")
        if method in ("GET", "HEAD"):
            return None
        if headers.get("origin") not in (f"http://{host}", f"https://{host}"):
            return _refused(403, "only this server's own pages may send this")
        if headers.get("content-type", "").split(";")[0] != "application/json":
            return _refused(415, "expected application/json")
        length = headers.get("content-length", "")
        if not (length.isdecimal() and int(length) <= MAX_BODY_BYTES):
            return _refused(413, f"expected at most {MAX_BODY_BYTES} bytes of known length")
        return None

    def _is_ours(self, host: str) -> bool:
        """Return true where a Host header is this server's name, localhost, or an address.

        Another site's name that was made to point here fails; an address cannot be rebound.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in ("localhost", self._own_host) or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _refused(status: int, why: str) -> JSONResponse:
    return JSONResponse({"detail": why}, status)
