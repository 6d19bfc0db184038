"""`ServerModel` with a real HTTP server on loopback that answers, fails or lies as each test requires."""

from __future__ import annotations

import json
import logging
import math
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from degla.errors import DeglaError, InputError
from degla.negatives.llm import ChatMessage, Form, LanguageModel, Reply, Request, RequestKey
from degla.negatives.llm.asker import key_digest
from degla.negatives.llm.dialect import Dialect, Mode, RequestSettings
from degla.negatives.llm.server import ServerModel
from tests.negatives.flaky_server import Received, Response, Server, completion, failure, say, schema_of, serving

CHOICES = ("A mat on a dog.", "2 dogs on a mat.", "A dog on a cat.")
SECRET = "sk-very-secret-123"


def ask(number: int, form: Form = "write", *, text: str = "", choices: tuple[str, ...] = CHOICES) -> Request:
    caption = text or f"A dog number {number} on a mat."
    chat = (
        ChatMessage("system", "Make it false."),
        ChatMessage("user", "A cup on a table."),
        ChatMessage("assistant", "A table on a cup."),
        ChatMessage("user", caption),
    )
    return Request(RequestKey(f"c{number}", "swap_nouns", 0), form, chat, caption, choices if form == "choose" else ())


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ServerModel]]:
    """Opens models with short pauses and closes them."""
    monkeypatch.setenv("DEGLA_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    opened: list[ServerModel] = []

    def open_model(*servers: Server | str, **settings: Any) -> ServerModel:
        urls = [server if isinstance(server, str) else server.url for server in servers]
        model = ServerModel(urls, settings.pop("model", "m"), **{"backoff": 0.01, "timeout": 60.0, **settings})
        opened.append(model)
        return model

    yield open_model
    for model in opened:
        model.close()


def replies(model: ServerModel, *requests: Request) -> dict[str, Reply]:
    """All replies by caption."""
    for request in requests:
        model.start(request)
    by_caption: dict[str, Reply] = {}
    while batch := model.finished():
        by_caption |= {reply.key.caption_id: reply for reply in batch}
    assert len(by_caption) == len(requests)
    return by_caption


def reply(model: ServerModel, form: Form = "write", **more: Any) -> Reply:
    return replies(model, ask(0, form, **more))["c0"]


def script(*responses: Response) -> Callable[[Received], Response]:
    """Returns the responses in turn, then behaves correctly."""
    return lambda received: responses[received.number] if received.number < len(responses) else say(received)


# What is sent


def test_request(connect: Callable[..., ServerModel]) -> None:
    with serving(say) as server:
        model = connect(server, temperature=0.7, max_tokens=50, seed=3, model="llama")
        assert isinstance(model, LanguageModel)
        assert (model.name, model.forms) == ("openai:llama", ("write", "choose"))
        answers = replies(model, ask(1), ask(2, "choose"))
    assert answers["c1"] == Reply(
        RequestKey("c1", "swap_nouns", 0),
        "answered",
        text="dog number 1 on a mat. A",
        counts={"prompt_tokens": 100, "completion_tokens": 10, "cached_tokens": 60},
    )
    assert answers["c2"].text in CHOICES and not answers["c2"].repaired
    assert answers["c2"].counts == answers["c1"].counts
    written, chosen = sorted(server.requests(), key=lambda received: "response_format" in received.body)
    assert written.headers["authorization"] == f"Bearer {SECRET}"
    assert written.key == key_digest(RequestKey("c1", "swap_nouns", 0))
    chat = [(turn["role"], turn["content"]) for turn in written.body.pop("messages")]
    assert chat == [(message.role, message.content) for message in ask(1).chat]
    assert written.body == {"model": "llama", "temperature": 0.7, "seed": 3, "max_tokens": 50}
    # The list of choices stands in the last turn alone: everything before it is the same for all captions.
    assert [turn["content"] for turn in chosen.body["messages"][:3]] == [message.content for message in ask(2).chat[:3]]
    last = chosen.body["messages"][3]["content"]
    assert last.startswith("A dog number 2 on a mat.") and "2. 2 dogs on a mat." in last
    assert schema_of(chosen.body)["properties"]["negative"]["enum"] == list(CHOICES)


def test_default_temperature(connect: Callable[..., ServerModel]) -> None:
    with serving(say) as server:
        replies(connect(server), ask(1), ask(2, "choose"))
    sent = {"response_format" in received.body: received.body.get("temperature") for received in server.requests()}
    assert sent == {False: None, True: 0.0}


def test_extra_fields(connect: Callable[..., ServerModel]) -> None:
    with serving(say) as server:
        model = connect(server, extra={"reasoning_effort": "none", "temperature": 1})
        replies(model, ask(1), ask(2, "choose"))
        assert [(one.body["reasoning_effort"], one.body["temperature"]) for one in server.requests()] == [
            ("none", 1)
        ] * 2
        assert model.describe()["extra"] == model.extra and "extra" not in connect(server).describe()


def test_keys_among_extra_fields_are_sent_but_never_written(connect: Callable[..., ServerModel]) -> None:
    secret: dict[str, Any] = {
        "api_key": "first-secret",
        "metadata": {"X-Auth-Token": "second-secret", "team": "blue"},
        "auth": {"value": "third-secret", "scopes": ["fourth-secret"]},
        "routes": [{"key": "fifth-secret", "host": "h"}, "r"],
    }
    with serving(lambda received: failure(400, f"unknown: {received.body}")) as server:
        model = connect(server, extra={"add_bos_token": 0, **secret, "max_completion_tokens": 9})
        answer = reply(model)
        assert server.requests()[-1].body["metadata"] == secret["metadata"]
    assert model.describe()["extra"] == {
        "add_bos_token": 0,
        "metadata": {"team": "blue"},
        "routes": [{"host": "h"}, "r"],
        "max_completion_tokens": 9,
    }
    assert "'add_bos_token': 0" in answer.detail
    assert answer.outcome == "rejected" and "blue" in answer.detail and "secret" not in answer.detail


def test_answers_that_thinking_cuts_off(connect: Callable[..., ServerModel], caplog: pytest.LogCaptureFixture) -> None:
    body = completion("", finish="length", reasoning_content="Let me see")
    body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 160}
    with serving(lambda received: Response(body=body)) as server, caplog.at_level(logging.WARNING):
        answers = replies(connect(server), *(ask(number) for number in range(50)))
    assert {(answer.outcome, answer.counts["reasoning_tokens"]) for answer in answers.values()} == {("cut_off", 160)}
    assert len(caplog.messages) == 1 and "has cut off 20 of 20 answers" in caplog.text and "--max-tokens" in caplog.text


def test_structured(connect: Callable[..., ServerModel]) -> None:
    with serving(say) as server:
        answer = reply(connect(server, structured=True))
        assert schema_of(server.requests()[-1].body)["properties"]["negative"] == {"type": "string"}
        assert answer.outcome == "answered" and json.loads(answer.text).keys() == {"negative"}
        assert reply(connect(server, structured=False), "choose").text in CHOICES
        assert schema_of(server.requests()[-1].body) is None


def test_many_at_once_are_taken_and_wait(connect: Callable[..., ServerModel]) -> None:
    all_started = threading.Event()
    in_time: list[bool] = []

    def answer(received: Received) -> Response:
        in_time.append(all_started.wait(30))  # `start` that waits for an answer would never let it come
        return Response(body=say(received).body, until=lambda: server.most_at_once >= 8)

    with serving(answer) as server:
        model = connect(server, concurrency=20)
        for number in range(300):
            model.start(ask(number))
        all_started.set()
        assert model.capacity >= 20
        counts = Counter[RequestKey]()
        while batch := model.finished():
            counts.update(reply.key for reply in batch)
        assert len(counts) == 300 and set(counts.values()) == {1}
        assert all(in_time)
        assert model.finished() == []
        assert 8 <= server.most_at_once <= 20


# What is retried


@pytest.mark.parametrize(
    ("kind", "response"),
    [
        ("500", failure(500, "fell over")),
        ("503", failure(503, "loading")),
        ("408", failure(408, "late")),
        ("409", failure(409, "conflict")),
        ("429", Response(429, {"error": "slow down"}, {"retry-after": "0"})),
        ("half reply", Response(body=completion("A mat on a dog."), keep=60)),
        ("connection", Response(keep=0)),
        ("bad body", Response(body=b"<html>Bad gateway</html>")),
        ("bad body", Response(body=b'{"choices": [{"mess')),
        ("no choices", Response(body={"choices": []})),
        ("502", Response(body={"error": {"code": 502, "message": "upstream"}})),
    ],
)
def test_passing_faults(connect: Callable[..., ServerModel], kind: str, response: Response) -> None:
    with serving(script(response, response)) as server:
        answer = reply(connect(server))
        assert answer.outcome == "answered" and answer.text == "dog number 0 on a mat. A"
        assert answer.counts[f"retry: {kind}"] == 2 and answer.attempts == 3
        assert [received.headers["x-client-request-id"][-2:] for received in server.requests()] == ["-1", "-2", "-3"]


def test_requests_are_given_up(connect: Callable[..., ServerModel]) -> None:
    def respond(received: Received) -> Response:
        return failure(500, f"broken at {received.headers['host']}") if "number 0 " in received.last else say(received)

    with serving(respond) as server:
        answers = replies(connect(server, retries=2), ask(0), ask(1))
    assert answers["c1"].outcome == "answered"
    assert answers["c0"].outcome == "unreachable" and answers["c0"].attempts == 3
    assert answers["c0"].counts == {"retry: 500": 2}
    assert "broken at" in answers["c0"].detail and "127.0.0.1" not in answers["c0"].detail
    limits = failure(429, "too many")
    with serving(lambda received: limits if "number 0 " in received.last else say(received)) as server:
        answers = replies(connect(server, retries=1), ask(0), ask(1))
    assert (answers["c0"].outcome, answers["c0"].attempts) == ("unreachable", 5), "four retries for each of others"


def test_a_server_whose_daily_limit_is_used_up_is_left_alone_while_another_answers(
    connect: Callable[..., ServerModel],
) -> None:
    later = Response(429, {"error": {"message": "daily limit"}}, headers={"retry-after": "4000"})
    with serving(lambda one: later if one.number < 9 else say(one)) as limited, serving(say) as server:
        answers = replies(connect(limited, server, concurrency=1), *(ask(number) for number in range(9)))
        assert {answer.outcome for answer in answers.values()} == {"answered"}
        assert (len(limited.requests()), len(server.requests())) == (1, 9)


# What is an answer about the request


def test_answers_without_choices_are_no_fault_of_the_server(connect: Callable[..., ServerModel]) -> None:
    """A filter that blocks a prompt blocks it again, and the other prompts get their answers."""

    def respond(received: Received) -> Response:
        return Response(body={"choices": []}) if "number 9 " not in received.last else say(received)

    with serving(respond) as server:
        answers = replies(connect(server, concurrency=2), *map(ask, range(12)))
    assert {name for name, answer in answers.items() if answer.outcome == "answered"} == {"c9"}
    assert {(one.outcome, one.attempts) for name, one in answers.items() if name != "c9"} == {("empty", 3)}
    assert answers["c0"].detail == "no choices: an answer without choices"


@pytest.mark.parametrize(
    ("status", "body", "outcome", "detail"),
    [
        (400, "This model's maximum context length is 4096 tokens.", "too_long", "4096"),
        (400, "the request exceeds the available context size (9031 tokens)", "too_long", "9031"),
        (413, "payload", "too_long", "payload"),
        (500, "Input is too long for the context window", "too_long", "too long"),
        (400, "messages must alternate", "rejected", "alternate"),
        (422, "bad turn", "rejected", "bad turn"),
        (400, "The response was filtered (content_filter)", "refused", "filtered"),
    ],
)
def test_answers_about_the_request(
    connect: Callable[..., ServerModel], status: int, body: str, outcome: str, detail: str
) -> None:
    with serving(lambda received: failure(status, body) if "number 0 " in received.last else say(received)) as server:
        answers = replies(connect(server), ask(0), ask(1))
    assert answers["c0"].outcome == outcome and detail in answers["c0"].detail
    assert answers["c0"].attempts == 1 and answers["c1"].outcome == "answered"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (completion("I'm sorry, but I can't assist with that."), "refused"),
        (completion("I cannot fulfil this request."), "refused"),
        (completion('{"negative": "I am sorry, I can not do it."}'), "refused"),
        (completion(None, refusal="No."), "refused"),
        (completion("A mat", finish="content_filter"), "refused"),
        (completion(""), "empty"),
        (completion(None), "empty"),
        (completion("<think>Hm.</think>"), "empty"),
        (completion("A mat on a d", finish="length"), "cut_off"),
        (completion("<think>Let me see", finish="length"), "cut_off"),
        (completion("A mat on a dog.\nThis is false because", finish="length"), "answered"),
        (completion("A mat on a dog.\n\n  \n", finish="length"), "answered"),  # spaces until the limit
        (completion("12 - 3"), "malformed"),
        (completion("<think>Hm.</think>A mat on a dog."), "answered"),
        (completion([{"type": "text", "text": "A mat on a dog."}]), "answered"),  # type: ignore[arg-type]
    ],
)
def test_outcomes_of_writing(connect: Callable[..., ServerModel], body: dict[str, Any], outcome: str) -> None:
    with serving(lambda received: Response(body=body)) as server:
        answer = reply(connect(server))
    assert answer.outcome == outcome
    assert answer.counts["completion_tokens"] == 10


# Choosing


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("3", CHOICES[2]),
        ("3. A dog on a cat.", CHOICES[2]),
        ("Answer: 2", CHOICES[1]),
        ("**1**", CHOICES[0]),
        ("The answer is 1.", CHOICES[0]),
        ("a MAT on a dog", CHOICES[0]),
        ("2 dogs on a mat", CHOICES[1]),
        ('I choose "A dog on a cat."', CHOICES[2]),
        ("<think>1 or 2?</think>\n2", CHOICES[1]),
        ('```json\n{"negative": "A dog on a cat."}\n```', CHOICES[2]),
        ("4", None),
        ("2 cats on a mat", None),
        ("A mat on a dog. A dog on a cat.", None),
        ("1. A mat on a dog. 3. A dog on a cat.", None),
        ("A dog on a cattle", None),
        ("A whale", None),
    ],
)
def test_choice_in_words(connect: Callable[..., ServerModel], content: str, text: str | None) -> None:
    with serving(lambda received: Response(body=completion(content))) as server:
        answer = reply(connect(server, structured=False), "choose")
    assert (answer.outcome, answer.text) == (("answered", text) if text else ("malformed", ""))
    assert not answer.repaired and "schema: ignored" not in answer.counts


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("No", "no"),
        ("**Yes**, both can be true.", "yes"),
        ("The caption shows a dog and no cat, so the answer is yes.", "yes"),
        ("<think>Is there a dog? No, no.</think>\n\nYes.", "yes"),
        ('{"answer": "no"}', "no"),
        ('{"answer": "no", "reason": "There is a dog in the caption."}', "no"),
        ("There is no dog in the caption, so the second text can be true of it.", None),
        ("Yes or no", None),
    ],
)
def test_a_question_is_asked_and_read_as_one(connect: Callable[..., ServerModel], words: str, text: str | None) -> None:
    prompts: list[str] = []

    def respond(received: Received) -> Response:
        prompts.append(received.last)
        return Response(body=completion(words))

    with serving(respond) as server:
        for structured, caption in ((False, "A dog."), (True, "Dog")):
            model = connect(server, structured=structured)
            answer = reply(model, "choose", text=caption, choices=("yes", "no"))
            assert (answer.outcome, answer.text) == (("answered", text) if text else ("malformed", ""))
            assert answer.repaired == (structured and text is not None and words != '{"answer": "no"}')
    endings = ['Answer with "yes" or "no"', 'Answer as a JSON object whose "answer" is "yes" or "no"']
    assert [last.rpartition("\n\n")[2] for last in prompts] == [f"{each} and nothing else." for each in endings]
    assert not any("rewritten captions" in last or "1. yes" in last for last in prompts)


def test_schema_ignored(connect: Callable[..., ServerModel], caplog: pytest.LogCaptureFixture) -> None:
    def respond(received: Received) -> Response:
        return Response(body=completion("2" if received.last.endswith("number alone.") else "A mat on a dog"))

    with serving(respond) as server, caplog.at_level(logging.WARNING):
        model = connect(server, concurrency=1)
        answers = replies(model, *(ask(number, "choose") for number in range(10)))
        bodies = [received.body for received in server.requests()]
    assert {answer.text for answer in answers.values()} == {CHOICES[0], CHOICES[1]}
    assert [answers[f"c{number}"].repaired for number in range(10)] == [True] * 3 + [False] * 7
    assert sum(answer.counts.get("schema: ignored", 0) for answer in answers.values()) == 3
    assert ["response_format" in body for body in bodies] == [True] * 3 + [False] * 7
    assert len(caplog.messages) == 1 and "ignores it" in caplog.text and SECRET not in caplog.text


def test_schema_ignored_at_length(connect: Callable[..., ServerModel]) -> None:
    def respond(received: Received) -> Response:
        plain = received.last.endswith("number alone.")
        return Response(body=completion("2") if plain else completion('{\n  "data": {\n    "id": 1', finish="length"))

    with serving(respond) as server:
        answers = replies(connect(server, concurrency=1), *(ask(number, "choose") for number in range(6)))
    assert [answers[f"c{number}"].outcome for number in range(6)] == ["cut_off"] * 3 + ["answered"] * 3


def test_a_schema_that_half_of_the_answers_keep_is_asked_for() -> None:
    dialect = Dialect("host", RequestSettings("m", seed=3))
    assert dialect.body(replace(ask(1), key=RequestKey("c1", "swap_nouns", 2)), "plain")["seed"] == 5
    assert dialect.body(replace(ask(1), key=RequestKey("c1", "unit", 2**63 - 1)), "plain")["seed"] == 2
    notes: tuple[tuple[bool, Mode, int], ...] = ((True, "json_schema", 5), (False, "json_object", 9))
    for in_format, mode, times in (*notes, (False, "json_schema", 5)):
        for _ in range(times):
            dialect.note_format(in_format, mode=mode)
        assert dialect.mode == "json_schema"
    dialect.note_format(False, mode="json_schema")
    assert dialect.mode == "plain"


def test_schema_refused(connect: Callable[..., ServerModel], caplog: pytest.LogCaptureFixture) -> None:
    def respond(received: Received) -> Response:
        if received.body.get("response_format", {}).get("type") == "json_schema":
            return failure(400, "Input should be 'text' or 'json_object': body.response_format.type")
        return say(received)

    with serving(respond) as server:
        answers = replies(connect(server, concurrency=1), *(ask(number, "choose") for number in range(5)))
        kinds = [received.body["response_format"]["type"] for received in server.requests()]
    assert {answer.outcome for answer in answers.values()} == {"answered"}
    assert kinds == ["json_schema", *["json_object"] * 5]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("status", [400, 500])
def test_schema_fails_without_saying_so(connect: Callable[..., ServerModel], status: int) -> None:
    def respond(received: Received) -> Response:
        return failure(status, "oops") if "response_format" in received.body else say(received)

    with serving(respond) as server:
        model = connect(server, concurrency=1)
        answers = [replies(model, ask(number, "choose"))[f"c{number}"] for number in range(6)]
        kinds = ["response_format" in received.body for received in server.requests()]
    assert {answer.outcome for answer in answers} == {"answered"}
    assert kinds == [True, False] * 3 + [False] * 3


def test_stray_errors_do_not_end_the_schema(connect: Callable[..., ServerModel]) -> None:
    with serving(script(failure(500, "fell over"), failure(500, "fell over"))) as server:
        model = connect(server, concurrency=1)
        answers = replies(model, *(ask(number, "choose") for number in range(6)))
        assert sum(answer.counts.get("retry: 500", 0) for answer in answers.values()) == 2
        reply(model, "choose")
        assert server.requests()[-1].body["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        ("temperature", "Unsupported value: 'temperature' does not support 0.5 with this model."),
        ("temperature", "`temperature` is deprecated for this model."),
        ("seed", '[{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]'),
    ],
)
def test_fields_that_a_server_does_not_take(connect: Callable[..., ServerModel], field: str, message: str) -> None:
    def respond(received: Received) -> Response:
        return failure(400, message) if field in received.body and received.number < 50 else say(received)

    with serving(respond) as server:
        answers = replies(connect(server, concurrency=1, temperature=0.5), *(ask(number) for number in range(4)))
        assert {answer.outcome for answer in answers.values()} == {"answered"}
        assert [field in received.body for received in server.requests()] == [True, False, False, False, False]
        if field == "max_tokens":
            assert server.requests()[-1].body["max_completion_tokens"] == 160
        # What the user asks for in every request stays: asked again without end, it would be rejected each time.
        assert reply(connect(server, extra={field: 1})).outcome == "rejected"


# What ends a run


def stops(model: ServerModel, *requests: Request) -> str:
    for request in requests or (ask(0),):
        model.start(request)
    with pytest.raises(DeglaError) as caught:
        while model.finished():
            pass
    with pytest.raises(DeglaError):
        model.finished()
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key", ["sk-schlüssel", "sk-one\nsk-two"])
def test_a_key_that_no_header_can_hold(
    connect: Callable[..., ServerModel], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("DEGLA_API_KEY", key)
    with pytest.raises(InputError, match="DEGLA_API_KEY") as caught:
        connect("http://127.0.0.1:9/v1")
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_key(connect: Callable[..., ServerModel], monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    with serving(lambda received: failure(status, f"Incorrect API key provided: {SECRET} (sk-ver***123).")) as server:
        message = stops(connect(server))
        assert "Incorrect API key provided: [hidden]" in message and "DEGLA_API_KEY" in message and "***" not in message
        monkeypatch.delenv("DEGLA_API_KEY")
        assert "no key was sent" in stops(connect(server))
        assert server.requests()[-1].headers["authorization"] == "Bearer none"
        monkeypatch.setenv("OPENAI_API_KEY", "other")
        assert "OPENAI_API_KEY" in stops(connect(server))


KEY = "3f9a71c2-own-of-the-server"  # Nothing but its value shows that it is one.


@pytest.mark.parametrize(
    "response",
    [
        Response(body=completion(f"A cat sits on {KEY}.")),
        Response(body=completion(None, refusal=f"{'No. ' * 99}{KEY}")),
        Response(body=completion(f"I cannot help with that, {'x' * 165} {KEY}")),
        Response(body=b"x" * 80 + KEY.encode()),
        Response(headers={"content-encoding": KEY}),
        failure(400, f"Bearer {KEY} is unknown"),
    ],
)
def test_a_key_that_a_server_repeats_is_in_no_reply(
    connect: Callable[..., ServerModel], monkeypatch: pytest.MonkeyPatch, response: Response
) -> None:
    """Texts and details of replies are written to files; a part of a key at the end of a cut one, too."""
    monkeypatch.setenv("DEGLA_API_KEY", KEY)
    with serving(lambda received: response) as server:
        answer = reply(connect(server, retries=0))
    assert KEY[:8] not in str(answer)
    assert "[hidden]" in str(answer) or len(answer.detail) > 200


def test_a_key_that_a_server_repeats_is_in_no_error(
    connect: Callable[..., ServerModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_API_KEY", KEY)
    with serving(lambda received: Response(307, b"", {"location": f"http://other/{KEY}/v1"})) as server:
        message = stops(connect(server))
    assert KEY not in message and "http://other/[hidden]/v1" in message

    def respond(received: Received) -> Response:
        listed = Response(body={"data": [{"id": f"n-{KEY}"}]})
        return listed if received.path.endswith("/models") else failure(404, "no such model")

    with serving(respond) as server:
        message = stops(connect(server))
    assert KEY not in message and "Set --model to one of: n-[hidden]." in message


@pytest.mark.parametrize("word", ["dog", "anything"])
def test_a_word_for_a_server_without_keys_is_no_secret(
    connect: Callable[..., ServerModel], monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("DEGLA_API_KEY", word)
    with serving(lambda received: Response(body=completion(f"A {word} on a cat."))) as server:
        assert reply(connect(server)).text == f"A {word} on a cat."


def test_a_key_of_letters_that_is_longer_than_words_is_hidden(
    connect: Callable[..., ServerModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEGLA_API_KEY", key := "qWertzuiopAsdfghjklY")
    with serving(lambda received: Response(body=completion(f"A {key} on a cat."))) as server:
        assert reply(connect(server)).text == "A [hidden] on a cat."


def test_unknown_model(connect: Callable[..., ServerModel]) -> None:
    def respond(received: Received) -> Response:
        if received.path.endswith("/models"):
            return Response(body={"data": [{"id": "llama-3.1-8b"}, {"id": "qwen"}]})
        return failure(404, "The model `m` does not exist.", code="model_not_found")

    with serving(respond) as server:
        message = stops(connect(server))
    assert "The model `m` does not exist." in message and "llama-3.1-8b, qwen" in message and "--model" in message


def test_wrong_path(connect: Callable[..., ServerModel]) -> None:
    with serving(lambda received: Response(404, {"detail": "Not Found"})) as server:
        message = stops(connect(server.url.removesuffix("/v1")))
    assert "Not Found" in message and "/v1" in message


def test_a_password_is_hidden_in_every_form_that_a_server_says_it(connect: Callable[..., ServerModel]) -> None:
    def refuse(received: Received) -> Response:
        return failure(401, f"wrong: {received.headers['authorization']} for pass word")

    with serving(refuse) as server:
        message = stops(connect(server.url.replace("//", "//user:pass%20word@")))
    assert "wrong: Basic [hidden] for [hidden]" in message


def test_no_credit_and_long_waits(connect: Callable[..., ServerModel]) -> None:
    spent = failure(429, "You exceeded your current quota.", code="insufficient_quota")
    with serving(lambda received: spent) as server:
        assert "no credit left" in stops(connect(server))
    tomorrow = Response(429, {"error": {"message": "daily limit"}}, {"retry-after": "40000"})
    with serving(lambda received: tomorrow) as server:
        assert "11.1 hours" in stops(connect(server))


def test_unreachable_from_the_start(connect: Callable[..., ServerModel]) -> None:
    with socket.socket() as silent:  # Its port is nobody else's meanwhile, and refuses.
        silent.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        message = stops(connect(f"http://user:pass%20word@{place}/v1"), *(ask(number) for number in range(20)))
    assert place in message and "--base-url" in message
    assert "pass" not in message and "user" not in message


@pytest.mark.parametrize(("timeout", "most"), [(60.0, 0.2), (0.25, 10.0)])
def test_unreachable_because_nobody_answers(
    timeout: float, most: float, connect: Callable[..., ServerModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("degla.negatives.llm.endpoint.MOST_TO_CONNECT", most)
    with socket.socket() as deaf:  # It takes connections, and never begins to encrypt.
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        model = connect(f"https://127.0.0.1:{deaf.getsockname()[1]}/v1", timeout=timeout)
        message = stops(model, *(ask(number) for number in range(9)))
    assert "No server can be reached" in message and "no connection within 0.2 s" in message


def test_all_servers_gone(connect: Callable[..., ServerModel]) -> None:
    with serving(say) as first, serving(say) as second:
        model = connect(first, second, backoff=0.002, retries=3)
        replies(model, *(ask(number) for number in range(20)))
    for number in range(200):
        model.start(ask(number))
    given_up: list[Reply] = []
    with pytest.raises(DeglaError, match="No server has answered for"):
        while True:
            given_up += model.finished()
    assert {answer.outcome for answer in given_up} <= {"unreachable"} and len(given_up) < 200


def test_a_model_that_repeats_key_and_address_is_not_quoted(connect: Callable[..., ServerModel]) -> None:
    def respond(received: Received) -> Response:
        return Response(body=completion(f"I'm sorry, but I can't use {SECRET} at {received.headers['host']}."))

    with serving(respond) as server:
        answer = reply(connect(server))
    assert answer.outcome == "refused" and "sorry" in answer.detail
    assert SECRET not in answer.detail and str(server.port) not in answer.detail


# Settings


def test_describe_names_neither_host_nor_key(connect: Callable[..., ServerModel]) -> None:
    with serving(say) as server:
        model = connect(server, temperature=0.5)
        description = json.dumps(model.describe()) + model.name + repr(model.__dict__.keys())
    assert "127.0.0.1" not in description and str(server.port) not in description and SECRET not in description
    assert model.describe()["temperature"] == 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"base_urls": []},
        {"base_urls": ["localhost:8000"]},
        {"base_urls": ["http://host:port/v1"]},
        {"model": " "},
        {"concurrency": 0},
        {"timeout": 0.0},
        {"timeout": math.nan},
        {"retries": -1},
        {"temperature": 3.0},
        {"max_tokens": 0},
        {"base_urls": iter(["http://localhost:1/v1"])},
        {"base_urls": [b"http://localhost:1/v1"]},
        {"model": 3},
        {"concurrency": "4"},
        {"concurrency": True},
        {"timeout": "60"},
        {"retries": 1.5},
        {"temperature": "hot"},
        {"max_tokens": None},
        {"structured": "yes"},
        {"seed": "1"},
        {"extra": ["a"]},
        {"backoff": None},
    ],
)
def test_bad_settings(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(InputError) as caught:
        ServerModel(**{"base_urls": ["http://localhost:1/v1"], "model": "m", **settings})
    numbers = {
        "concurrency",
        "timeout",
        "retries",
        "temperature",
        "max_tokens",
        "structured",
        "seed",
        "extra",
        "backoff",
    }
    assert len(str(caught.value).splitlines()) == 1
    assert {word for word in numbers if word in str(caught.value)} == numbers & {name}, "only the wrong one is named"


def test_a_single_url_is_no_list() -> None:
    with pytest.raises(InputError, match=r"^base_urls is a single URL\. Put it into a list\.$"):
        ServerModel("http://localhost:1/v1", "m")


def test_who_stops_waiting_gets_the_finished_replies_and_nothing_more_is_sent(
    connect: Callable[..., ServerModel],
) -> None:
    def answer(received: Received) -> Response:
        model.wait_no_longer()
        return say(received)

    with serving(answer) as server:
        model = connect(server, concurrency=1)
        for number in range(3):
            model.start(ask(number))
        while not (batch := model.finished()):  # what waited already was told
            pass
        model.close()  # whatever had been taken by then has been sent
    assert [reply.outcome for reply in batch] == ["answered"] and len(server.requests()) == 1


def test_close_with_requests_under_way(connect: Callable[..., ServerModel]) -> None:
    never = 1e6
    arrived = threading.Event()

    def answer(received: Received) -> Response:
        arrived.set()
        return Response(body=say(received).body, delay=never)

    with serving(answer) as server:
        model = connect(server, timeout=never)
        for number in range(100):
            model.start(ask(number))
        arrived.wait()
        model.close()
        model.close()


def test_a_missing_client_comes_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"needs the openai client: pip install 'degla\[llm\]'\.$"):
        ServerModel(["http://127.0.0.1:9/v1"], "model")
