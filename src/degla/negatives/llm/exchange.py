"""One request to servers, from the first attempt to the reply: asked again, put otherwise, or given up."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final

from degla.errors import DeglaError
from degla.negatives.llm import Reply, Request, RequestKey
from degla.negatives.llm.answers import Completion, read_answer
from degla.negatives.llm.endpoints import Endpoint, Pool
from degla.negatives.llm.faults import LONGEST_WAIT, Fault
from degla.negatives.llm.pacing import back_off
from degla.negatives.llm.support import RequestSettings
from degla.negatives.llm.wording import Mode

KEY_VARIABLES: Final = ("DEGLA_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key; the first that is set counts."""

_LIMITED: Final = 4
"""Times `retries` that a rate limit may put a request off: the server did not try it, so nothing was lost."""


def key_digest(key: RequestKey) -> str:
    """What a request is called in the header X-Client-Request-Id, before "-" and the number of the attempt."""
    return hashlib.sha256(f"{key.caption_id}\n{key.rule}\n{key.draw}".encode()).hexdigest()[:32]


@dataclass
class Exchange:
    """What has become of one request so far.

    Attributes:
        request: the request.
        sent: attempts.
        failed: attempts that failed in a way that may pass.
        limited: attempts that a rate limit put off.
        lowered: steps below the server's mode, tried because the mode may be what fails.
        suspect: the mode that failed before; None where none did.
        rejected: whether it failed by a refusal.
        counts: retries by kind, tokens, what happened to the schema.
    """

    request: Request
    sent: int = 0
    failed: int = 0
    limited: int = 0
    lowered: int = 0
    suspect: Mode | None = None
    rejected: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def lower(self, mode: Mode, *, rejected: bool) -> None:
        """Ask for less than that mode next time."""
        self.suspect = self.suspect or mode
        self.rejected = rejected
        self.lowered += 1

    def reply(self, completion: Completion, endpoint: Endpoint, mode: Mode) -> Reply:
        """The reply that an answer makes; the server's support learns from it."""
        answer = read_answer(self.request, completion, mode=mode)
        if self.suspect is not None and mode != self.suspect:
            endpoint.support.note_fall(failed=self.suspect, answered=mode, rejected=self.rejected)
        endpoint.support.note(answer.kept, mode=mode)
        if completion.usage:
            self.counts.update(completion.usage.counts())
        if answer.kept is False and mode != "plain":
            self.counts["schema: ignored"] += 1
        return Reply(
            self.request.key,
            answer.outcome,
            text=answer.text,
            detail=endpoint.conceal(answer.detail),
            repaired=answer.kept is False and answer.outcome == "answered",
            attempts=self.sent,
            counts=dict(self.counts),
        )

    def give_up(self, fault: Fault) -> Reply:
        """The reply where there is no answer."""
        detail = f"{fault.kind}: {fault.message}"
        return Reply(self.request.key, fault.outcome, detail=detail, attempts=self.sent, counts=dict(self.counts))


@dataclass(frozen=True)
class Asker:
    """Asks requests, each until there is a reply.

    Attributes:
        pool: the servers.
        settings: what all requests have in common.
        retries: of one request, after errors that may pass.
        backoff: seconds, base of the pauses.
        rng: draws the pauses.
        variable: the environment variable that the key came from; None without a key.
    """

    pool: Pool
    settings: RequestSettings
    retries: int
    backoff: float
    rng: Random
    variable: str | None

    async def ask(self, request: Request) -> Reply:
        """The reply to a request.

        Raises:
            DeglaError: no request can succeed.
        """
        exchange = Exchange(request)
        while True:
            endpoint = await self.pool.take()
            mode = endpoint.support.mode_for(request.form, lowered=exchange.lowered)
            body = endpoint.support.body(request, self.settings, mode=mode)
            exchange.sent += 1
            try:
                completion = await endpoint.ask(body, name=f"{key_digest(request.key)}-{exchange.sent}")
            except Fault as caught:
                fault = caught
            else:
                self.pool.give_back(endpoint, fault=None)
                return exchange.reply(completion, endpoint, mode)
            unproven = mode != "plain" and not endpoint.support.kept
            doubtful = unproven and fault.status in (500, 501)
            self.pool.give_back(endpoint, fault=fault if fault.nature == "passing" and not doubtful else None)
            if fault.nature == "fatal":
                raise await self._end(fault, endpoint)
            if endpoint.support.learn(fault, body, mode=mode):
                exchange.counts["put otherwise"] += 1
                again = endpoint.support.mode_for(request.form, lowered=exchange.lowered)
                if again == mode and "response_format" in body:
                    exchange.lower(mode, rejected=True)
                continue
            if doubtful or (unproven and fault.outcome == "rejected"):
                # It does not say that the schema is what is wrong; without it the answer shows.
                exchange.counts[f"retry: {fault.kind}"] += 1
                exchange.lower(mode, rejected=not doubtful)
                continue
            if fault.nature == "request":
                return exchange.give_up(fault)
            self.pool.check_alive()
            if fault.kind == "429":
                exchange.limited += 1
            else:
                exchange.failed += 1
            if exchange.failed > self.retries or exchange.limited > _LIMITED * self.retries:
                return exchange.give_up(fault)
            exchange.counts[f"retry: {fault.kind}"] += 1
            await asyncio.sleep(self._pause(fault, exchange))

    def _pause(self, fault: Fault, exchange: Exchange) -> float:
        """Seconds before the next attempt. What the server asks for holds the server back; jitter is added here."""
        if fault.wait is not None:
            return self.rng.uniform(0.0, self.backoff / 4)
        return back_off(exchange.failed + exchange.limited - 1, base=self.backoff, rng=self.rng)

    async def _end(self, fault: Fault, endpoint: Endpoint) -> DeglaError:
        """The error that ends the run: what the server said, and what to do."""
        said = f"It says ({fault.kind}): {fault.message}"
        said += "" if said.endswith((".", "!", "?")) else "."
        if fault.status is not None and 300 <= fault.status < 400:
            return DeglaError(
                f"The server at {endpoint.host} redirects to {fault.message}, which is not followed: captions and key "
                "would go there. If you trust that address, give it as --base-url."
            )
        if fault.status in (401, 403):
            remedy = (
                f"Check the key in the environment variable {self.variable}."
                if self.variable
                else f"Set the environment variable {KEY_VARIABLES[0]} or {KEY_VARIABLES[1]}; no key was sent."
            )
            return DeglaError(f"The server at {endpoint.host} refuses the key. {said} {remedy}")
        if fault.wait is not None and fault.wait > LONGEST_WAIT:
            return DeglaError(
                f"The server at {endpoint.host} asks to wait {_duration(fault.wait)}, and a run waits "
                f"{_duration(LONGEST_WAIT)} at most. {said} Run the same command again then: it resumes where this run "
                "stopped."
            )
        if fault.status in (402, 429):
            return DeglaError(
                f"The account at {endpoint.host} has nothing left to spend. {said} When it has, the same command goes "
                "on where this run stopped."
            )
        models = await endpoint.models()
        if models and self.settings.model not in models:
            known = ", ".join(models[:20])
            return DeglaError(
                f'The server at {endpoint.host} has no model "{self.settings.model}". {said} '
                f"Give one that it has as --model: {known}."
            )
        return DeglaError(
            f'The server at {endpoint.host} cannot be asked for "{self.settings.model}". {said} Check --model, and '
            "that --base-url ends as the server's documentation says (usually in /v1)."
        )


def _duration(seconds: float) -> str:
    if seconds > 365 * 86400:
        return "more than a year"
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"
