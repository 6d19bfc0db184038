"""One or several OpenAI-compatible servers: vLLM, llama.cpp, SGLang, TGI, Ollama, OpenAI itself.

Requests run on an asyncio loop in a separate thread. asker.py sends each until there is a reply; endpoint.py is one
server, dialect.py formats its requests and parses its answers, and faults.py handles its errors.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from degla.errors import InputError
from degla.negatives.llm import Form, Reply, Request
from degla.negatives.llm.asker import KEY_VARIABLES, Asker
from degla.negatives.llm.dialect import Dialect, RequestSettings
from degla.negatives.llm.endpoint import NO_KEY, Endpoint, bounded, http_library, time_to_connect
from degla.negatives.llm.faults import take_secrets

_TYPES: Final = (
    ("base_urls", Sequence, "a list of texts"),
    ("model", str, "a text"),
    *((name, Integral, "an integer") for name in ("concurrency", "retries", "max_tokens", "seed")),
    *((name, Real, "a number") for name in ("timeout", "backoff")),
    ("temperature", Real | None, "a number or None"),
    ("structured", bool | None, "True, False or None"),
    ("extra", Mapping, "a mapping"),
)


@dataclass(eq=False, repr=False)
class ServerModel:
    """A model on OpenAI-compatible servers; implements `LanguageModel`.

    The API key is read from the environment (DEGLA_API_KEY or OPENAI_API_KEY) and used only in requests. Nothing is
    sent before the first request.

    Attributes:
        base_urls: one or several servers with the same model, for example http://localhost:8000/v1.
        model: the model's name on the servers.
        concurrency: maximum concurrent requests over all servers; the actual number adapts.
        timeout: seconds per request.
        retries: maximum retries per request after transient errors.
        temperature: sampling temperature, 0 to 2; None uses the server's default for "write" and 0 for "choose".
        max_tokens: maximum tokens of an answer.
        structured: whether to request a JSON schema; None does so for form "choose" if the server follows it.
        extra: more fields of every request, such as {"reasoning_effort": "none"}.
        seed: sent with every request, plus the number of the draw.
        backoff: base of the pauses in seconds. The first pause before a retry is drawn from 0 to this, later ones
            double, up to 60 times this. A run ends if at its start no server can be reached for 20 times this, or if
            later none answers for 600 times this.

    Raises:
        InputError: a setting is out of range, a base URL or the key is invalid, or the client library is not installed.
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
    extra: Mapping[str, Any] = field(default_factory=dict)
    backoff: float = 0.5
    forms: ClassVar[tuple[Form, ...]] = ("write", "choose")
    dialect: ClassVar[type[Dialect]] = Dialect

    def __post_init__(self) -> None:
        for name, kinds, expected in _TYPES:
            value = getattr(self, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and name != "structured"):
                raise InputError(f"{name}: expected {expected}, got {type(value).__name__}.")
        if not self.base_urls or not self.model.strip():
            raise InputError("A server needs both --base-url and --model.")
        if isinstance(self.base_urls, str):
            raise InputError("base_urls is a single URL. Put it into a list.")
        if not all(isinstance(url, str) for url in self.base_urls):
            raise InputError("base_urls: expected a list of texts.")
        for name, least in (("concurrency", 1), ("max_tokens", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} ({getattr(self, name)}) must be {least} or more.")
        for name in ("timeout", "backoff"):
            if not getattr(self, name) > 0:  # nor is NaN a time
                raise InputError(f"{name} ({getattr(self, name):g}) must be above 0.")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise InputError(f"temperature ({self.temperature:g}) must be between 0 and 2.")
        for url in self.base_urls:
            host_of(url)
        self._settings = RequestSettings(
            self.model, self.temperature, self.max_tokens, self.structured, self.seed, dict(self.extra)
        )
        self._open()

    def _open(self) -> None:
        variable = next((name for name in KEY_VARIABLES if os.environ.get(name, "").strip()), None)
        key = os.environ[variable].strip() if variable else NO_KEY
        if not (key.isascii() and key.isprintable()):
            raise InputError(f"{variable}: a key has only ASCII characters in one line. Set it to the key alone.")
        endpoints = [self._connect(url, key) for url in self.base_urls]
        self._results: SimpleQueue[Reply | BaseException | None] = SimpleQueue()
        self._waits = True
        self._under_way = 0
        self._failed: BaseException | None = None
        self._asker = Asker(endpoints, self._results.put, self.concurrency, self.retries, self.backoff, variable)
        self._loop = asyncio.new_event_loop()
        self._asking = self._loop.create_task(self._asker.run())
        self._thread = threading.Thread(target=self._work, name="language-model", daemon=True)
        self._thread.start()

    def _connect(self, url: str, key: str) -> Endpoint:
        """Create a client for one base URL, which may include a user name and a password."""
        try:
            import openai
        except ImportError:
            raise InputError("a language-model server needs the openai client: pip install 'degla[llm]'.") from None
        host, most = host_of(url), self.concurrency
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=most + 8, max_keepalive_connections=most + 8)
        client = openai.AsyncOpenAI(
            base_url=url,
            api_key=key,
            max_retries=0,  # decision 0010: degla's own retries may go to another server and pause for the whole server
            timeout=http_library().Timeout(self.timeout, connect=time_to_connect(self.timeout)),
            http_client=openai.DefaultAsyncHttpxClient(
                limits=limits,
                headers={"accept-encoding": "gzip, deflate"},
                follow_redirects=False,  # they would carry the captions to another host
                event_hooks={"response": [bounded()]},
            ),
        )
        dialect = self.dialect(host, self._settings)
        return Endpoint(url, client, dialect, most=most, timeout=self.timeout, key=key)

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._asking)
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup as group:  # Passed on to `finished`.
            self._results.put(group.exceptions[0])
        except BaseException as error:
            self._results.put(error)

    @property
    def name(self) -> str:
        """The model's name, without host and key."""
        return f"openai:{self.model}"

    @property
    def capacity(self) -> int:
        """A little more than `concurrency`, so that the servers never wait for the pipeline."""
        return self.concurrency + self.concurrency // 4 + 4

    def describe(self) -> dict[str, object]:
        """Return the settings that shape the answers, without addresses, rates and keys."""
        description = {"protocol": "openai chat completions", **asdict(self._settings)}
        description["extra"], _ = take_secrets(self.extra)
        if not description["extra"]:  # as in files of versions without it
            del description["extra"]
        return description

    def start(self, request: Request) -> None:
        """Take a request and return at once."""
        if self._loop.is_closed():
            raise RuntimeError("a closed model takes no requests")
        self._under_way += 1
        self._loop.call_soon_threadsafe(self._asker.add, request)

    def finished(self) -> list[Reply]:
        """Return the replies received; waits for one if requests are pending.

        Raises:
            DeglaError: the key is invalid, the model is unknown, or no server can be reached or answers any more.
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
        # Replies that arrived before the failure are paid for, so return them first.
        if self._failed is not None and not replies:
            raise self._failed
        return replies

    def wait_no_longer(self) -> None:
        """See `LanguageModel`."""
        self._asker.concurrency = 0  # Queued requests are not sent, and not paid for.
        self._waits = False
        self._results.put(None)  # Wakes up a `finished` that is waiting.

    def close(self) -> None:
        """Drop pending requests and close every connection."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._asking.cancel)
        self._thread.join()
        self._loop.close()


class UnaskedServer(ServerModel):
    """A `ServerModel` without connections, for a plan: it takes no requests and needs no client library."""

    def _open(self) -> None:
        pass

    def close(self) -> None:
        """See `LanguageModel`."""


def host_of(url: str) -> str:
    """Return the host and port of a base URL for display, without user name and password.

    Raises:
        InputError: it is not an http or https URL with a host.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("invalid --base-url: give http or https URLs such as http://localhost:8000/v1.")
    return f"{parts.hostname}{port}"
