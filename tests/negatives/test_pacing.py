"""The number of concurrent requests with simulated servers, and the parsing of headers and error bodies."""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate

import pytest

from degla.negatives.llm.endpoint import back_off
from degla.negatives.llm.faults import conceal, fault_of_status, read_duration, reset_in, retry_after
from tests.negatives.flaky_server import Received, Response, failure, say
from tests.negatives.test_waiting import write
from tests.negatives.virtual_time import Ask, PretendServer, run_in_jumping_time


def pretend(seconds: float, *, refuses_above: int | None = None, slots: int = 1000) -> PretendServer:
    """A server that processes `slots` requests at once and queues others, or rejects more than a limit."""
    free = asyncio.Semaphore(slots)
    server: PretendServer

    async def respond(received: Received) -> Response:
        if refuses_above is not None and server.at_once > refuses_above:
            return failure(429, "slow down")
        async with free:
            await asyncio.sleep(seconds)
        return say(received)

    server = PretendServer(respond)
    return server


def most_at_once(monkeypatch: pytest.MonkeyPatch, server: PretendServer, *, concurrency: int, requests: int) -> int:
    """Query that server and return the maximum concurrency in the last quarter of the answers."""

    async def work(ask: Ask) -> None:
        assert {answer.outcome for answer in await ask(*map(write, range(requests)))} == {"answered"}

    run_in_jumping_time(monkeypatch, [server], work, concurrency=concurrency)
    return max(server.history[3 * len(server.history) // 4 :])


def test_grows_up_to_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_at_once(monkeypatch, pretend(1.0), concurrency=64, requests=500) == 64


def test_rate_limits_cut_and_it_keeps_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pretend(1.0, refuses_above=50)
    assert 40 <= most_at_once(monkeypatch, server, concurrency=200, requests=900) <= 60
    assert len(server.received) < 1.1 * 900


def test_a_slow_server_is_not_given_more_than_it_answers_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pretend(2.0, slots=4)  # in 60 seconds it answers 120
    most_at_once(monkeypatch, server, concurrency=512, requests=1500)
    assert len(server.received) < 1.2 * 1500


def test_never_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_at_once(monkeypatch, pretend(0.1, refuses_above=1), concurrency=8, requests=40) <= 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("6m0s", 360.0), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("1.5", 1.5), ("", 0.0), ("soon", 0.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "9s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}, 9.0),
        ({"x-ratelimit-remaining-tokens": "150", "x-ratelimit-reset-tokens": "2m"}, 120.0),
        ({"x-ratelimit-remaining-tokens": "900", "x-ratelimit-reset-tokens": "2m"}, 0.0),
        ({"x-ratelimit-remaining-tokens": "200", "x-ratelimit-reset-tokens": "2m"}, 0.0),
        (
            {
                f"x-ratelimit-{what}": value
                for what, value in (
                    ("remaining-requests", "0"),
                    ("reset-requests", "3m"),
                    ("remaining-tokens", "0"),
                    ("reset-tokens", "2m"),
                )
            },
            180.0,
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1790000030"}, 30.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1780000000"}, 0.0),
        ({"x-ratelimit-remaining-tokens": "many", "x-ratelimit-reset-tokens": "2m"}, 0.0),
    ],
)
def test_rate_limit_headers(headers: dict[str, str], seconds: float) -> None:
    assert reset_in(headers, tokens=200, now=1.79e9) == seconds


def test_retry_after_forms() -> None:
    now = 1_700_000_000.0
    assert retry_after({"retry-after": "2.5"}, now=now) == 2.5
    assert retry_after({"retry-after": "0"}, now=now) == 0.0
    assert retry_after({"retry-after": formatdate(now + 90, usegmt=True)}, now=now) == pytest.approx(90)
    assert retry_after({"retry-after": formatdate(now - 90, usegmt=True)}, now=now) == 0.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}, now=now) == 0.25
    assert retry_after({"retry-after": "soon"}, now=now) is None


def test_back_off_is_full_jitter_with_an_end() -> None:
    delays = {attempt: [back_off(attempt, base=0.5) for _ in range(500)] for attempt in (0, 3, 50)}
    assert max(delays[0]) <= 0.5 and max(delays[3]) <= 4.0 and max(delays[50]) <= 30.0
    assert min(delays[3]) < 0.1 and max(delays[3]) > 3.8


@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"message": "no such turn", "code": 3}}',
        '{"error": "no such turn"}',
        '{"message": "no such turn"}',
        '{"detail": "no such turn"}',
        '{"object": "error", "message": "no such turn", "type": "BadRequestError"}',
        "no such turn",
    ],
)
def test_messages_of_servers(body: str) -> None:
    fault = fault_of_status(400, body, {}, now=0.0, secrets=())
    assert (fault.message, fault.nature, fault.outcome) == ("no such turn", "request", "rejected")


@pytest.mark.parametrize("message", ["model 'm' not found, try pulling it first", "The model `m` could not be found."])
def test_server_that_does_not_find_the_model_ends_the_run(message: str) -> None:
    fault = fault_of_status(400, json.dumps({"error": message}), {}, now=0.0, secrets=())
    assert (fault.message, fault.nature) == (message, "fatal")


def test_conceal() -> None:
    message = "key sk-abc***xyz or hunter2 refused at https://u:p@host/v1 (10.0.0.7:8000)\nbye"
    assert conceal(message, secrets=("hunter2", "")) == "key [key] or [hidden] refused at [address] ([address]) bye"
