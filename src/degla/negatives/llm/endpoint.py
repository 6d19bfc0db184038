"""One server: send it requests, read bounded responses, and limit the rate and concurrency of requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from degla.errors import InputError
from degla.negatives.llm.dialect import Answer, Dialect
from degla.negatives.llm.faults import LONGEST_WAIT, NO_CHOICES, Fault, conceal, fault_of_status, reset_in, take_secrets
from degla.parse import parse_json

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger(__name__)

MOST_BYTES: Final = 8 << 20
"""Maximum decompressed bytes of one response. An answer has a few hundred, a list of models a few thousand."""

_UNPACK: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
MOST_TO_CONNECT: Final = 10.0
"""Maximum seconds for a connection, so that an address without a server soon ends the run."""
NO_KEY: Final = "none"
"""Placeholder key if none is set: local servers accept any word but require one."""
REST_AFTER: Final = 3
"""Consecutive failures after which a server rests for a while and then gets one request at a time, unless it is only
too busy."""
PATIENCE_AT_START: Final = 20
"""Time without an answer, as a multiple of `backoff`, after which a run that has had none ends."""

_FIRST: Final = 8
"""Initial number of concurrent requests."""
_ANSWERS_A_STEP: Final = 20
"""Answers per additional concurrent request, once the server has been too busy."""
_LOGGED_FROM: Final = 10.0
"""Requested waits of at least this many seconds are logged."""
_SHORTEST_KEY: Final = 8
"""Characters of a key that is hidden in answers, too, if it has more than letters: "EMPTY" or "anything" for a local
server is a word, and no secret."""
_NO_WORD: Final = 20
"""From this length on a key of letters only is hidden, too: words are shorter."""
_STATUSES: Final = frozenset(map(str, range(400, 600)))


class Endpoint:
    """One server.

    Attributes:
        dialect: how to send it requests.
        limit: maximum concurrent requests. Every answer adds one at first, and 1/20 once the server has been too busy;
            every request that finds it too busy subtracts one.
        busy: number of pending requests.
        opens_at: time on the monotonic clock, in seconds, before which nothing is sent.
        answers: number of answers so far.
        failed_in_row: failures since the last answer.
        rejected_in_row: requests rejected for good since the last answer.
        failing_since: time of the first of these failures.
        last_fault: the last failure.
    """

    def __init__(self, url: str, client: AsyncOpenAI, dialect: Dialect, *, most: int, timeout: float, key: str) -> None:
        self.dialect = dialect
        self.limit = float(min(most, _FIRST))
        self.busy = self.answers = self.failed_in_row = self.rejected_in_row = 0
        self.opens_at = self.failing_since = 0.0
        self.last_fault: Fault | None = None
        self._client, self._most, self._timeout = client, most, timeout
        self._growth = 1.0
        self._resting = False
        parts = urlsplit(url)
        user, password = (unquote(part or "") for part in (parts.username, parts.password))
        header = b64encode(f"{user}:{password}".encode()).decode() if parts.password else ""  # In the header.
        own = (url, parts.netloc, parts.password or "", password, header, parts.hostname or "")
        keys = (key, password, header, *take_secrets(dialect.settings.extra)[1])
        # Messages hide all of these; whatever a server sends hides only keys, and of these no everyday word.
        self._keys = [each.encode() for each in keys if len(each) >= (_NO_WORD if each.isalpha() else _SHORTEST_KEY)]
        self._secrets = (key if key != NO_KEY else "", *own, *keys[1:])
        self._used_up: Fault | None = None  # the reason why the next request cannot be sent
        self._response = http_library().Response

    def has_room(self, now: float) -> bool:
        """Return whether the server may get another request."""
        most = 1 if self._resting else int(self.limit)
        return now >= self.opens_at and self.busy < most

    async def ask(self, body: dict[str, Any], *, name: str, backoff: float) -> Answer:
        """Send one request.

        Args:
            body: the fields of the request.
            name: the request's id, for the server's log.
            backoff: base in seconds of the rests after several consecutive failures.

        Raises:
            Fault: there is no answer.
        """
        if self._used_up is not None:
            fault, self._used_up = self._used_up, None
            raise fault
        try:
            response = await self._post(body, name)
            answer = self._read(response)
        except Fault as caught:
            fault = replace(caught, message=self._without_keys(caught.message.encode()).decode())
            self._note(fault, backoff)
            raise fault from None
        self.answers += 1
        self.failed_in_row, self.rejected_in_row, self._resting = 0, 0, False
        self.limit = min(float(self._most), self.limit + self._growth)
        tokens = answer.usage.total if answer.usage else 0
        if wait := reset_in(response.headers, tokens=tokens, now=time.time()):
            why = "its rate limit is used up (headers x-ratelimit-*)"
            if wait > LONGEST_WAIT:  # This answer counts; the next request fails.
                self._used_up = Fault("429", "fatal", why, wait=wait, status=429)
            else:
                self.pause(wait, why=why)
        return answer

    def _note(self, fault: Fault, backoff: float) -> None:
        if fault.congestion:
            self.limit = max(1.0, self.limit - 1.0)
            self._growth = 1.0 / _ANSWERS_A_STEP
        if fault.nature != "transient" or fault.kind == NO_CHOICES:
            self.failed_in_row = 0
            return
        self.failing_since = self.failing_since if self.failed_in_row else time.monotonic()
        self.failed_in_row += 1
        self.last_fault = fault
        if fault.wait is not None:
            self.pause(fault.wait, why=str(fault))
        if self.failed_in_row >= REST_AFTER and not fault.congestion:
            self._resting = True
            rest = back_off(self.failed_in_row - REST_AFTER, base=backoff)
            left = self.failing_since + PATIENCE_AT_START * backoff - time.monotonic()
            # A run that reaches no server ends then, not a long rest later.
            self.pause(min(rest, left) if left > 0 and not self.answers else rest)

    def pause(self, wait: float, *, why: str = "") -> None:
        """Send nothing for `wait` seconds; a long wait is logged if there is a reason."""
        until = time.monotonic() + wait
        if why and wait >= _LOGGED_FROM and until > self.opens_at + 1:
            log.warning("The server at %s asks to wait %.0f s (%s); waiting.", self.dialect.host, wait, why)
        self.opens_at = max(self.opens_at, until)

    async def _post(self, body: dict[str, Any], name: str) -> Any:
        import openai

        try:
            # `post` takes a third of the time of `chat.completions.create` (bench/server.py), and the body is
            # validated here anyway.
            async with asyncio.timeout(self._timeout):
                return await self._client.post(
                    self.dialect.path,
                    cast_to=self._response,
                    body=body,
                    options={"headers": {"X-Client-Request-Id": name}},
                )
        except (TimeoutError, openai.APITimeoutError) as error:
            if isinstance(error.__cause__, http_library().ConnectTimeout):
                detail = f"no connection within {time_to_connect(self._timeout):g} s"
                raise Fault("connection", "transient", detail) from None
            raise Fault("timeout", "transient", f"no answer within {self._timeout:g} s (--timeout)") from None
        except openai.APIStatusError as error:
            raise self._fault(error.status_code, error.response) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            if isinstance(cause, Fault):  # from `unpack`
                raise cause from None
            message = self.conceal(str(cause) or type(cause).__name__)
            kind = "half reply" if "incomplete" in message or "without sending complete" in message else "connection"
            raise Fault(kind, "transient", message) from None

    def _read(self, response: Any) -> Answer:
        with contextlib.suppress(ValidationError):
            answer = self.dialect.parse(self._without_keys(response.content))
            if answer.broken:
                raise Fault("half reply", "transient", f"the server broke the answer off ({answer.broken})")
            return answer
        with contextlib.suppress(InputError):  # Some servers return errors with status 200.
            value = parse_json(self._text(response), where="the body")
            error = value.get("error") if isinstance(value, dict) else None
            if isinstance(value, dict) and not value.get("choices", True) and not error:
                raise Fault(NO_CHOICES, "transient", "an answer without choices", outcome="empty")
            if isinstance(error, dict) and str(error.get("code")) in _STATUSES:
                raise self._fault(int(error["code"]), response)
        raise Fault("bad body", "transient", self.conceal(f"not an answer: {self._text(response)[:100]}"))

    def _fault(self, status: int, response: Any) -> Fault:
        body = self._text(response)
        return fault_of_status(status, body, response.headers, now=time.time(), secrets=self._secrets)

    def _without_keys(self, content: bytes) -> bytes:
        """Return what a server sent without the keys, which some repeat: of it, texts and messages go to files."""
        for key in self._keys:
            content = content.replace(key, b"[hidden]")
        return content

    def _text(self, response: Any) -> str:
        return self._without_keys(response.content).decode("utf-8", errors="replace")

    def conceal(self, message: str) -> str:
        """Return the message without this server's address and the key."""
        return conceal(message, secrets=self._secrets)

    async def models(self) -> list[str]:
        """Return the names of the models that the server lists; none if it does not list them."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                response = await self._client.get("/models", cast_to=self._response)
            models = parse_json(self._without_keys(response.content), where="the list of models")["data"]
            return [conceal(str(model["id"]), secrets=()) for model in models]
        return []

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


def time_to_connect(timeout: float) -> float:
    """Return the seconds for a connection: less than those for an answer, which would otherwise end first."""
    return min(0.8 * timeout, MOST_TO_CONNECT)


def back_off(attempt: int, *, base: float) -> float:
    """Return the seconds before a retry, drawn uniformly from 0 to `base` times 2 ** `attempt`, at most 60 * `base`.

    Full jitter keeps requests that failed together from being retried together (M. Brooker, "Exponential Backoff And
    Jitter", 2015). Unseeded: no output depends on the pauses.
    """
    return random.uniform(0.0, base * min(60.0, 2.0**attempt))


def bounded() -> Callable[[Any], Awaitable[None]]:
    """Return a response hook for the HTTP client, called before a body is read.

    Reading a hooked response raises `Fault` if the body is longer than `MOST_BYTES`, or compressed with an encoding
    that was not requested.
    """

    class Bounded(http_library().AsyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, encoding: str) -> None:
            self.inner, self.encoding = inner, encoding

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in unpack(self.inner, self.encoding):
                yield piece

        async def aclose(self) -> None:
            await self.inner.aclose()

    async def hook(response: Any) -> None:
        encoding = response.headers.pop("content-encoding", "identity").strip().lower()
        # Bodies are UTF-8; the charset that a server names could be any Python codec, even zlib.
        response.headers["content-type"] = "application/json"
        response.stream = Bounded(response.stream, encoding)

    return hook


async def unpack(raw: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Yield the decompressed pieces of a body, at most `MOST_BYTES` in total.

    Args:
        raw: the body's bytes as they arrive.
        encoding: value of the header Content-Encoding.

    Raises:
        Fault: the body is too long, damaged, or has another encoding.
    """
    if encoding not in ("", "identity", *_UNPACK):
        raise Fault("bad body", "transient", f"compressed as {encoding[:40]!r}, which was not requested")
    unpacker = zlib.decompressobj(_UNPACK[encoding]) if encoding in _UNPACK else None
    remaining = MOST_BYTES
    async for piece in raw:
        try:
            # One byte over the limit shows that the body is too long, without decompressing the rest.
            unpacked = unpacker.decompress(piece, remaining + 1) if unpacker else piece
        except zlib.error as error:
            raise Fault("bad body", "transient", f"damaged: {error}") from None
        remaining -= len(unpacked)
        if remaining < 0:
            raise Fault("too large", "transient", f"a response of more than {MOST_BYTES >> 20} MiB is not an answer")
        yield unpacked


def http_library() -> Any:
    """Return the HTTP library of the client: httpx2 since version 3, httpx before."""
    try:
        import httpx2 as http
    except ImportError:
        import httpx as http  # type: ignore[no-redef, unused-ignore]
    return http
