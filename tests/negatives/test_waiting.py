"""When and how long requests to servers wait, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from degla.errors import DeglaError
from degla.negatives.llm import ChatMessage, Reply, Request, RequestKey
from tests.negatives.flaky_server import Flaky, Received, Response, failure, say
from tests.negatives.virtual_time import Ask, PretendServer, run_in_jumping_time

Run = Callable[..., float]


def write(number: int) -> Request:
    caption = f"A dog number {number} on a mat."
    return Request(RequestKey(f"c{number}", "swap_nouns", 0), "write", (ChatMessage("user", caption),), caption)


def later(seconds: float) -> Callable[[Received], Response]:
    return lambda received: Response(body=say(received).body, delay=seconds)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    return partial(run_in_jumping_time, monkeypatch)


@pytest.mark.parametrize("header", [("retry-after", "120"), ("retry-after-ms", "120000")])
def test_retry_after_holds_the_server(run: Run, header: tuple[str, str]) -> None:
    def respond(received: Received) -> Response:
        return Response(429, {"error": "slow down"}, dict([header])) if received.number == 0 else say(received)

    async def work(ask: Ask) -> None:
        assert {answer.outcome for answer in await ask(write(0), write(1), write(2))} == {"answered"}

    server = PretendServer(respond)
    run([server], work, concurrency=1)
    # Not only the request that was put off waits: the limit is the account's.
    assert all(120 <= moment < 120.2 for moment in server.times[1:]) and len(server.times) == 4


def test_a_shorter_wait_does_not_end_a_longer_one(run: Run) -> None:
    def respond(received: Received) -> Response:
        wait = {0: "120", 1: "1"}.get(received.number)
        return Response(429, {"error": "slow down"}, {"retry-after": wait}, received.number) if wait else say(received)

    async def work(ask: Ask) -> None:
        await ask(write(0), write(1))

    server = PretendServer(respond)
    run([server], work, concurrency=2)
    assert len(server.times) == 4 and min(server.times[2:]) >= 120


def test_rate_limit_headers(run: Run) -> None:
    def respond(received: Received) -> Response:
        headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "45s"}
        return Response(body=say(received).body, headers=headers if received.number == 0 else {})

    async def work(ask: Ask) -> None:
        await ask(write(0), write(1), write(2))

    server = PretendServer(respond)
    run([server], work, concurrency=1)
    assert len(server.times) == 3 and all(45 <= moment < 45.1 for moment in server.times[1:])


def test_a_server_that_hangs_is_asked_again(run: Run) -> None:
    server = PretendServer(lambda received: later(1e6 if received.number < 2 else 29.0)(received))

    async def work(ask: Ask) -> None:
        (answer,) = await ask(write(0))
        assert (answer.outcome, answer.attempts, answer.counts["retry: timeout"]) == ("answered", 3, 2)

    assert 89 <= run([server], work, timeout=30.0) < 91


def test_no_server_from_the_start_ends_the_run_soon(run: Run) -> None:
    async def work(ask: Ask) -> None:
        with pytest.raises(DeglaError, match=r"No server can be reached: server0:80.*--base-url"):
            await ask(*(write(number) for number in range(20)))

    took = run([PretendServer(lambda received: Response(keep=0))], work, backoff=0.5)
    assert 10 < took < 15


def test_a_pause_longer_than_a_run_waits_for_a_server_is_no_wait_of_the_server(run: Run) -> None:
    async def work(ask: Ask) -> None:
        with pytest.raises(DeglaError, match="No server can be reached"):
            await ask(*map(write, range(20)))

    run([PretendServer(lambda received: Response(keep=0))], work, backoff=30.0)


def test_silence_later_is_reported_once_and_ends_the_run_after_minutes(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    down = False

    async def work(ask: Ask) -> None:
        nonlocal down
        await ask(write(0))
        down = True
        with pytest.raises(DeglaError, match=r"No server has answered for \d+ s.*resumes"):
            while True:
                assert {answer.outcome for answer in await ask(*map(write, range(1, 9)))} == {"unreachable"}

    took = run([PretendServer(lambda received: failure(503, "loading") if down else say(received))], work, backoff=0.5)
    assert 300 < took < 420
    (message,) = [record.getMessage() for record in caplog.records]
    assert (
        message.startswith("No server has answered for 1") and "(server0:80: 503: loading); trying for 300 s" in message
    )


def test_a_request_that_is_always_put_off_is_given_up(run: Run) -> None:
    async def work(ask: Ask) -> None:
        answers = await ask(*map(write, range(4)))
        assert [answer.outcome for answer in answers] == ["unreachable", *["answered"] * 3]
        assert answers[0].attempts == 5 and answers[0].counts == {"retry: 429": 4}

    def respond(received: Received) -> Response:
        return failure(429, "slow down") if "number 0 " in received.last else say(received)

    run([PretendServer(respond)], work, retries=1)


def test_a_pause_without_requests_is_no_silence(run: Run) -> None:
    server = PretendServer(lambda received: failure(503, "loading") if 1 <= received.number <= 4 else say(received))

    async def work(ask: Ask) -> None:
        await ask(write(0))
        await asyncio.sleep(36_000)  # far longer than a server may be silent
        (answer,) = await ask(write(1))
        assert (answer.outcome, answer.attempts) == ("answered", 5)

    run([server], work)


def test_the_quicker_server_gets_more(run: Run) -> None:
    quick, lame = PretendServer(later(1.0)), PretendServer(later(5.0))

    async def work(ask: Ask) -> None:
        await ask(*map(write, range(150)))

    run([quick, lame], work, concurrency=8)
    assert len(quick.received) > 2 * len(lame.received) > 20


def test_a_dead_server_rests_and_is_tried_again(run: Run) -> None:
    down = True
    good = PretendServer(later(1.0))
    bad = PretendServer(lambda received: Response(keep=0) if down else later(1.0)(received))

    async def work(ask: Ask) -> None:
        nonlocal down
        replies: list[Reply] = await ask(*map(write, range(150)))
        assert {answer.outcome for answer in replies} == {"answered"}
        assert len(bad.received) < 60
        down = False
        await asyncio.sleep(60)
        before = len(bad.received)
        await ask(*map(write, range(150, 400)))
        assert len(bad.received) - before > 20

    run([good, bad], work)


@pytest.mark.parametrize("header", ["retry-after", "x-ratelimit-reset-requests"])
@pytest.mark.parametrize(("last", "message"), [(503, "No server has answered"), (429, "server1:80 asks to wait")])
def test_a_server_that_asks_for_hours_leaves_the_work_to_others(run: Run, header: str, last: int, message: str) -> None:
    down = False

    def limited(received: Received) -> Response:
        if header == "retry-after":
            return Response(429, {"error": "all is spent"}, {header: "7200"})
        return Response(body=say(received).body, headers={header: "2h", "x-ratelimit-remaining-requests": "0"})

    def other(received: Received) -> Response:
        headers = {"retry-after": "7200"} if last == 429 else {}
        return Response(last, {"error": "not now"}, headers) if down else say(received)

    async def work(ask: Ask) -> None:
        nonlocal down
        assert {answer.outcome for answer in await ask(*map(write, range(100)))} == {"answered"}
        assert len(spent.received) <= 32  # what was under way when it said so
        before = len(spent.received)
        await asyncio.sleep(7200)
        await ask(*map(write, range(100, 200)))
        assert len(spent.received) > before  # it was asked again
        down = True
        with pytest.raises(DeglaError, match=message):
            while True:
                await ask(*map(write, range(200, 208)))

    spent = PretendServer(limited)
    run([spent, PretendServer(other)], work)


def test_everything_at_once(run: Run) -> None:
    requests = [write(number) for number in range(200)]
    batches: list[list[Reply]] = []

    async def work(ask: Ask) -> None:
        batches.append(await ask(*requests))

    run([PretendServer(Flaky(faults=0))], work)
    server = PretendServer(Flaky(seed=1, faults=0.3, hang=1e6))
    run([server], work)
    undisturbed, disturbed = ([(one.key, one.outcome, one.text) for one in replies] for replies in batches)
    assert disturbed == undisturbed
    outcomes = Counter(outcome for _, outcome, _ in disturbed)
    assert outcomes["answered"] > 150 and outcomes.keys() >= {"refused", "empty", "malformed", "cut_off"}
    retried = sum(count for one in batches[1] for kind, count in one.counts.items() if kind.startswith("retry: "))
    assert retried > 30
    assert sum(answer.attempts for answer in batches[1]) == len(server.received)
