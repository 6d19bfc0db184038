"""Any OpenAI-compatible server, or several: vLLM, llama.cpp, SGLang, TGI, Ollama, OpenAI itself.

Requests run on an asyncio loop in a thread of their own. asker.py asks each until there is a reply; endpoint.py is one
server, dialect.py how it is asked and what its answers mean, faults.py its errors.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import ClassVar
from urllib.parse import urlsplit

from degla.errors import DeglaError, InputError
from degla.negatives.llm import Form, Reply, Request
from degla.negatives.llm.asker import KEY_VARIABLES, Asker
from degla.negatives.llm.dialect import Dialect, RequestSettings
from degla.negatives.llm.endpoint import NO_KEY, Endpoint, bounded


@dataclass(eq=False, repr=False)
class ServerModel:
    """A model behind OpenAI-compatible servers; keeps the contract `LanguageModel`.

    The API key comes from the environment (DEGLA_API_KEY or OPENAI_API_KEY) and goes nowhere but into requests. Nothing
    is sent before the first request.

    Attributes:
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

    base_urls: Sequence[str]
    model: str
    concurrency: int = 64
    timeout: float = 60.0
    retries: int = 8
    temperature: float | None = None
    max_tokens: int = 160
    structured: bool | None = None
    seed: int = 0
    backoff: float = 0.5
    forms: ClassVar[tuple[Form, ...]] = ("write", "choose")

    def __post_init__(self) -> None:
        if not self.base_urls or not self.model.strip():
            raise InputError("A server needs --base-url and --model; one of them is missing.")
        numbers = self.concurrency >= 1 and self.retries >= 0 and self.max_tokens >= 1
        if not (numbers and self.timeout > 0 and self.backoff > 0):  # nor is NaN a time
            raise InputError(
                f"concurrency ({self.concurrency}) and max_tokens ({self.max_tokens}) must be 1 or more, timeout "
                f"({self.timeout:g}) and backoff ({self.backoff:g}) above 0, retries ({self.retries}) 0 or more."
            )
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise InputError(f"temperature ({self.temperature:g}) must lie between 0 and 2.")
        variable = next((name for name in KEY_VARIABLES if os.environ.get(name, "").strip()), None)
        key = os.environ[variable].strip() if variable else NO_KEY
        settings = RequestSettings(self.model, self.temperature, self.max_tokens, self.structured, self.seed)
        endpoints = [
            connect(url, settings, key=key, most=self.concurrency, timeout=self.timeout) for url in self.base_urls
        ]
        self._settings = settings
        self._results: SimpleQueue[Reply | BaseException | None] = SimpleQueue()
        self._waits = True
        self._under_way = 0
        self._failed: BaseException | None = None
        self._asker = Asker(endpoints, self._results.put, self.concurrency, self.retries, self.backoff, variable)
        self._loop = asyncio.new_event_loop()
        self._asking = self._loop.create_task(self._asker.run())
        self._thread = threading.Thread(target=self._work, name="language-model", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._asking)
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup as group:  # Whoever waits for a reply must hear of it.
            self._results.put(group.exceptions[0])
        except BaseException as error:
            self._results.put(error)

    @property
    def name(self) -> str:
        """The model's name, without host and key."""
        return f"openai:{self.model}"

    @property
    def capacity(self) -> int:
        """A little more than may be under way, so that none of it waits for the pipeline."""
        return self.concurrency + self.concurrency // 4 + 4

    def describe(self) -> dict[str, object]:
        """What shapes the answers; neither addresses nor how fast they are asked."""
        return {"protocol": "openai chat completions", **asdict(self._settings)}

    def start(self, request: Request) -> None:
        """Take a request; returns at once."""
        if self._loop.is_closed():
            raise RuntimeError("a closed model takes no requests")
        self._under_way += 1
        self._loop.call_soon_threadsafe(self._asker.add, request)

    def finished(self) -> list[Reply]:
        """Replies that have come; waits for one where requests are under way.

        Raises:
            DeglaError: the key is wrong, there is no such model, no server can be reached or none answers any more.
        """
        replies: list[Reply] = []
        while self._failed is None and len(replies) < self._under_way:
            try:
                result = self._results.get(block=self._waits and not replies)
            except Empty:
                break
            if isinstance(result, BaseException):
                self._failed = result
            elif result is not None:
                replies.append(result)
        self._under_way -= len(replies)
        # Replies that came before the failure are paid for: they are handed over first.
        if self._failed is not None and not replies:
            raise self._failed
        return replies

    def wait_no_longer(self) -> None:
        """See `LanguageModel`."""
        self._asker.concurrency = 0  # What waits for a server is not sent, and not paid for.
        self._waits = False
        self._results.put(None)  # For a `finished` that waits already.

    def close(self) -> None:
        """Drop what is under way and close every connection."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._asking.cancel)
        self._thread.join()
        self._loop.close()


def connect(url: str, settings: RequestSettings, *, key: str, most: int, timeout: float) -> Endpoint:
    """A client for one base URL.

    Args:
        url: may hold a user name and a password.
        settings: what all requests have in common.
        key: the API key.
        most: requests under way at once, at most.
        timeout: seconds for one request.

    Raises:
        InputError: the URL is none.
        DeglaError: the client library is not installed.
    """
    try:
        import openai
    except ImportError:
        raise DeglaError('The client for servers is not installed: pip install "degla[llm]".') from None
    host = host_of(url)
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=most + 8, max_keepalive_connections=most + 8)
    client = openai.AsyncOpenAI(
        base_url=url,
        api_key=key,
        max_retries=0,  # decision 0010: a retry here may go to another server, and waits for the whole server's sake
        timeout=timeout,
        http_client=openai.DefaultAsyncHttpxClient(
            limits=limits,
            headers={"accept-encoding": "gzip, deflate"},
            follow_redirects=False,  # they would carry the captions to another host
            event_hooks={"response": [bounded()]},
        ),
    )
    return Endpoint(url, client, Dialect(host, settings), most=most, timeout=timeout, key=key)


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
