"""Servers that answer at once, in a time that only jumps: what waits an hour is over in no time, and always the same.

Nothing goes over a socket: the client's transport is a function. So a loop that would sleep has nothing else to wait
for, and its clock is set on instead.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from degla.negatives.llm import Reply, Request
from degla.negatives.llm import endpoints as endpoints_module
from degla.negatives.llm.endpoints import Endpoint, Pool
from degla.negatives.llm.exchange import Asker
from degla.negatives.llm.support import RequestSettings, Support
from tests.negatives.flaky_server import Received, Response

try:
    import httpx2 as httpx
except ImportError:
    import httpx  # type: ignore[no-redef]

Respond = Callable[[Received], Response]


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: the time that it was to wait is added to `now`."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("everything waits for something that never comes")
        if not ready and timeout:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in that time."""

    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """At once: nobody could know how long to wait for a thread."""
        done = self.create_future()
        done.set_result(func(*args))
        return done


class PretendServer:
    """One server: `times` holds when each request came, in seconds since the first."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.received: list[Received] = []
        self.moments: list[float] = []

    @property
    def times(self) -> list[float]:
        return [moment - self.moments[0] for moment in self.moments]

    async def handle(self, request: Any) -> Any:
        body = json.loads(request.content or b"{}")
        received = Received(request.url.path, dict(request.headers), body, len(self.received))
        self.received.append(received)
        self.moments.append(asyncio.get_running_loop().time())
        response = self.respond(received)
        await asyncio.sleep(response.delay)
        if response.keep is not None:
            raise httpx.ConnectError("refused", request=request)
        content = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        headers = {"content-type": "application/json", **response.headers}
        return httpx.Response(response.status, content=content, headers=headers)


Ask = Callable[..., Awaitable[list[Reply]]]
"""Asks requests all at once; their replies in the order of the requests."""


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
    """Run `work`, which is given a function that asks requests; how many seconds it took in that time."""
    loop = JumpingLoop()
    clock = SimpleNamespace(monotonic=loop.time, time=time.time)
    monkeypatch.setattr(endpoints_module, "time", clock)
    rng = Random(0)
    made = []
    for number, server in enumerate(servers):
        url = f"http://server{number}:80/v1"
        transport = httpx.AsyncClient(transport=httpx.MockTransport(server.handle))
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=None, http_client=transport)
        support = Support(host=f"server{number}:80", mode="json_schema", fixed=False)
        made.append(Endpoint(url, client, most=concurrency, timeout=timeout, support=support, key="none"))
    pool = Pool(made, most=concurrency, backoff=backoff, rng=rng)
    settings = RequestSettings(model="m", temperature=None, max_tokens=50, seed=0)
    asker = Asker(pool, settings, retries=retries, backoff=backoff, rng=rng, variable=None)

    async def ask(*requests: Request) -> list[Reply]:
        return list(await asyncio.gather(*(asker.ask(request) for request in requests)))

    async def whole() -> float:
        started = loop.time()
        try:
            await work(ask)
            return loop.time() - started
        finally:
            for endpoint in made:
                await endpoint.close()

    try:
        return loop.run_until_complete(whole())
    finally:
        loop.close()
