"""Servers in virtual time, where waiting for an hour takes no time and every run is the same.

No sockets are used: the client's transport is a function. A loop that would sleep thus has nothing else to wait for,
and its clock is advanced instead.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from degla.negatives.llm import Reply, Request, RequestKey, asker, endpoint
from degla.negatives.llm.asker import Asker
from degla.negatives.llm.dialect import Dialect, RequestSettings
from degla.negatives.llm.endpoint import Endpoint
from tests.negatives.flaky_server import Received, Response

try:
    import httpx2 as httpx
except ImportError:
    import httpx  # type: ignore[no-redef]

Respond = Callable[[Received], Response | Awaitable[Response]]


class _Jumping(selectors.DefaultSelector):
    """Adds the time to wait to `now` instead of waiting."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("everything waits for something that never comes")
        if not ready and timeout:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Run at once, because it is unknown how long to wait for a thread."""
        done = self.create_future()
        done.set_result(func(*args))
        return done


class PretendServer:
    """One server: `times` has the arrival of each request in seconds since the first, `history` the number pending."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.received: list[Received] = []
        self.moments: list[float] = []
        self.at_once = 0
        self.history: list[int] = []

    @property
    def times(self) -> list[float]:
        return [moment - self.moments[0] for moment in self.moments]

    async def handle(self, request: Any) -> Any:
        body = json.loads(request.content or b"{}")
        received = Received(request.url.path, dict(request.headers), body, len(self.received))
        self.received.append(received)
        self.moments.append(asyncio.get_running_loop().time())
        self.at_once += 1
        self.history.append(self.at_once)
        try:
            response = self.respond(received)
            if not isinstance(response, Response):
                response = await response
            await asyncio.sleep(response.delay)
        finally:
            self.at_once -= 1
        if response.keep is not None:
            raise httpx.ConnectError("refused", request=request)
        content = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        headers = {"content-type": "application/json", **response.headers}
        return httpx.Response(response.status, content=content, headers=headers)


Ask = Callable[..., Awaitable[list[Reply]]]
"""Sends all requests at once and returns their replies in order."""


def run_in_jumping_time(
    monkeypatch: pytest.MonkeyPatch,
    servers: Sequence[PretendServer],
    work: Callable[[Ask], Coroutine[Any, Any, Any]],
    *,
    concurrency: int = 64,
    timeout: float = 60.0,
    retries: int = 8,
    backoff: float = 0.5,
) -> float:
    """Run `work`, which gets a function that sends requests; return its duration in virtual seconds."""
    loop = JumpingLoop()
    clock = SimpleNamespace(monotonic=loop.time, time=time.time)
    monkeypatch.setattr(endpoint, "time", clock)
    monkeypatch.setattr(asker, "time", clock)
    random.seed(0)
    settings = RequestSettings(model="m", max_tokens=50)
    endpoints = []
    for number, server in enumerate(servers):
        url = f"http://server{number}:80/v1"
        transport = httpx.AsyncClient(transport=httpx.MockTransport(server.handle))
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=None, http_client=transport)
        dialect = Dialect(f"server{number}:80", settings)
        endpoints.append(Endpoint(url, client, dialect, most=concurrency, timeout=timeout, key="none"))
    awaited: dict[RequestKey, asyncio.Future[Reply]] = {}

    def hear(reply: Reply) -> None:
        awaited.pop(reply.key).set_result(reply)

    def fail(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(group := task.exception(), ExceptionGroup):
            for future in awaited.values():
                future.set_exception(group.exceptions[0])

    asking = Asker(endpoints, hear, concurrency, retries, backoff, None)

    async def ask(*requests: Request) -> list[Reply]:
        futures = [awaited.setdefault(request.key, loop.create_future()) for request in requests]
        for request in requests:
            asking.add(request)
        return list(await asyncio.gather(*futures))

    async def whole() -> float:
        started = loop.time()
        task = loop.create_task(asking.run())
        task.add_done_callback(fail)
        try:
            await work(ask)
            return loop.time() - started
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    try:
        # In a thread of its own: a browser that another test drives has a running loop in this one.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(loop.run_until_complete, whole()).result()
    finally:
        loop.close()
