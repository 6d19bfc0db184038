"""The body of a server's response, bounded before it is held: bytes that arrive, and bytes that they unpack to."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from degla.negatives.llm.faults import Fault

MOST_BYTES: Final = 8 << 20
"""Bytes of one response, unpacked. An answer has a few hundred; a list of models a few thousand."""

_UNPACK: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def bounded(stream_type: type[Any]) -> Callable[[Any], Awaitable[None]]:
    """A hook for the HTTP client's responses, called before a body is read.

    Args:
        stream_type: the client library's base class of response streams.

    Returns:
        the hook; reading a response that it saw raises `Fault` where the body is longer than `MOST_BYTES`, or packed
        in a way that was not asked for.
    """

    class Bounded(stream_type):  # type: ignore[misc]
        def __init__(self, inner: Any, encoding: str) -> None:
            self.inner, self.encoding = inner, encoding

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in unpack(self.inner, self.encoding):
                yield piece

        async def aclose(self) -> None:
            await self.inner.aclose()

    async def hook(response: Any) -> None:
        encoding = response.headers.pop("content-encoding", "identity").strip().lower()
        # Bodies are UTF-8; a character set that a server names may be any codec of Python's, zlib too.
        response.headers["content-type"] = "application/json"
        response.stream = Bounded(response.stream, encoding)

    return hook


async def unpack(raw: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """The unpacked pieces of a body, `MOST_BYTES` in all at most.

    Args:
        raw: the body's bytes as they arrive.
        encoding: of the header Content-Encoding.

    Raises:
        Fault: the body is longer, damaged, or of another encoding.
    """
    if encoding not in ("", "identity", *_UNPACK):
        raise Fault("bad body", "passing", f"packed as {encoding[:40]!r}, which was not asked for")
    unpacker = zlib.decompressobj(_UNPACK[encoding]) if encoding in _UNPACK else None
    left = MOST_BYTES
    async for piece in raw:
        try:
            # One byte more than there is room for shows that it is too long, whatever the rest would unpack to.
            unpacked = unpacker.decompress(piece, left + 1) if unpacker else piece
        except zlib.error as error:
            raise Fault("bad body", "passing", f"damaged: {error}") from None
        left -= len(unpacked)
        if left < 0:
            raise Fault("too large", "passing", f"a response of more than {MOST_BYTES >> 20} MiB; no answer is")
        yield unpacked
