"""Who may speak to a page that runs on this machine: the page itself, in a browser here. Everything else gets 403.

Any web page that is open in the same browser can send requests to 127.0.0.1. It cannot hide its own address (header
Origin, or Sec-Fetch-Site where there is none), and a name that was turned to 127.0.0.1 after the page was loaded (DNS
rebinding) shows in the header Host.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
Application = Callable[[AsgiMessage, Receive, Send], Awaitable[None]]

MOST_BYTES: Final = 1 << 18
"""Bytes of one request's body; what a button sends has about a thousand."""

_HOSTS: Final = frozenset({"127.0.0.1", "localhost"})
_POSTS: Final = (
    "/gradio_api/run/",
    "/gradio_api/queue/",
    "/gradio_api/api/",
    "/gradio_api/reset",
    "/gradio_api/cancel",
)
"""Beginnings of the paths that the page's buttons send to. Uploads are not among them: the page takes no file."""


class LocalOnly:
    """ASGI middleware that lets the page's own requests through, with bounded bodies."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: AsgiMessage, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        body = b""
        refusal = _refusal(scope)
        if refusal is None:
            body, refusal = await _read(receive)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        given = False

        async def replay() -> AsgiMessage:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)


Refusal = tuple[int, str]


def _refusal(scope: AsgiMessage) -> Refusal | None:
    """Status and reason why a request is not for this page, before its body is read; None where it is."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        if name in headers and name in ("host", "origin", "content-type"):
            return 403, f"two headers {name}"
        headers[name] = raw_value.decode("latin-1")
    host = headers.get("host", "")
    if _name(f"http://{host}") not in _HOSTS:
        return 403, "asked under a name that is not this machine's own"
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host}".lower():
        return 403, "asked by another page"
    site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode")
    # A link elsewhere may lead here; an image, a script or a form elsewhere may not reach in.
    if site not in ("none", "same-origin") and (mode != "navigate" or scope["method"] != "GET"):
        return 403, "asked by another page"
    if scope["method"] not in ("GET", "HEAD"):
        if scope["method"] != "POST" or not scope["path"].startswith(_POSTS):
            return 403, "this page takes no files and no such request"
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 403, "only JSON is taken"
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 12 or int(length) > MOST_BYTES:
        return 413, f"more than {MOST_BYTES >> 10} KiB"
    return None


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


async def _read(receive: Receive) -> tuple[bytes, Refusal | None]:
    pieces = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the browser has left
            return b"", (400, "the request was broken off")
        pieces += message.get("body", b"")
        if len(pieces) > MOST_BYTES:
            return b"", (413, f"more than {MOST_BYTES >> 10} KiB")
        if not message.get("more_body", False):
            return bytes(pieces), None


async def _answer(send: Send, status: int, reason: str) -> None:
    body = f"Refused: {reason}.\n".encode()
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
