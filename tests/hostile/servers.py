"""Malicious servers: the name and the response of each."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

from tests.negatives.flaky_server import Received, Response, say
from tests.negatives.test_hostile_server import BODIES

Respond = Callable[[Received], Response]


def gigabyte() -> bytes:
    """One gigabyte of zeros, compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()


def responses() -> Iterator[tuple[str, Respond]]:
    for name, response in BODIES.items():
        yield name, lambda received, response=response: response
    packed = gigabyte()
    yield "gzip bomb of 1 GB", lambda received: Response(body=packed, headers={"content-encoding": "gzip"})
    yield "gzip in gzip", lambda received: Response(body=gzip.compress(packed), headers={"content-encoding": "gzip"})
    for value in ("99999999s", "9" * 40 + "x", "-5", "nan"):
        headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": value}
        yield (
            f"x-ratelimit-reset {value[:12]}",
            lambda received, headers=headers: Response(body=say(received).body, headers=headers),
        )
    for value in ("1e9", "301", "-1", "nan", "inf", "Mon, 99 Foo 99999 99:99:99 GMT"):
        yield (
            f"429 with Retry-After {value}",
            lambda received, value=value: Response(429, {"error": {"message": "slow"}}, {"retry-after": value}),
        )
    for status in (301, 302, 303, 307, 308):
        yield (
            f"redirect {status}",
            lambda received, status=status: Response(
                status, b"", {"location": "http://evil.example/v1/chat/completions"}
            ),
        )
    yield "redirect to nowhere", lambda received: Response(307, b"", {"location": "http://["})
