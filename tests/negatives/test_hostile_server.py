"""A malicious or permanently broken server costs the run no unbounded memory or time and no captions."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from degla.errors import DeglaError
from degla.negatives.llm import endpoint as endpoint_module
from degla.negatives.llm.dialect import Completion, Dialect, RequestSettings, find_choice
from degla.negatives.llm.endpoint import MOST_BYTES, Endpoint, unpack
from degla.negatives.llm.faults import LONGEST_WAIT, Fault, fault_of_status, reset_in, retry_after
from degla.negatives.llm.server import ServerModel
from tests.negatives.flaky_server import Received, Response, completion, failure, say, serving
from tests.negatives.test_server import CHOICES, ask, connect, replies, reply, script, stops

__all__ = ["connect"]  # a fixture

Connect = Callable[..., ServerModel]
BOMB = gzip.compress(b" " * (4 * MOST_BYTES))
DEEP = b'{"choices": ' + b"[" * 100_000
DIGITS = b'{"choices": [], "x": ' + b"9" * 6_000 + b"}"
ANSWER = json.dumps(completion("x")).encode()

BODIES = {
    "endless": Response(body=b"{", endless=b" " * 65_536),
    "endless error": Response(500, b"{", endless=b" " * 65_536),
    "9 MiB": Response(body=ANSWER + b" " * (9 << 20)),
    "gzip bomb": Response(body=BOMB, headers={"content-encoding": "gzip"}),
    "gzip bomb as an error": Response(503, BOMB, {"content-encoding": "gzip"}),
    "damaged gzip": Response(body=BOMB[:20] + b"\0" * 40, headers={"content-encoding": "gzip"}),
    "packed in another way": Response(body=ANSWER, headers={"content-encoding": "br"}),
    "packed twice": Response(body=ANSWER, headers={"content-encoding": "gzip, gzip"}),
    "deep": Response(body=DEEP),
    "6,000 digits": Response(body=DIGITS),
    "6,000 digits in an error": Response(500, DIGITS),
    "deep in an error": Response(500, DEEP),
    "a codec as character set": Response(500, zlib.compress(b"x"), {"content-type": "text/plain; charset=zlib"}),
    "a list": Response(body=b"[1, 2]"),
    "a code of 6,000 digits": Response(body=json.dumps({"error": {"code": "9" * 6_000}}).encode()),
    "1,000 choices": Response(body=json.dumps({"choices": [{}] * 1_000}).encode()),
    "half of a pair": Response(body=b'{"choices": [{"message": {"content": "\\ud800"}}]}'),
}


@pytest.mark.parametrize("name", BODIES)
def test_one_bad_body_is_sent_again(name: str, connect: Connect) -> None:
    with serving(script(BODIES[name])) as server:
        answer = reply(connect(server))
    assert (answer.outcome, answer.attempts) == ("answered", 2)


@pytest.mark.parametrize("name", ["endless", "gzip bomb", "deep", "6,000 digits"])
def test_bad_bodies_alone_fail_the_request_and_not_the_run(name: str, connect: Connect) -> None:
    """One caption gets only such responses: it is recorded as failed, and the others are answered."""

    def respond(received: Received) -> Response:
        return BODIES[name] if "number 1 " in received.last else say(received)

    with serving(respond) as server:
        answers = replies(connect(server, retries=2), *[ask(number) for number in range(3)])
    assert {key: answer.outcome for key, answer in answers.items()} == {
        "c0": "answered",
        "c1": "unreachable",
        "c2": "answered",
    }
    assert answers["c1"].attempts == 3 and "\n" not in answers["c1"].detail and len(answers["c1"].detail) < 500


def test_a_bomb_is_not_unpacked() -> None:
    """128 megabytes in 128 kilobytes: no more is held than the limit for an answer."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(128)) + packer.flush()

    async def arriving() -> AsyncIterator[bytes]:
        yield packed

    async def read() -> int:
        return sum([len(piece) async for piece in unpack(arriving(), "gzip")])

    tracemalloc.start()
    with pytest.raises(Fault, match="more than 8 MiB"):
        asyncio.run(read())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MOST_BYTES


def test_packed_answers_are_read(connect: Connect) -> None:
    def respond(received: Received) -> Response:
        packed = gzip.compress(json.dumps(say(received).body).encode())
        return Response(body=packed, headers={"content-encoding": "gzip"})

    with serving(respond) as server:
        assert reply(connect(server)).outcome == "answered"
        assert "br" not in server.requests()[0].headers["accept-encoding"].split(", ")


def test_an_answer_that_drips_ends_with_the_time_of_one_request(connect: Connect) -> None:
    with serving(lambda received: Response(body=b"{", endless=b" ", pause=0.01)) as server:
        answer = reply(connect(server, retries=1, timeout=0.2))
    assert (answer.outcome, answer.attempts) == ("unreachable", 2) and "no answer within 0.2 s" in answer.detail


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int, connect: Connect) -> None:
    with serving(say) as other:
        target = other.url.replace("//", "//user:secret@") + "/chat/completions?token=secret"
        with serving(lambda received: Response(status, b"", {"location": target})) as server:
            message = stops(connect(server))
        assert not other.received
    assert f"redirects to {other.url}, which is not followed" in message
    assert "--base-url" in message and "secret" not in message and "\n" not in message


@pytest.mark.parametrize(
    "location", ["", "//", "http://[", "/v2/chat/completions", "x:" + "y" * 9000, "http://a\x1b[2J/"]
)
def test_odd_redirects(location: str) -> None:
    fault = fault_of_status(307, "", {"location": location}, now=0.0, secrets=())
    assert fault.nature == "fatal" and fault.message.isprintable() and len(fault.message) <= 200


@pytest.mark.parametrize("header", [("retry-after", "1e9"), ("retry-after", "301"), ("retry-after", "inf")])
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_is_too_long_ends_the_run(status: int, header: tuple[str, str], connect: Connect) -> None:
    with serving(lambda received: Response(status, {"error": {"message": "slow"}}, dict([header]))) as server:
        message = stops(connect(server))
    assert "asks to wait" in message and "a run waits 5 minutes at most" in message and "resumes" in message


@pytest.mark.parametrize("value", ["99999999s", "9" * 400, "1000000h", "301"])
def test_a_limit_that_never_opens_again_ends_the_run_after_the_answer(value: str, connect: Connect) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": value}
    with serving(lambda received: Response(body=say(received).body, headers=headers)) as server:
        model = connect(server, concurrency=1)
        for number in range(3):
            model.start(ask(number))
        assert [answer.outcome for answer in model.finished()] == ["answered"]  # it was paid for, and counts
        with pytest.raises(DeglaError, match=r"asks to wait .* x-ratelimit-.*resumes where this run stopped") as caught:
            model.finished()
    assert len(server.requests()) == 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_nothing_is_sent_after_the_error_that_ends_the_run(concurrency: int, connect: Connect) -> None:
    """The caller learns of the error later; until then each request would be paid for."""

    def respond(received: Received) -> Response:
        return failure(401, "no") if "number 0 " in received.last else Response(body=say(received).body, delay=60.0)

    with serving(respond) as server:
        model = connect(server, concurrency=concurrency)
        message = stops(model, *[ask(number) for number in range(40)])
        model.close()  # whatever had been taken by then has been sent
    assert "rejects the key" in message and len(server.requests()) <= concurrency


@pytest.mark.parametrize("value", ["-5", "nan", "soon", "", "9" * 30 + "x", "Mon, 99 Foo 99999 99:99:99 GMT", "-inf"])
def test_waits_that_cannot_be_meant(value: str) -> None:
    assert retry_after({"retry-after": value}, now=1e9) in (None, 0.0)
    headers = {"x-ratelimit-remaining-requests": value, "x-ratelimit-reset-requests": value}
    assert reset_in(headers, tokens=1, now=1e9) == 0.0
    headers["x-ratelimit-remaining-requests"] = "0"
    assert reset_in(headers, tokens=1, now=1e9) == 0.0


def test_a_longer_wait_is_reported_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect = Dialect("there:1", RequestSettings("m"))
    endpoint = Endpoint("http://there:1/v1", None, dialect, most=4, timeout=1.0, key="k")  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        for now, wait in (
            (100.0, LONGEST_WAIT - 1),
            (100.2, LONGEST_WAIT - 1),
            (100.4, LONGEST_WAIT - 1),
            (500.0, 3.0),
        ):
            monkeypatch.setattr(endpoint_module, "time", SimpleNamespace(monotonic=lambda now=now: now))
            endpoint.pause(wait, why="429: slow down")
            assert not endpoint.has_room(now + wait - 0.5)
    assert [record.getMessage() for record in caplog.records] == [
        "The server at there:1 asks to wait 299 s (429: slow down); waiting."
    ]


@pytest.mark.parametrize("tokens", [10**400, -1, 1e300, "many", True, None])
def test_tokens_that_no_answer_has_are_not_counted(tokens: Any) -> None:
    body = completion("A cat.")
    body["usage"] = {"prompt_tokens": tokens, "completion_tokens": 3}
    answer = Completion.model_validate(body)
    assert answer.usage and answer.usage.counts() == {"completion_tokens": 3}


def test_an_answer_of_megabytes_is_not_looked_into() -> None:
    dialect = Dialect("there:1", RequestSettings("model"))
    answer = dialect.read(ask(0), Completion.model_validate(completion("a " * 1_000_000)), mode="plain")
    assert answer.outcome == "malformed" and not answer.text and len(answer.detail) < 300


def test_an_answer_of_spaces_takes_no_minutes() -> None:
    started = time.process_time()
    assert find_choice(f"Option{' ' * 60_000}x", CHOICES) is None
    assert time.process_time() - started < 10  # 20 minutes if the time grows with the square of the length


def test_what_a_server_says_cannot_steer_the_terminal() -> None:
    body = json.dumps({"error": {"message": "no\x1b[2J\r\nmodel \u202e here"}})
    assert fault_of_status(400, body, {}, now=0.0, secrets=()).message.isprintable()


def test_a_limit_of_tokens_a_minute_is_no_context() -> None:
    body = json.dumps({"error": {"message": "The request exceeds the limit of 9000 tokens a minute."}})
    natures = [fault_of_status(status, body, {}, now=0.0, secrets=()).nature for status in (400, 429, 503)]
    assert natures == ["request", "transient", "transient"]


@pytest.mark.parametrize("body", [b"[", DEEP, DIGITS, b'{"data": 3}', b'{"data": [{"id": 1}, 4]}', BOMB])
def test_a_list_of_models_that_is_none(body: bytes, connect: Connect) -> None:
    def respond(received: Received) -> Response:
        if received.path.endswith("/models"):
            return Response(body=body)
        return Response(404, {"error": {"message": "no such model"}})

    with serving(respond) as server:
        assert "no such model" in stops(connect(server))
