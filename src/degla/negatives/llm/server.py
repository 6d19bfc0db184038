"""Any OpenAI-compatible server, or several: vLLM, llama.cpp, SGLang, TGI, Ollama, OpenAI itself.

Requests run on an asyncio loop in a thread of their own. exchange.py asks one request until there is a reply;
faults.py says what an error means, pacing.py how many requests go at once, support.py what a server takes,
endpoints.py which server gets the next one.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from random import Random

from degla.errors import InputError
from degla.negatives.llm import Form, Reply, Request
from degla.negatives.llm.endpoints import NO_KEY, Pool, connect, host_of
from degla.negatives.llm.exchange import KEY_VARIABLES, Asker
from degla.negatives.llm.support import RequestSettings


class ServerModel:
    """A model behind OpenAI-compatible servers; keeps the contract `LanguageModel`.

    The API key comes from the environment (DEGLA_API_KEY or OPENAI_API_KEY) and goes nowhere but into requests.
    """

    forms: tuple[Form, ...] = ("write", "choose")

    def __init__(
        self,
        base_urls: Sequence[str],
        model: str,
        *,
        concurrency: int = 64,
        timeout: float = 60.0,
        retries: int = 8,
        temperature: float | None = None,
        max_tokens: int = 160,
        structured: bool | None = None,
        seed: int = 0,
        backoff: float = 0.5,
    ) -> None:
        """Take the settings and start the thread; nothing is sent yet.

        Args:
            base_urls: one or several servers of the same model, for example http://localhost:8000/v1.
            model: its name there.
            concurrency: requests under way at once over all servers, at most; how many it is is found out.
            timeout: seconds for one request.
            retries: of one request, after errors that may pass.
            temperature: of the draws, 0 or more; None: the server's own for "write", 0 for "choose".
            max_tokens: of an answer.
            structured: ask by a JSON schema: always, or never; None: for form "choose", as far as the server keeps it.
            seed: sent with every request, plus the number of the draw.
            backoff: seconds; the first pause before a retry is drawn from 0 to this, later ones double, up to 60 times
                this. A run ends where no server can be reached for 20 times this at its start, or none answers for
                600 times this later.

        Raises:
            InputError: a setting is out of range, or a base URL is none.
            DeglaError: the client library is not installed.
        """
        if not base_urls or not model.strip():
            raise InputError("A server needs --base-url and --model; one of them is missing.")
        if concurrency < 1 or retries < 0 or timeout <= 0 or max_tokens < 1 or backoff <= 0:
            raise InputError(
                f"concurrency ({concurrency}) and max_tokens ({max_tokens}) must be 1 or more, timeout ({timeout:g}) "
                f"and backoff ({backoff:g}) above 0, retries ({retries}) 0 or more."
            )
        if temperature is not None and not 0 <= temperature <= 2:
            raise InputError(f"temperature ({temperature:g}) must lie between 0 and 2.")
        for url in base_urls:
            host_of(url)
        self._settings = RequestSettings(model=model, temperature=temperature, max_tokens=max_tokens, seed=seed)
        self._concurrency = concurrency
        self._structured = structured
        variable = next((name for name in KEY_VARIABLES if os.environ.get(name, "").strip()), None)
        key = os.environ[variable].strip() if variable else NO_KEY
        endpoints = connect(base_urls, key=key, most=concurrency, timeout=timeout, structured=structured)
        # The pauses need no seed: nothing that is written depends on them.
        rng = Random()
        self._pool = Pool(endpoints, most=concurrency, backoff=backoff, rng=rng)
        self._asker = Asker(self._pool, self._settings, retries=retries, backoff=backoff, rng=rng, variable=variable)
        self._results: SimpleQueue[Reply | BaseException] = SimpleQueue()
        self._under_way = 0
        self._failed: BaseException | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="language-model", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The model's name, without host and key."""
        return f"openai:{self._settings.model}"

    @property
    def capacity(self) -> int:
        """A little more than may be under way, so that none of it waits for the pipeline."""
        return self._concurrency + self._concurrency // 4 + 4

    def describe(self) -> dict[str, object]:
        """What shapes the answers; neither addresses nor how fast they are asked."""
        return {
            "protocol": "openai chat completions",
            "model": self._settings.model,
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
            "structured": self._structured,
            "seed": self._settings.seed,
        }

    def start(self, request: Request) -> None:
        """Take a request; returns at once."""
        if self._closed:
            raise RuntimeError("a closed model takes no requests")
        self._under_way += 1
        self._loop.call_soon_threadsafe(self._begin, request)

    def finished(self) -> list[Reply]:
        """Replies that have come; waits for one where requests are under way.

        Raises:
            DeglaError: the key is wrong, there is no such model, no server can be reached or none answers any more.
        """
        replies: list[Reply] = []
        while self._failed is None and len(replies) < self._under_way:
            try:
                result = self._results.get_nowait() if replies else self._results.get()
            except Empty:
                break
            if isinstance(result, BaseException):
                self._failed = result
            else:
                replies.append(result)
        self._under_way -= len(replies)
        # Replies that came before the failure are paid for: they are handed over first.
        if self._failed is not None and not replies:
            raise self._failed
        return replies

    def close(self) -> None:
        """Drop what is under way and close every connection."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for endpoint in self._pool.endpoints:
            await endpoint.close()

    def _begin(self, request: Request) -> None:
        task = self._loop.create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request) -> None:
        try:
            self._results.put(await self._asker.ask(request))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._results.put(error)
