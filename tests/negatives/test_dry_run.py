"""`degla negatives --dry-run`: the requests that a run would make, counted without sending any."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from degla.cli import main
from degla.errors import DeglaError
from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.llm import Form
from degla.negatives.llm.scripted import ALL_FORMS, ScriptedModel
from degla.negatives.plan import _millions, plan_negatives
from degla.negatives.run.output import journal_path
from degla.negatives.run.stream import BATCH
from degla.pages.words import duration
from degla.records import CaptionRecord
from tests.negatives.scripted_runs import UnsteadyModel

RULES = ("replace_nouns", "swap_adjectives", "reshuffle_order")
TEXTS = (
    "A black dog chases a white cat.",
    "Two men ride horses on the beach.",
    "A dog.",
    "A small bird sits on a wooden fence near a red house.",
    "Ein Hund jagt eine Katze durch den Garten.",
)


def captions(count: int) -> list[CaptionRecord]:
    return rows_of(TEXTS, count)


def rows_of(texts: Sequence[str], count: int) -> list[CaptionRecord]:
    ids = map(str, range(count))
    return [CaptionRecord(id=at, image=f"{at}.jpg", image_id=at, text=texts[int(at) % len(texts)]) for at in ids]


@pytest.mark.parametrize(
    ("forms", "per_rule"), [(ALL_FORMS, 1), (ALL_FORMS, 3), (("write",), 2), (("choose", "fill"), 1)]
)
def test_the_most_requests_are_those_of_a_run_whose_texts_are_all_refused(
    forms: tuple[Form, ...], per_rule: int, tmp_path: Path
) -> None:
    settings = NegativesSettings(RULES, seed=3, per_rule=per_rule)
    model = UnsteadyModel(forms=forms)  # writes nothing and takes the first choice
    plan = plan_negatives(captions(40), settings, model=model)
    assert not model.requests and plan.sampled == plan.captions == 40 and plan.skipped == {"not_english": 8}
    assert plan.least is not None and plan.most is not None
    generate(captions(40), settings, out=tmp_path / "n.jsonl", model=model, progress=False)
    for rule in RULES:
        requests = [request for request in model.requests if request.key.rule == rule]
        first = sum(request.key.draw == 0 for request in requests)
        assert plan.most.requests[rule] == len(requests)
        assert plan.least.requests[rule] == (per_rule * first if "write" in forms else len(requests))
    letters = sum(len(message.content) for request in model.requests for message in request.chat)
    assert letters / 4 < plan.most.prompt_tokens < letters / 4 + 100 * len(model.requests)
    written = sum(len((request.choices or (request.caption,))[0]) for request in model.requests)
    assert written / 4 + 3 * len(model.requests) < plan.most.answer_tokens <= written / 4 + 4 * len(model.requests)
    assert plan.grammar_seconds > 1e-3


def test_the_fewest_requests_are_those_of_a_run_whose_texts_are_all_accepted(tmp_path: Path) -> None:
    """Each text exchanges the nouns, which the checks accept."""
    both = ["A black dog chases a white cat.", "A man rides a horse."]
    changed = dict(zip(both, ["A black cat chases a white dog.", "A horse rides a man."], strict=True))
    rows = rows_of(both, 20)
    settings = NegativesSettings(("swap_nouns",), seed=0)
    model = UnsteadyModel(lambda request: changed[request.caption])
    plan = plan_negatives(rows, settings, model=model)
    summary = generate(rows, settings, out=tmp_path / "n.jsonl", model=model, progress=False)
    assert summary.accepted.total() == 20 and plan.least is not None and plan.least.total == len(model.requests) == 20


def test_many_captions_are_estimated_from_a_few_batches() -> None:
    settings = NegativesSettings(RULES, seed=3)
    every, sampled = (plan_negatives(captions(count), settings, model=UnsteadyModel()) for count in (100, 10 * BATCH))
    assert every.most is not None and sampled.most is not None
    assert sampled.sampled == 4 * BATCH
    for name in ("total", "prompt_tokens", "answer_tokens"):
        small, large = getattr(every.most, name), getattr(sampled.most, name)
        assert large == pytest.approx(small / 100 * 10 * BATCH, rel=0.01)


@pytest.mark.parametrize(("count", "measured"), [(40, "4 captions"), (1, "1 caption")])
def test_a_model_of_this_process_is_timed_on_a_few_captions(count: int, measured: str) -> None:
    model = UnsteadyModel(forms=("choose", "fill"))
    plan = plan_negatives(captions(count), NegativesSettings(RULES, seed=3), model=model, in_process=True)
    assert plan.model_seconds is not None and plan.model_seconds > 0
    assert {request.key.caption_id for request in model.requests} == set(map(str, range(min(count, 4))))
    assert f", measured on {measured}" in str(plan.render().renderables[-2])


@pytest.mark.parametrize(
    ("count", "model", "engine", "workers", "processes"),
    [
        (10, None, "local", None, 1),
        (8 * BATCH, None, "local", None, 3),
        (BATCH, None, "local", 2, 1),  # one batch is made in one process
        (BATCH + 1, None, "local", 2, 2),
        (BATCH + 1, None, "local", 64, 3),
        (BATCH + 1, None, "ray", 64, 64),
        (BATCH + 1, "here", "local", 2, 1),
        (10, "here", "ray", 4, 4),
    ],
)
def test_processes_share_the_time(
    count: int, model: str | None, engine: Any, workers: int | None, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("plan", "generate"):
        monkeypatch.setattr(f"degla.negatives.{module}.usable_cores", lambda: 3)
    settings = NegativesSettings(("swap_adjectives",), seed=3)
    plan = plan_negatives(
        captions(count),
        settings,
        model=model and (lambda: ScriptedModel()),
        in_process=True,
        engine=engine,
        workers=workers,
    )
    assert plan.processes == plan.plain()["processes"] == processes
    *_, timed, grammar = map(str, plan.render().renderables)
    shared = f"in {processes} process{'es' if processes > 1 else ''} (--workers)"
    assert (shared in grammar) == (model is None or processes > 1)
    assert duration(plan.grammar_seconds / processes) in grammar
    assert model is None or (shared in timed) == (processes > 1)


def test_a_model_in_each_process_of_a_cluster_takes_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(process_time=time.process_time, monotonic=count(step=10).__next__)
    monkeypatch.setattr("degla.negatives.plan.time", clock)
    settings = NegativesSettings(("swap_adjectives",), seed=3)

    def seconds(engine: Any) -> float:
        source = UnsteadyModel(forms=("choose", "fill"))
        found = plan_negatives(
            captions(40), settings, model=lambda: source, in_process=True, engine=engine, workers=4
        ).model_seconds
        assert found is not None
        return found

    assert seconds("ray") == pytest.approx(seconds("local") / 4) and seconds("local") > 10


@pytest.mark.parametrize(
    ("tokens", "shown"), [(0, "0"), (16, "0.000016"), (312_000, "0.31"), (2_340_000, "2.3"), (1_234_500_000, "1,234.5")]
)
def test_few_tokens_are_shown_without_an_exponent(tokens: int, shown: str) -> None:
    assert _millions(tokens) == shown


def test_the_command_sends_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)  # what sends nothing needs no client
    table = tmp_path / "captions.jsonl"
    table.write_text("".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in captions(10)))
    command = ["negatives", str(table), "--out", str(tmp_path / "n.jsonl"), "--dry-run", "--rules", *RULES]
    server = ["--llm", "openai", "--base-url", "http://127.0.0.1:9/v1", "--model", "m"]
    assert main([*command, *server, "--price", "2", "8", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    most = plan["most"]
    assert most["cost"] == pytest.approx((2 * most["prompt_tokens"] + 8 * most["answer_tokens"]) / 1e6)
    assert 0 < plan["least"]["requests"] < most["requests"]
    assert main([*command, *server, "--price", "2e6", "8e6"]) == 0
    costs = " to ".join(f"{plan[name]['cost'] * 1e6:,.2f}" for name in ("least", "most"))
    assert f"cost: {costs} at 2e+06 and 8e+06 per million tokens" in capsys.readouterr().out
    assert main([*command, *server]) == 0
    shown = capsys.readouterr().out
    assert all(rule in shown for rule in RULES)
    assert " 0.0 million" not in shown  # ten captions are few tokens, but not none
    assert "nothing was sent" in shown and f"{most['requests']}" in shown and "cost" not in shown
    assert main(command) == 0
    assert "not_english 2" in shown
    assert "processor time" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["captions.jsonl"]
    assert main([*command[:4], *server, "--price", "2", "8"]) == 2
    assert main([*command, *server, "--price", "-1", "8"]) == 2
    message = capsys.readouterr().err
    assert "--price requires --llm openai and --dry-run" in message and "must be 0 or more, not -1 and 8" in message


def test_what_an_earlier_run_finished_is_not_estimated_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = tmp_path / "captions.jsonl", tmp_path / "n.jsonl"
    table.write_text("".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in captions(10)))
    command = ["negatives", str(table), "--out", str(out), "--rules", *RULES]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 0
    assert "10 captions, all of them finished; estimated" in capsys.readouterr().out
    rows = out.read_text().splitlines(keepends=True)
    out.write_text("".join(rows)[:-5])  # The rows of the last rule are cut off.
    assert main([*command, "--dry-run"]) == 0
    assert "10 captions (9 are finished; " in capsys.readouterr().out
    some = [row for row in rows if json.loads(row)["caption_id"] <= "4"]
    out.write_text("".join(some)[:-5])
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 0
    assert (
        "10 captions (4 are finished; the estimates are for the others); estimated from 10" in capsys.readouterr().out
    )
    assert main([*command, "--dry-run", "--seed", "1"]) == 2
    assert "n.jsonl: made with other settings or captions (seed: was 0, now 1)" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    out.with_name("n.jsonl.manifest.json").unlink()
    assert main([*command, "--dry-run"]) == 2
    assert "n.jsonl.manifest.json is missing" in capsys.readouterr().err
    for place, status in ((f"{table}/n.jsonl", 2), ("memory://b/n.jsonl", 0)):
        assert main(["negatives", str(table), "--out", place, "--dry-run"]) == status
    assert "captions.jsonl is not a folder" in capsys.readouterr().err
    model = UnsteadyModel()
    everything, rest = (
        plan_negatives(captions(10), NegativesSettings(RULES, seed=3), model=model, out=place)
        for place in (None, _half(tmp_path / "half.jsonl"))
    )
    assert everything.most and rest.most and rest.most.total == round(everything.most.total / 2)


@pytest.mark.parametrize("forms", [ALL_FORMS, ("write",), ("choose", "fill")])
def test_replies_that_are_there_are_not_counted_as_requests(tmp_path: Path, forms: tuple[Form, ...]) -> None:
    """The model goes away before the first caption is finished."""
    out = tmp_path / "n.jsonl"
    settings, model = NegativesSettings(RULES, seed=3), UnsteadyModel(forms=forms, fail_after=40)
    everything = plan_negatives(captions(40), settings, model=UnsteadyModel(forms=forms))
    with pytest.raises(DeglaError):
        generate(captions(40), settings, out=out, model=model, progress=False)
    replies = [json.loads(line) for line in journal_path(out).read_text().splitlines()]
    with journal_path(out).open("a") as file:
        file.write(json.dumps(replies[0] | {"caption_id": "39", "outcome": "unreachable"}) + "\n")  # is asked again
        file.write('{"caption_id": "39"')  # cut off
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    rest = plan_negatives(captions(40), settings, model=UnsteadyModel(forms=forms), out=out)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert rest.replies == 40 and rest.most and rest.least and everything.most and everything.least
    assert "40 replies are there" in str(rest.render().renderables[1])
    again = UnsteadyModel(forms=forms)
    generate(captions(40), settings, out=out, model=again, progress=False)
    assert rest.most.total == everything.most.total - 40 == len(again.requests)
    assert rest.most.prompt_tokens < everything.most.prompt_tokens
    asked = sum(reply["form"] == "write" for reply in replies) if "write" in forms else len(replies)
    assert rest.least.total <= rest.most.total and rest.least.total == everything.least.total - asked


def _half(out: Path) -> Path:
    """Write what a run over ten captions has written when five are finished and none of the others has a reply."""
    generate(captions(10), NegativesSettings(RULES, seed=3), out=out, model=UnsteadyModel(), progress=False)
    rows = out.read_text().splitlines(keepends=True)
    out.write_text("".join(rows[: 1 + next(at for at, row in enumerate(rows) if json.loads(row)["caption_id"] == "5")]))
    journal = journal_path(out)
    replies = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in replies if json.loads(line)["caption_id"] < "5"))
    return out
