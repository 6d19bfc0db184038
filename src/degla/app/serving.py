"""Shared parts of the pages: gradio without telemetry, a guarded application, and a socket on this machine.

The guard accepts only requests of the page itself in a local browser; everything else gets status 403. Any web page
open in the same browser can send requests to 127.0.0.1, but it cannot hide its origin (header Origin, or Sec-Fetch-Site
if that is missing), and a host name that was rebound to 127.0.0.1 (DNS rebinding) shows in the header Host.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from degla.errors import InputError
from degla.parse import parse_json

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FONTS: Final = ("system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
_HERE: Final = Path(__file__).parent


def open_gradio(instead: str) -> Any:
    """Import gradio with its telemetry switched off.

    Args:
        instead: sentence that names an alternative without gradio.

    Raises:
        InputError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError:
        raise InputError(f"the page needs gradio: pip install 'degla[app]'. {instead}") from None
    return gradio


def guarded(*, upload_bytes: int = 0) -> Any:
    """Create an application that only accepts requests from a browser on this machine.

    Args:
        upload_bytes: size limit of uploads; 0 allows none.
    """
    from fastapi import FastAPI

    application = FastAPI(openapi_url=None)
    application.add_middleware(LocalOnly, upload_bytes=upload_bytes)
    return application


def mount(gradio: Any, application: Any, blocks: Any, *, css: str, js: str | None = None) -> Any:
    """Mount a gradio page in an application; `css` and `js` name files beside this module."""
    return gradio.mount_gradio_app(
        application,
        blocks,
        path="/",
        server_name="127.0.0.1",
        theme=gradio.themes.Base(font=_FONTS, font_mono=("ui-monospace", "Consolas", "monospace")),
        css=(_HERE / css).read_text(encoding="utf-8"),
        js=None if js is None else (_HERE / js).read_text(encoding="utf-8"),
        footer_links=[],
        run_history=False,
        mcp_server=False,
        ssr_mode=False,
    )


def open_port(port: int) -> socket.socket:
    """Listen on 127.0.0.1; from now on, requests wait until the page answers instead of being refused.

    Args:
        port: TCP port; 0 picks a free one.

    Raises:
        InputError: the port cannot be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or "no such port"
        raise InputError(f"port {port} cannot be used: {why}. Use another --port; 0 picks a free one.") from None
    listener.listen()
    return listener


def serve_at(listener: socket.socket, application: Any, *, title: str, note: str) -> None:
    """Print the address of the page, and serve it until the process is stopped (Ctrl-C)."""
    import uvicorn

    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        # A closed terminal ends the page as SIGTERM does, not by an error within the event loop.
        handled = {*uvicorn.server.HANDLED_SIGNALS, signal.SIGHUP}
        uvicorn.server.HANDLED_SIGNALS = tuple(handled)  # type: ignore[assignment]
    sys.stdout.write(f"{title} at http://127.0.0.1:{listener.getsockname()[1]}  ({note})\n")
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(application, log_level="warning")).run(sockets=[listener])


Refusal = tuple[int, str]
"""Status and reason."""

MOST_BYTES: Final = 1 << 18
"""Size limit of a request's body in bytes; a button sends about a thousand."""

_WITHOUT_SCRIPT: Final = (
    b"<noscript><p>This page needs JavaScript. Allow it for this address, and reload the page.</p></noscript>\n"
)
_HOSTS: Final = frozenset({"127.0.0.1", "localhost"})
_POSTS: Final = (
    "/gradio_api/run/",
    "/gradio_api/queue/",
    "/gradio_api/api/",
    "/gradio_api/reset",
    "/gradio_api/cancel",
)
"""Prefixes of the paths that the page's buttons post to; uploads are handled separately."""
_UPLOAD: Final = "/gradio_api/upload"


class LocalOnly:
    """ASGI middleware that passes only the page's own requests, with bounded bodies.

    Args:
        app: application that answers them.
        upload_bytes: size limit of uploads; 0 allows none.
    """

    def __init__(self, app: ASGIApp, *, upload_bytes: int = 0) -> None:
        self._app, self._upload_bytes = app, upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it (ASGI)."""
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        body, request = b"", Request(scope, receive)
        uploads = bool(self._upload_bytes) and scope["method"] == "POST" and scope["path"] == _UPLOAD
        most = self._upload_bytes + MOST_BYTES if uploads else MOST_BYTES
        refusal = _refusal(request, most=most, uploads=uploads)
        if refusal is None:
            body, refusal = await _read(request, most)
        if refusal is None and body and not uploads:
            refusal = _foreign_file(body, _upload_folder() if self._upload_bytes else None)
        if refusal is not None:
            status, reason = refusal
            await PlainTextResponse(f"Refused: {reason}.\n", status, {"connection": "close"})(scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            await (self._answer_page if scope["path"] == "/" else self._app)(scope, replay, send)
        except Exception as error:
            # gradio has answered with status 500 a request for a button that the page does not have.
            if not _is_of_button(error):
                raise

    async def _answer_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the page, and what it needs where it would be blank. gradio adds its own head by a script."""
        headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [each for each in message["headers"] if each[0] != b"content-length"]
            elif not message.get("more_body"):
                message["body"] = message.get("body", b"") + _WITHOUT_SCRIPT
            await send(message)

        await self._app({**scope, "headers": headers}, receive, add)


def _is_of_button(error: Exception) -> bool:
    """Whether gradio itself, not the page's own code, raised because the page has no button of that number or name."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    of_gradio = frame.f_globals.get("__name__", "").partition(".")[0] == "gradio"
    number = isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], int)
    return of_gradio and (number or type(error).__name__ == "FnIndexInferError")


def _refusal(request: Request, *, most: int, uploads: bool) -> Refusal | None:
    """Return why a request must be rejected before its body is read; None if it may pass."""
    headers, method = request.headers, request.method
    for name in ("host", "origin", "content-type"):
        if len(headers.getlist(name)) > 1:
            return 403, f"two headers {name}"
    host = headers.get("host", "")
    if _hostname(f"http://{host}") not in _HOSTS:
        return 403, "the host name is not this machine's own"
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host}".lower():
        return 403, "the request comes from another page"
    site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode")
    framed = headers.get("sec-fetch-dest", "document") != "document"
    # A link on another site may lead here; its images, scripts, forms and frames (whose buttons it could have pressed
    # unseen) may not send requests.
    if site not in ("none", "same-origin") and (mode != "navigate" or method != "GET" or framed):
        return 403, "the request comes from another page"
    path = request.scope["path"]
    if "://" in path or "/proxy=" in path:
        return 403, "proxying is not allowed"
    if method not in ("GET", "HEAD"):
        if method != "POST" or not (uploads or path.startswith(_POSTS)):
            return 403, "this page accepts neither files nor such requests"
        kind = "multipart/form-data" if uploads else "application/json"
        if headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
            return 403, "only file uploads are accepted here" if uploads else "only JSON is accepted"
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 12 or int(length) > most:
        return _too_long(most)
    return None


def _foreign_file(body: bytes, folder: Path | None) -> Refusal | None:
    """Return why a request must be rejected that names a file which was not uploaded; None if it may pass.

    gradio copies every file that a request names to a public place, and checks whether the file was uploaded only in
    programs that it launched itself.
    """
    try:
        waiting: list[Any] = [parse_json(body, where="the request")]
    except InputError:
        return 400, "not JSON"
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and "path" in value and not _is_in(value["path"], folder):
            return 403, "only files that were uploaded to the page are read"
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return None


def _is_in(path: object, folder: Path | None) -> bool:
    if path is None:
        return True
    try:
        return isinstance(path, str) and folder is not None and Path(path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # not a valid path
        return False


def _upload_folder() -> Path:
    """Return the folder where gradio stores uploads."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio")


def _too_long(most: int) -> Refusal:
    return 413, f"more than {most >> 20} MiB" if most >> 20 else f"more than {most >> 10} KiB"


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


async def _read(request: Request, most: int) -> tuple[bytes, Refusal | None]:
    from starlette.requests import ClientDisconnect

    content = bytearray()
    try:
        async for piece in request.stream():
            content += piece
            if len(content) > most:
                return b"", _too_long(most)
    except ClientDisconnect:  # the browser has disconnected
        return b"", (400, "the request was interrupted")
    return bytes(content), None
