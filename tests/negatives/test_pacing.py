"""How many requests go at once, against simulated servers; what headers and error bodies say."""

from __future__ import annotations

import heapq
from email.utils import formatdate
from random import Random

import pytest

from degla.negatives.llm.faults import conceal, fault_of_status, retry_after
from degla.negatives.llm.pacing import Pace, back_off, hold_for, read_duration


def simulate(
    pace: Pace, *, slots: int, seconds: float = 1.0, answers: int = 4000, refuses_above: int | None = None
) -> int:
    """A server that works on `slots` requests at once and lets others wait; the most that were ever under way."""
    now, most = 0.0, 0
    free = [0.0] * slots
    under_way: list[tuple[float, float, bool]] = []
    while answers:
        while pace.has_room(now):
            pace.started()
            if refuses_above is not None and pace.outstanding > refuses_above:
                heapq.heappush(under_way, (now + 0.01, now, False))
            else:
                begin = max(now, heapq.heappop(free))
                heapq.heappush(free, begin + seconds)
                heapq.heappush(under_way, (begin + seconds, now, True))
        most = max(most, pace.outstanding)
        now, started, answered = heapq.heappop(under_way)
        pace.finished()
        if answered:
            pace.answered(started=started, now=now)
            answers -= 1
        else:
            pace.congested(started=started, now=now)
    return most


def test_grows_while_it_pays() -> None:
    pace = Pace(64)
    assert simulate(pace, slots=1000, answers=500) == 64


def test_does_not_queue_at_the_server() -> None:
    pace = Pace(512)
    most = simulate(pace, slots=16)
    assert pace.limit <= 32 and most <= 64


def test_rate_limits_cut_and_it_recovers() -> None:
    pace = Pace(200)
    simulate(pace, slots=1000, refuses_above=50, answers=20000)
    assert 20 <= pace.limit <= 75


def test_cut_once_for_requests_that_were_under_way_together() -> None:
    pace = Pace(64)
    for _ in range(8):
        pace.started()
    for _ in range(8):
        pace.congested(started=1.0, now=2.0)
    assert pace.limit == pytest.approx(8 * 0.7)


def test_a_stray_failure_does_not_cut() -> None:
    pace = Pace(64)
    simulate(pace, slots=1000, answers=500)
    now = 1e6
    pace.congested(started=now, now=now + 1)
    assert pace.limit == 64


def test_latency_growth_cuts() -> None:
    pace = Pace(8)
    simulate(pace, slots=1000, answers=200)
    assert pace.limit == 8
    simulate(pace, slots=1000, seconds=5.0, answers=8)
    assert pace.limit < 8


def test_waits_while_held() -> None:
    pace = Pace(8)
    pace.hold(5.0)
    pace.hold(3.0)
    assert not pace.has_room(4.9) and pace.has_room(5.0)


def test_never_below_one() -> None:
    pace = Pace(8)
    for moment in range(100):
        pace.congested(started=float(moment), now=moment + 0.5)
    assert pace.limit == 1.0 and pace.has_room(200.0)


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
        ({"x-ratelimit-remaining-tokens": "many", "x-ratelimit-reset-tokens": "2m"}, 0.0),
    ],
)
def test_rate_limit_headers(headers: dict[str, str], seconds: float) -> None:
    assert hold_for(headers, tokens=200.0) == seconds


def test_retry_after_forms() -> None:
    now = 1_700_000_000.0
    assert retry_after({"retry-after": "2.5"}, now=now) == 2.5
    assert retry_after({"retry-after": "0"}, now=now) == 0.0
    assert retry_after({"retry-after": formatdate(now + 90, usegmt=True)}, now=now) == pytest.approx(90)
    assert retry_after({"retry-after": formatdate(now - 90, usegmt=True)}, now=now) == 0.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}, now=now) == 0.25
    assert retry_after({"retry-after": "soon"}, now=now) is None


def test_back_off_is_full_jitter_with_an_end() -> None:
    rng = Random(0)
    drawn = {attempt: [back_off(attempt, base=0.5, rng=rng) for _ in range(500)] for attempt in (0, 3, 50)}
    assert max(drawn[0]) <= 0.5 and max(drawn[3]) <= 4.0 and max(drawn[50]) <= 30.0
    assert min(drawn[3]) < 0.1 and max(drawn[3]) > 3.8


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


def test_conceal() -> None:
    message = "key sk-abc***xyz or hunter2 refused at https://u:p@host/v1 (10.0.0.7:8000)\nbye"
    assert conceal(message, secrets=("hunter2", "")) == "key [key] or [hidden] refused at [address] ([address]) bye"
