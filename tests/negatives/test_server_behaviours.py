"""What the servers that people use answer, as their documentation and bug reports show it, in tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from degla.cli import main
from degla.errors import DeglaError
from degla.negatives.llm.faults import retry_after
from degla.negatives.llm.server import ServerModel
from tests.negatives.flaky_server import Received, Response, completion, failure, say, serving
from tests.negatives.test_server import ask, connect, replies, reply, script, stops

__all__ = ["connect"]  # a fixture

Connect = Callable[..., ServerModel]


def answer_with(text: Any, *, finish: str | None = "stop", **choice: Any) -> Response:
    body = completion(text, finish=finish)  # type: ignore[arg-type]
    body["choices"][0] |= choice
    return Response(body=body)


def choice(**members: Any) -> Response:
    return Response(body={"choices": [{"index": 0, **members}]})


ASKED_AGAIN = {
    "Groq: tokens a minute": failure(
        429,
        "Rate limit reached on tokens per minute (TPM): Limit 8000, Used 7900. Please try again in 20ms. "
        "Need more tokens? Upgrade at https://console.groq.com/settings/billing",
        code="rate_limit_exceeded",
    ),
    "OpenAI: requests a minute": failure(
        429,
        "Rate limit reached: Limit 3, Used 3. Please try again in 0.02s. You can increase your rate limit by adding a "
        "payment method to your account at https://platform.openai.com/account/billing.",
        code="rate_limit_exceeded",
    ),
    "Gemini: requests a minute": Response(
        429,
        json.dumps(
            [
                {
                    "error": {
                        "code": 429,
                        "message": "You exceeded your current quota, please check your plan and billing details. Quota "
                        "exceeded for metric: requests, limit: 10. Please retry in 0.020817224s.",
                        "status": "RESOURCE_EXHAUSTED",
                    }
                }
            ]
        ).encode(),
    ),
    "TGI: generation failed": Response(424, {"error": "Request failed during generation", "error_type": "generation"}),
    "DeepSeek: interrupted": answer_with("A mat on a", finish="insufficient_system_resource"),
    "vLLM, SGLang: aborted": answer_with("A mat on a", finish="abort"),
    "OpenRouter: provider failed": answer_with("", finish="error", error={"code": 502, "message": "Upstream error"}),
    "OpenRouter: error with status 200": Response(body={"error": {"code": 429, "message": "slow down"}}),
    "no choices": Response(body={"choices": None}),
}


@pytest.mark.parametrize("name", ASKED_AGAIN)
def test_requests_are_repeated(name: str, connect: Connect) -> None:
    with serving(script(ASKED_AGAIN[name])) as server:
        answer = reply(connect(server))
    assert (answer.outcome, answer.attempts) == ("answered", 2)


OUTCOMES = {
    "OpenRouter: flagged": (failure(403, "The model requires moderation. Your input was flagged."), "refused"),
    "OpenAI: flagged": (failure(400, "Your prompt was flagged", code="invalid_prompt"), "refused"),
    "DeepSeek: flagged": (failure(400, "Content Exists Risk", type="invalid_request_error"), "refused"),
    "Gemini: filtered, no message": (choice(finish_reason="content_filter: PROHIBITED_CONTENT"), "refused"),
    "Gemini: its own reasons": (answer_with("A mat on", finish="SAFETY"), "refused"),
    "Gemini: all tokens spent on thinking": (choice(finish_reason="length", message={"role": "assistant"}), "cut_off"),
    "Mistral: context is full": (answer_with("A mat on a", finish="model_length"), "cut_off"),
    "TGI: too long": (
        Response(422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 512"}),
        "too_long",
    ),
    "TGI: end of text": (answer_with("A mat on a dog.", finish="eos_token"), "answered"),
    "vLLM: thinking in its own member": (
        answer_with(None, finish=None, message={"content": "A mat on a dog.", "reasoning_content": "Hm."}),
        "answered",
    ),
    "thinking, then nothing": (answer_with(None, message={"content": None, "reasoning": "Hm."}), "empty"),
    "Mistral: parts": (
        answer_with([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"text": "A mat on a dog."}]),
        "answered",
    ),
    "a part without text": (answer_with([{"type": "text", "text": None}]), "empty"),
    "DeepSeek: empty lines before": (
        Response(body=b"\n\n" + json.dumps(completion("A mat on a dog.")).encode()),
        "answered",
    ),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcomes(name: str, connect: Connect) -> None:
    response, outcome = OUTCOMES[name]
    with serving(lambda received: response if "number 0 " in received.last else say(received)) as server:
        answers = replies(connect(server), ask(0), ask(1))
    assert (answers["c0"].outcome, answers["c0"].attempts, answers["c1"].outcome) == (outcome, 1, "answered")
    assert answers["c0"].text in ("", "A mat on a", "A mat on a dog.")


ENDS = {
    "OpenAI: no credit": (
        failure(429, "You exceeded your current quota, please check your plan.", code="insufficient_quota"),
        "no credit left.*resumes",
    ),
    "OpenAI: hard limit": (failure(400, "Limit reached", code="billing_hard_limit_reached"), "no credit left"),
    "Anthropic: no credit": (failure(400, "Your credit balance is too low to access the API."), "no credit left"),
    "Fireworks: no credit": (failure(412, "Account x is suspended: monthly spending limit"), "no credit left"),
    "LiteLLM: no credit": (failure(400, "Budget has been exceeded!", type="budget_exceeded"), "no credit left"),
    "Gemini: wrong key": (
        Response(400, b'[{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}]'),
        r"rejects the key. Its message \(400\): API key not valid.*DEGLA_API_KEY",
    ),
    "Groq: tokens a day": (
        failure(429, "Rate limit reached on tokens per day (TPD). Please try again in 36m17.28s."),
        "asks to wait 36 minutes",
    ),
    "llama-server: unknown model": (failure(400, "model 'm' not found"), "--model"),
    "HTTPS wanted": (
        Response(400, b"Client sent an HTTP request to an HTTPS server.\n"),
        r"20 requests in a row \(400: C",
    ),
    "LM Studio: wrong path": (
        Response(body={"error": "Unexpected endpoint or method. (POST /chat/completions)"}),
        r"Unexpected endpoint.*usually ending in /v1",
    ),
    "Open WebUI: wrong path": (Response(405, {"detail": "Method Not Allowed"}), "usually ending in /v1"),
    "a page": (Response(body=b"<!doctype html><title>WebUI</title>"), "doctype.*usually ending in /v1"),
}


@pytest.mark.parametrize("name", ENDS)
def test_ends(name: str, connect: Connect) -> None:
    response, message = ENDS[name]
    with serving(lambda received: response) as server:
        text = stops(connect(server, concurrency=1, backoff=0.005), *(ask(number) for number in range(40)))
        assert len(server.requests()) <= 40
    with pytest.raises(DeglaError, match=message):
        raise DeglaError(text)


def test_requests_rejected_in_a_row_are_sent_again_by_a_later_run(connect: Connect) -> None:
    """The first two count as rejected, the others as unreachable; an answer in between starts anew."""
    rejects = {0, 1, *range(3, 40)}
    with serving(lambda received: failure(400, "no") if received.number in rejects else say(received)) as server:
        model = connect(server, concurrency=1)
        for number in range(40):
            model.start(ask(number))
        outcomes = []
        with pytest.raises(DeglaError, match="20 requests in a row"):
            while batch := model.finished():
                outcomes += [answer.outcome for answer in batch]
    assert outcomes == ["rejected", "rejected", "answered", "rejected", "rejected", *["unreachable"] * 17]


def test_a_command_continues_once_requests_are_no_longer_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEGLA_API_KEY", "none")
    rows = [{"id": f"c{n}", "image": "a.jpg", "text": f"A black dog sits on a bench with {n} cats."} for n in range(40)]
    captions = tmp_path / "captions.jsonl"
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rejects = True
    with serving(lambda received: failure(400, "no") if rejects else say(received)) as server:
        words = ["negatives", str(captions), "--out", str(tmp_path / "negatives.jsonl"), "--llm", "openai", "--json"]
        words += ["--base-url", server.url, "--model", "m", "--rules", "replace_nouns", "--form", "write"]
        words += ["--max-tokens", "500", "--extra-body", '{"reasoning_effort": "none"}']
        assert main(words) == 1
        assert "has rejected 20 requests in a row (400: no)" in capsys.readouterr().err
        rejects = False
        assert main(words) == 0
        bodies = [received.body for received in server.requests()]
    assert {(body["max_tokens"], body["reasoning_effort"]) for body in bodies} == {(500, "none")}
    outcomes = json.loads(capsys.readouterr().out)["replies"]
    assert (outcomes["answered"], outcomes["rejected"]) == (38, 2)


@pytest.mark.parametrize(
    "message",
    [
        "System role not supported",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "Conversation roles must alternate user/assistant/user/assistant/...",
    ],
)
@pytest.mark.parametrize("status", [400, 500])
def test_no_system_turn(status: int, message: str, connect: Connect) -> None:
    def respond(received: Received) -> Response:
        return failure(status, message) if received.body["messages"][0]["role"] == "system" else say(received)

    with serving(respond) as server:
        answers = replies(connect(server, concurrency=1), *(ask(number) for number in range(3)))
        turns = server.requests()[-1].body["messages"]
        assert len(server.requests()) == 4
    assert {answer.outcome for answer in answers.values()} == {"answered"}
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[0]["content"] == "Make it false.\n\nA cup on a table."


def test_errors_of_openrouters_providers_are_shown(connect: Connect) -> None:
    raw = json.dumps({"error": {"message": "`temperature` is deprecated for this model."}})
    wrapped = failure(400, "Provider returned error", code=400, metadata={"raw": raw, "provider_name": "Anthropic"})
    with serving(lambda received: wrapped if "temperature" in received.body else say(received)) as server:
        answers = replies(connect(server, concurrency=1), *(ask(number, "choose") for number in range(3)))
        assert len(server.requests()) == 4
    assert {answer.outcome for answer in answers.values()} == {"answered"}


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 1m2.5s.", 62.5),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("Try again in 5 seconds.", 5.0),
        ("Please retry after 9 seconds.", 9.0),
        ("Please try again in 5 minutes.", 300.0),
        ("Try again in 1.5 Hours", 5400.0),
        ("Retry after 250 milliseconds", 0.25),
        ("Please retry in 30", 30.0),
        ("Retry in 1 hr", 3600.0),
        ("Retry after 3 different requests", 3.0),
        ("Please try again in 6ms. Visit", 0.006),
        ("Please try again later.", None),
    ],
)
def test_waits_in_words(message: str, seconds: float | None) -> None:
    assert retry_after({}, message, now=0.0) == seconds
    assert retry_after({"retry-after": "7"}, message, now=0.0) == 7.0
