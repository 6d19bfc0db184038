"""Download one file over HTTP: resumes partial downloads, retries broken connections and verifies the result.

An incomplete file is kept next to its target as ``NAME.partial``, and the next call resumes it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Final

from degla.errors import DeglaError
from degla.files import PARTIAL, cannot_write
from degla.parse import in_one_line

if TYPE_CHECKING:
    from requests import Response, Session

ByteListener = Callable[[int], None]
"""Called with the number of bytes received, negative for discarded bytes."""

_CHUNK: Final = 1 << 16
"""Bytes read at once; at most this many are lost when a connection breaks."""
_CONNECT, _SILENCE = 10.0, 60.0
"""Timeouts in seconds for opening a connection, and for the next byte on an open one."""
_SLOW: Final = 100
"""Bytes per second, on average over `_SILENCE`, below which a connection counts as broken."""
_TRIES: Final = 6
"""Consecutive attempts without a byte, or too slow, after which the command gives up."""
_LONGEST_WAIT: Final = 30.0
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_PARTIAL_CONTENT, _CHANGED, _NO_SUCH_RANGE = 206, 412, 416
_REMEDY: Final = "Run the same command again to resume."


class _CutError(Exception):
    """The connection broke or is too slow, or the server is busy and asked to wait `wait` seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def open_session() -> Session:
    """Open the HTTP session for `fetch_file`; proxies come from the environment."""
    import requests

    from degla.version import __version__

    session = requests.Session()
    # Otherwise a server may compress the response, and a range would refer to the compressed bytes.
    session.headers.update({"User-Agent": f"degla/{__version__}", "Accept-Encoding": "identity"})
    return session


def fetch_file(
    url: str, target: Path, *, session: Session, check: str = "", size: int | None = None,
    advance: ByteListener = lambda count: None, wait: Callable[[float], None] = time.sleep,
) -> None:  # fmt: skip
    """Download one file, or the rest of it, and move it to its target when it is complete and verified.

    Args:
        url: its address.
        target: its path; the folder is created.
        session: from `open_session`.
        check: expected digest, "sha256:..." or "md5:..."; "" for none.
        size: expected size in bytes; None if unknown.
        advance: called for every piece.
        wait: sleeps between attempts.

    Raises:
        DeglaError: the server refuses or stops sending, the disk is full, or the file is not the expected one.
    """
    partial = target.with_name(target.name + PARTIAL)
    earlier = have = _length(partial)  # from an earlier command
    advance(have)
    fruitless = 0
    while True:
        began = time.monotonic()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if have != size:
                _take(url, partial, have, session=session, size=size, advance=advance)
            wrong = difference(partial, check=check, size=size)
            if not wrong:
                partial.replace(target)
                return
        except OSError as error:
            raise cannot_write(partial, error, remedy="Choose another --root.") from None
        except _CutError as cut:
            now, seconds = _length(partial), time.monotonic() - began
            # A server that falls silent after a byte is as slow as one that sends single bytes.
            slow = seconds >= _SILENCE and now - have < _SLOW * seconds
            fruitless = 0 if now > have and not slow else fruitless + 1
            have = now
            if fruitless >= _TRIES:
                hint = f" {have:,} bytes are kept in {partial}. {_REMEDY}" if have else " Try again later."
                raise DeglaError(f"{url}: {in_one_line(str(cut))}, {_TRIES} times in a row.{hint}") from None
            wait(cut.wait or min(_LONGEST_WAIT, 0.5 * 2**fruitless))
            continue
        advance(-_length(partial))
        partial.unlink()
        if not earlier:
            raise DeglaError(
                f"{url}: {wrong}. It was deleted. If it was damaged in transit, run the same command again. If its "
                f"authors have changed it, download it yourself, check it, and save it as {target}."
            )
        earlier = have = 0  # The partial file may have been of another version: start again.


def _take(url: str, partial: Path, have: int, *, session: Session, size: int | None, advance: ByteListener) -> None:
    """Download and append the rest of a file.

    Raises:
        _CutError: fewer bytes arrived than announced.
        DeglaError: the server refuses, or answers with a web page.
        OSError: it cannot be written.
    """
    import requests
    import urllib3

    headers = {}
    if have:
        # The partial file belongs to the version that the server had when its last byte arrived.
        since = formatdate(partial.stat().st_mtime, usegmt=True)
        headers = {"Range": f"bytes={have}-", "If-Unmodified-Since": since}
    try:
        with session.get(url, headers=headers, stream=True, timeout=(_CONNECT, _SILENCE)) as answer:
            if have and answer.status_code == _CHANGED:
                advance(-have)
                partial.unlink()
                raise _CutError("the server's file has changed since the partial download, so it is fetched again")
            begin, total = _range(url, answer, have)
            if begin is None:
                return
            if size is not None and total is not None and total != size:
                raise DeglaError(f"{url}: the server has {total:,} bytes, but the published file {size:,}. {_OTHER}")
            advance(begin - have)
            with partial.open("r+b" if begin else "wb") as stream:
                stream.truncate(begin)
                stream.seek(begin)
                for piece in _pieces(answer):
                    stream.write(piece)
                    advance(len(piece))
                    if size is not None and stream.tell() > size:  # `difference` says so; the rest could fill the disk.
                        return
                came = stream.tell()
            if total is not None and came < total:
                raise _CutError(f"the connection was closed after {came:,} of {total:,} bytes")
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _CutError(f"{type(error).__name__}: {error}") from None


def _pieces(answer: Response) -> Iterator[bytes]:
    """Yield what has arrived of a response's body, without waiting for a whole chunk; raise `_CutError` if too slow."""
    began, count = time.monotonic(), 0
    for piece in iter(lambda: answer.raw.read1(_CHUNK, decode_content=True), b""):
        yield piece
        count += len(piece)
        if (seconds := time.monotonic() - began) >= _SILENCE:
            if count < _SLOW * seconds:
                raise _CutError(f"less than {_SLOW} bytes a second arrived for {_SILENCE:g} seconds")
            began, count = time.monotonic(), 0


_OTHER = "Its authors changed it, or the address now leads to a web page. Download it yourself and put it in place."


def _range(url: str, answer: Response, have: int) -> tuple[int | None, int | None]:
    """Return the offset of a response's bytes in the file (None if there are no more) and the total size."""
    status = answer.status_code
    if status == _NO_SUCH_RANGE and have:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(have):
            return None, have
        raise DeglaError(
            f"{url}: {have:,} bytes are here, but the server's file has {total or 'another number'}. Delete the "
            f"file that ends in {PARTIAL} and run the command again."
        )
    if status in _AGAIN:
        after = answer.headers.get("Retry-After", "")
        raise _CutError(f"status {status} {answer.reason}", min(float(after), 300.0) if after.isdecimal() else 0.0)
    if not answer.ok:
        raise DeglaError(f"{url}: the server answered {status} {answer.reason}. {_MOVED}")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise DeglaError(f"{url}: the server answered with a web page instead of the file. {_MOVED}")
    length = answer.headers.get("Content-Length", "")
    if status == _PARTIAL_CONTENT:
        span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] == str(have):
            return have, _count(total)
        raise _CutError(f"the server sent another part of the file ({span!r})")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        length = ""  # Compressed unasked: this is not the length of the file.
    return 0, _count(length)


def _count(header: str) -> int | None:
    """Return the number of bytes in a header; None if it is none."""
    return int(header) if re.fullmatch("[0-9]{1,18}", header) else None  # Python refuses thousands of digits


_MOVED = "Open the address in a browser: it may have moved or need a form. --sources FILE sets other addresses."


def difference(file: Path, *, check: str, size: int | None = None) -> str:
    """Return what is wrong with a file, "" if nothing; see `fetch_file`."""
    length = _length(file)
    if size is not None and length != size:
        return f"{length:,} bytes arrived, but the file has {size:,}"
    if check:
        kind, _, expected = check.partition(":")
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
        if actual != expected:
            return f"its {kind} is {actual}, but must be {expected}"
    return ""


def _length(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
