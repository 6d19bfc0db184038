"""A local file server that cuts connections, ignores ranges or answers with a web page on request."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """One file.

    Attributes:
        content: its bytes.
        cut: close the connection after this many bytes of a response, 0 for never; ...
        cuts: ... so often.
        pause: send single bytes, with a pause of so many seconds before each; 0: send all at once.
        stall: send one byte, then nothing for so many seconds, then close the connection; 0: do not.
        coding: "gzip": compress the body, though nobody wished it; "chunked": send it without its length.
        ranges: whether byte ranges are supported.
        statuses: responses before the file, one per request.
        kind: content type.
        modified: time of the last change, in seconds since 1970.
    """

    content: bytes
    cut: int = 0
    cuts: int = 1_000_000
    pause: float = 0.0
    stall: float = 0.0
    coding: str = ""
    ranges: bool = True
    statuses: tuple[int, ...] = ()
    kind: str = "application/octet-stream"
    modified: float = 0.0


class FileServer(ThreadingHTTPServer):
    """Maps paths to files; `asked` has path and range of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, path: str, content: bytes, **how: Any) -> str:
        self.files[path] = Served(content, **how)
        return self.address + path

    def handle_error(self, *_: Any) -> None:
        """Nothing on stderr: connections are cut on purpose."""


class _Answers(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append((self.path, wanted))
        file = self.server.files.get(self.path)
        if file is None:
            self._head(404, 0)
            return
        if file.statuses:
            status, file.statuses = file.statuses[0], file.statuses[1:]
            self._head(status, 0)
            return
        since = self.headers.get("If-Unmodified-Since")
        if since is not None and file.modified > parsedate_to_datetime(since).timestamp():
            self._head(412, 0)
            return
        begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and file.ranges else 0
        total = len(file.content)
        if begin >= total > 0:
            self._head(416, 0, {"Content-Range": f"bytes */{total}"})
            return
        body = file.content[begin:]
        more = {"Content-Type": file.kind}
        if wanted and file.ranges:
            more["Content-Range"] = f"bytes {begin}-{total - 1}/{total}"
        if file.coding == "gzip":
            body = gzip.compress(body)
            more["Content-Encoding"] = "gzip"
        if file.coding == "chunked":
            more["Transfer-Encoding"] = "chunked"
        self._head(206 if wanted and file.ranges else 200, None if file.coding == "chunked" else len(body), more)
        if file.coding == "chunked":
            body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        if file.stall:
            self.wfile.write(body[:1])
            time.sleep(file.stall)
            self.close_connection = True
            return
        if file.cut and file.cuts and len(body) > file.cut:
            file.cuts -= 1
            self.wfile.write(body[: file.cut])
            self.close_connection = True
            self.connection.shutdown(2)
            return
        for byte in body if file.pause else ():
            time.sleep(file.pause)
            try:
                self.wfile.write(bytes([byte]))
            except OSError:  # The client has given up.
                self.close_connection = True
                return
        if not file.pause:
            self.wfile.write(body)

    def _head(self, status: int, length: int | None, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        sized = {} if length is None else {"Content-Length": str(length)}
        for name, value in {**sized, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()


@contextlib.contextmanager
def file_server() -> Iterator[FileServer]:
    """Run the server inside the block."""
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
