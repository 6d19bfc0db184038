"""Requests to servers, from the first attempt to the reply: retried, reformulated, or given up.

An attempt goes to the least busy server with capacity. The client library's own retries are disabled, see
docs/decisions/0010-server-client.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from degla.errors import DeglaError
from degla.negatives.llm import Reply, Request, RequestKey
from degla.negatives.llm.dialect import Answer, Mode
from degla.negatives.llm.endpoint import PATIENCE_AT_START, REST_AFTER, Endpoint, back_off
from degla.negatives.llm.faults import LONGEST_WAIT, NO_CHOICES, Fault

log = logging.getLogger(__name__)

KEY_VARIABLES: Final = ("DEGLA_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key; the first one that is set is used."""

_MOST_EMPTY: Final = 2
"""Maximum retries after an answer without choices; a content filter would give the same answer again."""
_MOST_REJECTED: Final = 20
"""Requests that a server rejects in a row after which the run ends: the cause is not in a request."""
_MOST_LIMITED: Final = 4
"""Maximum retries after rate limits, as a multiple of `retries`: what a server did not process costs nothing."""
_PATIENCE: Final = 600
"""Time without an answer, as a multiple of `backoff`, after which a run ends; `PATIENCE_AT_START` if it had none."""


def key_digest(key: RequestKey) -> str:
    """Return a request's id in the header X-Client-Request-Id, which adds "-" and the number of the attempt."""
    return hashlib.sha256(f"{key.caption_id}\n{key.rule}\n{key.draw}".encode()).hexdigest()[:32]


@dataclass
class PendingRequest:
    """The state of one pending request.

    Attributes:
        request: the request.
        attempts: number of attempts.
        failures: attempts with a transient failure.
        limited: attempts deferred by a rate limit.
        plain: whether to send it without a schema, because the schema may have caused the failure.
        counts: retries by kind, tokens, schema problems.
    """

    request: Request
    attempts: int = 0
    failures: int = 0
    limited: int = 0
    plain: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def give_up(self, fault: Fault) -> Reply:
        """Return the reply for a request without an answer."""
        return Reply(
            self.request.key, fault.outcome, detail=str(fault), attempts=self.attempts, counts=dict(self.counts)
        )


@dataclass
class Asker:
    """Sends requests, each until there is a reply. Use it on one event loop.

    Attributes:
        endpoints: the servers.
        hear: callback for every reply.
        concurrency: maximum concurrent requests over all servers.
        retries: maximum retries per request after transient errors.
        backoff: base of the pauses, in seconds.
        variable: the environment variable with the key; None without a key.
    """

    endpoints: Sequence[Endpoint]
    hear: Callable[[Reply], None]
    concurrency: int
    retries: int
    backoff: float
    variable: str | None
    _waiting: asyncio.Queue[PendingRequest] = field(default_factory=asyncio.Queue)
    _change: asyncio.Event = field(default_factory=asyncio.Event)
    _logged_silence: float | None = None  # beginning of the last silence that was logged

    def add(self, request: Request) -> None:
        """Take a request."""
        self._waiting.put_nowait(PendingRequest(request))

    async def run(self) -> None:
        """Send all requests taken, until cancelled or ended by an error; pending requests are then dropped.

        Raises:
            ExceptionGroup: the `DeglaError` due to which no request can succeed.
        """
        try:
            async with asyncio.TaskGroup() as attempts:
                while True:
                    pending = await self._waiting.get()
                    endpoint = await self._free()
                    endpoint.busy += 1
                    attempts.create_task(self._ask(pending, endpoint))
        finally:
            for endpoint in self.endpoints:
                await endpoint.close()

    async def _free(self) -> Endpoint:
        """Return the least busy server, once one has capacity."""
        while True:
            self._change.clear()
            now = time.monotonic()
            free = [endpoint for endpoint in self.endpoints if endpoint.has_room(now)]
            if free and sum(endpoint.busy for endpoint in self.endpoints) < self.concurrency:
                return min(free, key=lambda endpoint: endpoint.busy / endpoint.limit)
            opening = [endpoint.opens_at - now for endpoint in self.endpoints if endpoint.opens_at > now]
            with suppress(TimeoutError):
                async with asyncio.timeout(min(opening) + 0.001 if opening else None):
                    await self._change.wait()

    async def _ask(self, pending: PendingRequest, endpoint: Endpoint) -> None:
        """Make one attempt; deliver its reply, or queue the request for the next attempt."""
        # An error leaves the server busy, so nothing more is sent (and paid for) until the group has stopped.
        outcome = await self._attempt(pending, endpoint)
        endpoint.busy -= 1
        self._change.set()
        if isinstance(outcome, Reply):
            self.hear(outcome)
        else:
            await asyncio.sleep(outcome)
            self._waiting.put_nowait(pending)

    async def _attempt(self, pending: PendingRequest, endpoint: Endpoint) -> Reply | float:
        """Return the reply, or the seconds to wait before the next attempt.

        Raises:
            DeglaError: no request can succeed.
        """
        dialect, request = endpoint.dialect, pending.request
        mode: Mode = "plain" if pending.plain else dialect.mode_for(request.form)
        body = dialect.body(request, mode)
        pending.attempts += 1
        try:
            received = await endpoint.ask(
                body, name=f"{key_digest(request.key)}-{pending.attempts}", backoff=self.backoff
            )
        except Fault as caught:
            fault = caught
        else:
            return _reply(pending, received, endpoint, mode)
        if fault.nature == "fatal":
            if fault.wait is None or self._open_soon() == [endpoint]:
                raise await self._end(fault, endpoint)
            endpoint.pause(fault.wait, why=str(fault))  # the other servers continue
            pending.counts[f"retry: {fault.kind}"] += 1
            return 0.0
        if dialect.learn(fault, body, mode=mode):
            pending.counts["put otherwise"] += 1
            return 0.0
        if dialect.suspects_schema(fault, mode=mode):
            pending.counts[f"retry: {fault.kind}"] += 1
            pending.plain = True
            return 0.0
        if fault.outcome == "rejected":
            endpoint.rejected_in_row += 1
            if endpoint.rejected_in_row >= _MOST_REJECTED:
                raise DeglaError(
                    f"The server at {dialect.host} has rejected {_MOST_REJECTED} requests in a row ({fault}). Once "
                    "the cause is removed, run the same command again: it resumes where this run stopped."
                )
            if endpoint.rejected_in_row >= REST_AFTER:  # may not be due to this request: a later run asks again
                fault = replace(fault, outcome="unreachable")
        always_empty = fault.kind == NO_CHOICES and pending.counts[f"retry: {NO_CHOICES}"] >= _MOST_EMPTY
        if fault.nature == "request" or always_empty:
            return pending.give_up(fault)
        self._check_alive()
        pending.limited += fault.kind == "429"
        pending.failures += fault.kind != "429"
        if pending.failures > self.retries or pending.limited > _MOST_LIMITED * self.retries:
            return pending.give_up(fault)
        pending.counts[f"retry: {fault.kind}"] += 1
        if fault.wait is not None:  # the server is already on hold; only add jitter
            return random.uniform(0.0, self.backoff / 4)
        return back_off(pending.failures + pending.limited - 1, base=self.backoff)

    def _open_soon(self) -> list[Endpoint]:
        """Return the servers that do not ask for a longer wait than a run accepts."""
        latest = time.monotonic() + LONGEST_WAIT
        return [endpoint for endpoint in self.endpoints if endpoint.opens_at <= latest]

    def _check_alive(self) -> None:
        """Raise `DeglaError` if no server has answered for a long time; much sooner if none ever answered."""
        endpoints = self._open_soon() or self.endpoints
        if any(endpoint.failed_in_row < REST_AFTER for endpoint in endpoints):
            return
        began = max(endpoint.failing_since for endpoint in endpoints)
        silent = time.monotonic() - began
        faults = [(endpoint.dialect.host, endpoint.last_fault) for endpoint in endpoints]
        useless = ("connection", "bad body")  # kinds of faults by which a wrong --base-url shows
        unreached = [f"{host} ({fault.message})" for host, fault in faults if fault and fault.kind in useless]
        answered = any(endpoint.answers for endpoint in endpoints)
        if not answered and len(unreached) == len(faults) and silent > PATIENCE_AT_START * self.backoff:
            raise DeglaError(
                f"No server can be reached: {'; '.join(unreached)}. Check that the server is running, that --base-url "
                "has the right host, port and path (usually ending in /v1), and that no proxy or firewall blocks the "
                "connection. For a certificate that is not publicly trusted, set SSL_CERT_FILE to its file."
            )
        last = "; ".join(f"{host}: {fault}" for host, fault in faults)
        if silent > PATIENCE_AT_START * self.backoff and began != self._logged_silence:
            self._logged_silence = began
            longest = _PATIENCE * self.backoff
            log.warning("No server has answered for %.0f s (%s); trying for %.0f s.", silent, last, longest)
        if silent > _PATIENCE * self.backoff:
            raise DeglaError(
                f"No server has answered for {silent:.0f} s. Last errors: {last}. Run the same command again once a "
                "server answers: it resumes where this run stopped."
            )

    async def _end(self, fault: Fault, endpoint: Endpoint) -> DeglaError:
        """Return the error that ends the run: the server's message, and what to do."""
        host, model = endpoint.dialect.host, endpoint.dialect.settings.model
        quote = f"Its message ({fault.kind}): {fault.message}"
        quote += "" if quote.endswith((".", "!", "?")) else "."
        if fault.status is not None and 300 <= fault.status < 400:
            return DeglaError(
                f"The server at {host} redirects to {fault.message}, which is not followed, because captions and key "
                "would be sent there. If you trust that address, set it as --base-url."
            )
        if fault.status in (401, 403):
            remedy = (
                f"Check the key in the environment variable {self.variable}."
                if self.variable
                else f"Set the environment variable {KEY_VARIABLES[0]} or {KEY_VARIABLES[1]}; no key was sent."
            )
            return DeglaError(f"The server at {host} rejects the key. {quote} {remedy}")
        if fault.wait is not None and fault.wait > LONGEST_WAIT:
            return DeglaError(
                f"The server at {host} asks to wait {_duration(fault.wait)}, and a run waits {_duration(LONGEST_WAIT)} "
                f"at most. {quote} Run the same command again later: it resumes where this run stopped."
            )
        if fault.status == 402:
            return DeglaError(
                f"The account at {host} has no credit left. {quote} Add credit and run the same command again: it "
                "resumes where this run stopped."
            )
        models = await endpoint.models()
        if models and model not in models:
            return DeglaError(
                f'The server at {host} has no model "{model}". {quote} Set --model to one of: {", ".join(models[:20])}.'
            )
        return DeglaError(
            f'The server at {host} does not serve requests for "{model}". {quote} Check --model, and that --base-url '
            "has the right path (usually ending in /v1)."
        )


def _reply(pending: PendingRequest, received: Answer, endpoint: Endpoint, mode: Mode) -> Reply:
    """Convert an answer into a reply, and update the server's dialect."""
    answer = endpoint.dialect.read(pending.request, received, mode=mode)
    if pending.plain:
        endpoint.dialect.note_failure()
    endpoint.dialect.note_format(answer.in_format, mode=mode)
    endpoint.dialect.note_length(cut=answer.outcome == "cut_off")
    if received.usage:
        pending.counts.update(received.usage.counts())
    if answer.in_format is False and mode != "plain":
        pending.counts["schema: ignored"] += 1
    return Reply(
        pending.request.key,
        answer.outcome,
        text=answer.text,
        detail=endpoint.conceal(answer.detail),
        repaired=answer.in_format is False and answer.outcome == "answered",
        attempts=pending.attempts,
        counts=dict(pending.counts),
    )


def _duration(seconds: float) -> str:
    if seconds > 365 * 86400:
        return "more than a year"
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"
