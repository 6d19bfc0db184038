"""Generation that is stopped, fails or is cut off, and resumes: the file equals that of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.files import LineFile
from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.llm import Reply, Request, RequestKey
from degla.negatives.run.output import Output
from degla.records import NegativeRecord
from tests.negatives.scripted_runs import RULES, TEXTS, UnsteadyModel, records, rows_of, run, varied


def test_unreachable_requests_are_made_again_by_a_later_run(tmp_path: Path) -> None:
    undisturbed, out = tmp_path / "undisturbed.jsonl", tmp_path / "negatives.jsonl"
    run(undisturbed, UnsteadyModel(varied))
    faults = {RequestKey("c3", "swap_nouns", 0): "unreachable", RequestKey("c6", "replace_nouns", 0): "unreachable"}
    first = UnsteadyModel(varied, faults=dict(faults))  # type: ignore[arg-type]
    summary = run(out, first)
    assert summary.replies.by_outcome()["unreachable"] == 2
    assert sum(row.reason == "model_unreachable" for row in rows_of(out)) == 2
    assert "no answer for 2 rows (model_unreachable): the same command asks again" in map(
        str, summary.render().renderables
    )
    assert out.read_bytes() != undisturbed.read_bytes()
    second = UnsteadyModel(varied)
    run(out, second)
    assert out.read_bytes() == undisturbed.read_bytes()
    answered = {request.key for request in first.requests} - set(faults)
    keys = [request.key for request in second.requests]
    assert set(faults) <= set(keys)
    assert not answered & set(keys)  # nothing is paid twice
    third = UnsteadyModel(varied)
    run(out, third)
    assert not third.requests


def test_a_server_that_goes_away_costs_nothing_twice(tmp_path: Path) -> None:
    undisturbed, out = tmp_path / "undisturbed.jsonl", tmp_path / "negatives.jsonl"
    run(undisturbed, UnsteadyModel(varied, shuffle=0))
    ended = False
    for attempt in range(60):
        model = UnsteadyModel(varied, shuffle=attempt, capacity=5, fail_after=4)
        try:
            run(out, model)
            ended = True
        except DeglaError as error:
            assert "cannot be reached" in str(error)
        if ended:
            break
    assert ended
    assert attempt > 5
    assert out.read_bytes() == undisturbed.read_bytes()
    lines = (tmp_path / "negatives.jsonl.replies.jsonl").read_text().splitlines()
    keys = Counter((row["caption_id"], row["rule"], row["draw"]) for row in map(json.loads, lines))
    assert set(keys.values()) == {1}


def test_files_torn_at_any_byte_end_the_same(tmp_path: Path) -> None:
    out, journal = tmp_path / "negatives.jsonl", tmp_path / "negatives.jsonl.replies.jsonl"
    run(out, UnsteadyModel(varied, shuffle=5))
    whole, replies = out.read_bytes(), journal.read_bytes()
    rng = Random(0)
    for _ in range(12):
        out.write_bytes(whole[: rng.randrange(len(whole))])
        cut = rng.randrange(len(replies))
        journal.write_bytes(replies[:cut])
        model = UnsteadyModel(varied)
        run(out, model)
        assert out.read_bytes() == whole
        rows = [json.loads(line) for line in replies[:cut].splitlines(keepends=True) if line.endswith(b"\n")]
        keys = {(row["caption_id"], row["rule"], row["draw"]) for row in rows}
        assert not keys & {(one.key.caption_id, one.key.rule, one.key.draw) for one in model.requests}
        assert journal.read_bytes().endswith(b"\n")


def test_a_damaged_journal_is_refused_by_line(tmp_path: Path) -> None:
    out, journal = tmp_path / "negatives.jsonl", tmp_path / "negatives.jsonl.replies.jsonl"
    run(out, UnsteadyModel(varied))
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([lines[0], "{]\n", *lines[1:]]))
    with pytest.raises(InputError, match=r"replies\.jsonl line 2: not JSON"):
        run(out, UnsteadyModel(varied))
    journal.write_text("".join([lines[0], '{"caption_id": "c1"}\n', *lines[1:]]))
    with pytest.raises(InputError, match="line 2: field 'rule'"):
        run(out, UnsteadyModel(varied))


def test_a_signal_stops_where_nothing_is_lost(tmp_path: Path) -> None:
    undisturbed, out = tmp_path / "undisturbed.jsonl", tmp_path / "negatives.jsonl"
    run(undisturbed, UnsteadyModel(varied))
    count = 0

    def signalling(request: Request) -> str | Reply | None:
        nonlocal count
        count += 1
        if count == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return varied(request)

    before = signal.getsignal(signal.SIGTERM)
    summary = run(out, UnsteadyModel(signalling, capacity=3))
    assert summary.stopped == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(rows_of(out)) < len(rows_of(undisturbed))
    assert not run(out, UnsteadyModel(varied)).stopped
    assert out.read_bytes() == undisturbed.read_bytes()


def test_a_signal_loses_no_reply_that_was_just_handed_over_and_nothing_more_is_asked(tmp_path: Path) -> None:
    class Signalling(UnsteadyModel):
        def finished(self) -> list[Reply]:
            replies = super().finished()
            if len(self.requests) > 12:
                os.kill(os.getpid(), signal.SIGTERM)
                self.__dict__.setdefault("before", len(self.requests))
            return replies

    undisturbed, out = tmp_path / "undisturbed.jsonl", tmp_path / "negatives.jsonl"
    run(undisturbed, UnsteadyModel(varied))
    first, second = Signalling(varied, capacity=3), UnsteadyModel(varied)
    assert run(out, first).stopped == "SIGTERM" and len(first.requests) == first.__dict__["before"]
    run(out, second)
    assert out.read_bytes() == undisturbed.read_bytes()
    assert not {one.key for one in first.requests} & {one.key for one in second.requests}, "a reply was paid twice"


def test_other_model_prompts_or_examples_are_other_settings(tmp_path: Path) -> None:
    out = tmp_path / "negatives.jsonl"
    run(out, UnsteadyModel(varied), words="captions", examples=1)
    manifest = json.loads((tmp_path / "negatives.jsonl.manifest.json").read_text())
    assert manifest.keys() == {
        "schema_version", "captions", "captions_sha256", "rules", "seed", "per_rule", "degla", "lexicon", "tagger",
        "source", "model", "form", "prompts_sha256", "examples", "example_sets", "examples_sha256", "words", "started",
    }  # fmt: skip
    prompts = manifest["prompts_sha256"]
    assert prompts.keys() == set(RULES) and len(set(prompts.values())) == len(RULES)
    with pytest.raises(InputError, match="source: was 'scripted', now 'other'"):
        run(out, UnsteadyModel(varied, name="other"), words="captions", examples=1)
    with pytest.raises(InputError, match="form: was 'both', now 'choose'"):
        run(out, UnsteadyModel(varied), form="choose", words="captions")
    with pytest.raises(InputError, match="words: was 'captions', now None"):
        run(out, UnsteadyModel(varied))
    settings, by_grammar = NegativesSettings(RULES, 3, per_rule=2, examples=0), tmp_path / "grammar.jsonl"
    with pytest.raises(InputError, match="source: was 'scripted', now None"):
        generate(records(TEXTS), settings, out=out)
    generate(records(TEXTS[:1]), settings, out=by_grammar, progress=False)
    with pytest.raises(InputError, match="source: was None, now 'scripted'"):
        run(by_grammar, UnsteadyModel(varied), TEXTS[:1])
    (tmp_path / "negatives.jsonl.manifest.json").unlink()
    out.unlink()
    with pytest.raises(InputError, match=r"replies\.jsonl: already exists"):
        run(out, UnsteadyModel(varied))


def test_one_run_writes_a_file_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "negatives.jsonl"

    def meddling(request: Request) -> str | Reply | None:
        with pytest.raises(InputError, match="another run is writing this file"):
            run(out, UnsteadyModel(varied))
        return varied(request)

    run(out, UnsteadyModel(meddling), TEXTS, rules=RULES)


def test_a_run_that_finds_another_one_begun_does_not_write_its_manifest(tmp_path: Path) -> None:
    out = tmp_path / "negatives.jsonl"
    with LineFile(out) as file:
        assert file.claim()
        with pytest.raises(InputError, match="another run is writing this file"):
            run(out, UnsteadyModel(varied))
    assert list(tmp_path.iterdir()) == [out]


def test_the_command_says_by_its_status_that_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ensures that `degla negatives ... && degla train ...` does not train on a partial file."""
    table, out = tmp_path / "captions.csv", tmp_path / "negatives.jsonl"
    table.write_text("image,text\n" + "".join(f"{n}.jpg,a black dog chases {n} white cats\n" for n in range(300)))
    words = ["negatives", str(table), "--out", str(out), "--rules", "swap_nouns", "--workers", "1"]
    write, interrupts = Output.write, iter([True, False, True])

    def interrupted(self: Output, rows: Sequence[NegativeRecord]) -> None:
        if next(interrupts):
            os.kill(os.getpid(), signal.SIGINT)
        write(self, rows)

    monkeypatch.setattr(Output, "write", interrupted)
    assert main(words) == 130
    assert 0 < len(out.read_text().splitlines()) < 300
    assert main(words) == 0, "a signal at the last row stops nothing"
    assert len(out.read_text().splitlines()) >= 300


def test_a_command_with_unanswered_requests_has_not_succeeded(tmp_path: Path) -> None:
    """A shell could not tell that rows are missing; a later run asks again, and succeeds."""
    table, script = tmp_path / "captions.jsonl", tmp_path / "script.jsonl"
    text = "A black dog chases a white cat."
    table.write_text(json.dumps({"id": "1", "image": "1.jpg", "text": text}) + "\n")
    answer = {"caption": text, "rule": "swap_nouns"}
    script.write_text(json.dumps({**answer, "outcome": "unreachable"}) + "\n")
    command = ["negatives", str(table), "--rules", "swap_nouns", "--llm", "scripted", "--script", str(script)]
    assert main([*command, "--out", str(tmp_path / "n.jsonl")]) == 1
    script.write_text(json.dumps({**answer, "text": "A black cat chases a white dog."}) + "\n")
    assert main([*command, "--out", str(tmp_path / "other.jsonl")]) == 0
