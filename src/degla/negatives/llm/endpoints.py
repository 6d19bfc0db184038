"""Servers that answer one model's requests: which of them gets the next request, when, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from degla.errors import DeglaError, InputError
from degla.negatives.llm.answers import Completion
from degla.negatives.llm.bodies import bounded
from degla.negatives.llm.faults import LONGEST_WAIT, Fault, conceal, fault_of_status
from degla.negatives.llm.pacing import Pace, back_off, hold_for
from degla.negatives.llm.support import Support
from degla.parse import parse_json

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LOG = logging.getLogger(__name__)

_TOLD_FROM: Final = 10.0
"""Seconds; a longer wait that a server asks for is told."""
_STATUSES: Final = frozenset(map(str, range(400, 600)))
_REST_AFTER: Final = 3
"""Failures in a row after which a server is left alone for a while."""


class Endpoint:
    """One server: its client, its pace, and what it is known to take."""

    def __init__(self, url: str, client: AsyncOpenAI, *, most: int, timeout: float, support: Support, key: str) -> None:
        self.host = support.host
        self.support = support
        self.pace = Pace(most)
        self.failed_in_row = 0
        self.answers = 0
        self.last_fault: Fault | None = None
        self._client = client
        self._timeout = timeout
        parts = urlsplit(url)
        self._secrets = (key if key != NO_KEY else "", url, parts.netloc, parts.password or "", parts.hostname or "")
        self._tokens = 0.0
        self._used_up: Fault | None = None  # until when it cannot be asked, where that is too long to wait
        self._response = _response_type()

    def has_room(self, now: float) -> bool:
        """Whether it may be given a request; after several failures in a row it gets one at a time."""
        return self.pace.has_room(now) and (self.failed_in_row < _REST_AFTER or not self.pace.outstanding)

    async def ask(self, body: dict[str, Any], *, name: str) -> Completion:
        """Send one request.

        Args:
            body: the fields of the request.
            name: what the server's log may call it.

        Raises:
            Fault: there is no answer.
        """
        if self._used_up is not None:
            raise self._used_up
        started = time.monotonic()
        try:
            completion, headers = await self._send(body, name)
        except Fault as fault:
            now = time.monotonic()
            if fault.congestion:
                self.pace.congested(started=started, now=now)
            if fault.wait is not None and fault.nature == "passing":
                self._hold(fault.wait, now, why=f"{fault.kind}: {fault.message}")
            raise
        now = time.monotonic()
        self.answers += 1
        self.pace.answered(started=started, now=now)
        if completion.usage:
            tokens = (completion.usage.prompt_tokens or 0) + (completion.usage.completion_tokens or 0)
            self._tokens = 0.95 * self._tokens + 0.05 * tokens if self._tokens else float(tokens)
        if wait := hold_for(headers, tokens=self._tokens):
            why = "its rate limit is used up (headers x-ratelimit-*)"
            if wait > LONGEST_WAIT:  # This answer counts; the next request ends the run.
                self._used_up = Fault("429", "fatal", why, wait=wait, status=429)
            else:
                self._hold(wait, now, why=why)
        return completion

    def _hold(self, wait: float, now: float, *, why: str) -> None:
        if wait >= _TOLD_FROM and now + wait > self.pace.opens_at + 1:
            LOG.warning("The server at %s asks to wait %.0f s (%s); waiting.", self.host, wait, why)
        self.pace.hold(now + wait)

    async def _send(self, body: dict[str, Any], name: str) -> tuple[Completion, Mapping[str, str]]:
        import openai

        try:
            # The general `post` instead of `chat.completions.create`: a third of its time (bench/server.py), and the
            # body is validated here anyway.
            async with asyncio.timeout(self._timeout):
                response = await self._client.post(
                    "/chat/completions",
                    cast_to=self._response,
                    body=body,
                    options={"headers": {"X-Client-Request-Id": name}},
                )
            completion = Completion.model_validate_json(response.content)
        except (TimeoutError, openai.APITimeoutError):
            raise Fault("timeout", "passing", f"no answer within {self._timeout:g} s") from None
        except openai.APIStatusError as error:
            raise self._fault(error.status_code, _text(error.response), error.response.headers) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            message = self.conceal(str(cause) or type(cause).__name__)
            kind = "half reply" if "incomplete" in message or "without sending complete" in message else "connection"
            raise Fault(kind, "passing", message) from None
        except ValidationError:
            raise self._odd_body(response) from None
        return completion, response.headers

    def _odd_body(self, response: Any) -> Fault:
        """What a body means that holds no answer: some servers send errors with status 200."""
        text = _text(response)
        with contextlib.suppress(InputError):
            value = parse_json(text, where="the body")
            error = value.get("error") if isinstance(value, dict) else None
            if isinstance(error, dict) and str(error.get("code")) in _STATUSES:
                return self._fault(int(error["code"]), text, response.headers)
        return Fault("bad body", "passing", self.conceal(f"not an answer: {text[:100]}"))

    def _fault(self, status: int, text: str, headers: Mapping[str, str]) -> Fault:
        return fault_of_status(status, text, headers, now=time.time(), secrets=self._secrets)

    def conceal(self, message: str) -> str:
        """The message without this server's address and the key."""
        return conceal(message, secrets=self._secrets)

    async def models(self) -> list[str]:
        """Names of the models that the server says it has; none where it does not say."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                response = await self._client.get("/models", cast_to=self._response)
            listed = parse_json(response.content, where="the list of models")["data"]
            return [conceal(str(model["id"]), secrets=()) for model in listed]
        return []

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()


class Pool:
    """Hands out servers: the least busy one that has room, to whoever waits longest."""

    def __init__(self, endpoints: Sequence[Endpoint], *, most: int, backoff: float, rng: Random) -> None:
        self.endpoints = tuple(endpoints)
        self._most = most
        self._backoff = backoff
        self._rng = rng
        self._outstanding = 0
        self._waiting: deque[asyncio.Future[Endpoint]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._failing_since: float | None = None  # no server has answered since

    async def take(self) -> Endpoint:
        """A server for one request; waits until one has room. `give_back` must follow."""
        waiter: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._hand_out()
        return await waiter

    def give_back(self, endpoint: Endpoint, *, fault: Fault | None) -> None:
        """The request is over. A server that failed several times in a row rests, longer each time.

        Args:
            endpoint: the server.
            fault: of the server, one that may pass; None where it answered, be it that the request is wrong.
        """
        endpoint.pace.finished()
        self._outstanding -= 1
        now = time.monotonic()
        if fault is None:
            endpoint.failed_in_row = 0
            self._failing_since = None
        else:
            self._failing_since = now if self._failing_since is None else self._failing_since
            endpoint.failed_in_row += 1
            endpoint.last_fault = fault
            if endpoint.failed_in_row >= _REST_AFTER:
                pause = back_off(endpoint.failed_in_row - _REST_AFTER, base=self._backoff, rng=self._rng)
                endpoint.pace.hold(now + pause)
        self._hand_out()

    def check_alive(self) -> None:
        """Raises `DeglaError` where nothing has answered for long: at once, so to speak, if nothing ever did."""
        ever = any(endpoint.answers for endpoint in self.endpoints)
        faults = [endpoint.last_fault for endpoint in self.endpoints if endpoint.failed_in_row >= _REST_AFTER]
        if len(faults) < len(self.endpoints) or self._failing_since is None:
            return
        silent = time.monotonic() - self._failing_since
        if not ever and silent > 20 * self._backoff and all(fault and fault.lost for fault in faults):
            said = "; ".join(
                f"{endpoint.host} ({endpoint.last_fault.message})" for endpoint in self.endpoints if endpoint.last_fault
            )
            raise DeglaError(
                f"No server can be reached: {said}. Check that it runs, that --base-url names its host and port and "
                "ends as its documentation says (usually in /v1), and that no proxy or firewall stands between."
            )
        if silent > 600 * self._backoff:
            said = "; ".join(
                f"{endpoint.host}: {endpoint.last_fault}" for endpoint in self.endpoints if endpoint.last_fault
            )
            raise DeglaError(
                f"No server has answered for {silent:.0f} s. Last errors: {said}. When it answers again, the same "
                "command goes on where this run stopped."
            )

    def _hand_out(self) -> None:
        """Give servers to those who wait, in their order, as far as there is room."""
        now = time.monotonic()
        while self._waiting and self._outstanding < self._most:
            free = [endpoint for endpoint in self.endpoints if endpoint.has_room(now)]
            if not free:
                break
            best = min(free, key=lambda endpoint: endpoint.pace.outstanding / endpoint.pace.limit)
            waiter = self._waiting.popleft()
            if waiter.cancelled():
                continue
            best.pace.started()
            self._outstanding += 1
            waiter.set_result(best)
        opening = [endpoint.pace.opens_at for endpoint in self.endpoints if endpoint.pace.opens_at > now]
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._waiting and opening:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(opening) - now + 0.001, self._hand_out)


NO_KEY: Final = "none"
"""Sent where no key is set: local servers want a word, any word."""


def connect(urls: Sequence[str], *, key: str, most: int, timeout: float, structured: bool | None) -> list[Endpoint]:
    """A client for every base URL.

    Args:
        urls: base URLs; may hold a user name and a password.
        key: the API key.
        most: requests under way at one server, at most.
        timeout: seconds for one request.
        structured: False: never ask for structured output. True: always, also where answers ignore it. None: find out.

    Raises:
        DeglaError: the client library is not installed.
    """
    try:
        import openai
    except ImportError:
        raise DeglaError('The client for servers is not installed: pip install "degla[llm]".') from None
    endpoints = []
    hook = bounded(_stream_type())
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=most + 8, max_keepalive_connections=most + 8)
    for url in urls:
        client = openai.AsyncOpenAI(
            base_url=url,
            api_key=key,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(
                limits=limits,
                headers={"accept-encoding": "gzip, deflate"},
                follow_redirects=False,  # they would carry the captions to another host
                event_hooks={"response": [hook]},
            ),
        )
        support = Support(
            host=host_of(url), mode="plain" if structured is False else "json_schema", fixed=structured is True
        )
        endpoints.append(Endpoint(url, client, most=most, timeout=timeout, support=support, key=key))
    return endpoints


def host_of(url: str) -> str:
    """Host and port of a base URL, for people; never its user name or password.

    Raises:
        InputError: it is not an http or https URL with a host.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("--base-url needs URLs such as http://localhost:8000/v1; one given is not of that form.")
    return f"{parts.hostname}{port}"


def _text(response: Any) -> str:
    return str(response.content.decode("utf-8", errors="replace"))


def _response_type() -> Any:
    """The class of a response as it came."""
    return _http().Response


def _stream_type() -> type[Any]:
    """The base class of a response's body while it arrives."""
    found: type[Any] = _http().AsyncByteStream
    return found


def _http() -> Any:
    """The HTTP library: the client builds on httpx2 since version 3, on httpx before."""
    try:
        import httpx2 as http
    except ImportError:
        import httpx as http  # type: ignore[no-redef, unused-ignore]
    return http
