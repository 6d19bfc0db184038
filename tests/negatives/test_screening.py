"""Screening a finished file with models: which negatives are kept or refused, and for which reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from degla import screening
from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.negatives.checks import ACCEPTED, Verdict, refused
from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.llm import Form, Reply, Request
from degla.negatives.run.output import Journal, journal_path
from degla.negatives.run.summary import Summary
from degla.records import CaptionRecord, NegativeRecord, read_jsonl, write_jsonl
from degla.screening import ImageScreen, PlausibilityScreen, Screened, TruthScreen, screen
from tests.evaluation.fake_encoders import FakeEncoder, spread_row
from tests.negatives.flaky_server import Response, completion, serving
from tests.negatives.scripted_runs import UnsteadyModel
from tests.negatives.tiny_language_model import CAPTIONS, write_folder
from tests.tiny import write_model

RECORDS = [CaptionRecord(id=str(n), image=f"{n}.png", text=text, image_id=str(n)) for n, text in enumerate(CAPTIONS)]


def negative(number: int, text: str | None, *, reason: str = "", rule: str = "replace_nouns") -> NegativeRecord:
    return NegativeRecord(
        caption_id=str(number), rule=rule, kind="object", text=text, source="rules", accepted=not reason, reason=reason
    )


ROWS = [
    negative(0, "A man in a red shirt is riding a brown cow."),
    negative(0, "A bad one.", reason="not_rule", rule="swap_nouns"),
    negative(1, "Two small cats sit on a wooden bench next to a big tree."),
    negative(2, None, reason="no_candidate"),
    negative(3, "A black dog is sleeping on a blue motorcycle."),
]


class Table:
    """A screen that answers by text."""

    name = "table"

    def __init__(self, answer: Callable[[str], Verdict | None]) -> None:
        self.answer, self.seen = answer, list[str]()

    def __call__(self, rows: Sequence[Screened]) -> list[Verdict | None]:
        self.seen += [row.text for row in rows]
        return [self.answer(row.text) for row in rows]


def test_first_refusal_wins_and_nothing_is_accepted_again(tmp_path: Path) -> None:
    first = Table(lambda text: refused("implausible") if "cow" in text else ACCEPTED)
    second = Table(lambda text: None if "cats" in text else refused("still_true"))
    out = tmp_path / "new" / "judged.jsonl"
    with CaptionIndex(RECORDS) as index:
        counts = screen(ROWS, captions=index, screens=[first, second], out=out)
    written = list(read_jsonl(NegativeRecord, out))
    assert [row.reason for row in written] == ["implausible", "not_rule", "", "no_candidate", "still_true"]
    assert [row.accepted for row in written] == [False, False, True, False, False]
    assert [row.text for row in written] == [row.text for row in ROWS]
    assert first.seen == [ROWS[0].text, ROWS[2].text, ROWS[4].text]
    assert second.seen == [ROWS[2].text, ROWS[4].text], "what one screen refused was asked of the next"
    assert (counts.rows, counts.accepted, counts.undecided) == (5, 1, {"table": 1})
    assert counts.refused == {("replace_nouns", "implausible"): 1, ("replace_nouns", "still_true"): 1}


def test_screening_by_parts_is_complete(tmp_path: Path) -> None:
    rows = [negative(n % 4, f"a text {n}") for n in range(1000)]
    table = Table(lambda text: refused("implausible") if text.endswith("7") else ACCEPTED)
    with CaptionIndex(RECORDS) as index:
        counts = screen(iter(rows), captions=index, screens=[table], out=tmp_path / "out.jsonl")
    written = list(read_jsonl(NegativeRecord, tmp_path / "out.jsonl"))
    assert [row.text for row in written] == [row.text for row in rows]
    assert [not row.accepted for row in written] == [row.text.endswith("7") for row in rows if row.text]
    assert counts.accepted == 900


def test_unknown_caption_leaves_no_file(tmp_path: Path) -> None:
    rows = [*ROWS, negative(9, "a text")]
    with CaptionIndex(RECORDS) as index, pytest.raises(InputError, match="caption_id '9' is not among the captions"):
        screen(rows, captions=index, screens=[Table(lambda text: ACCEPTED)], out=tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


class Oracle:
    """A language model that answers by the question; late, out of order, and a few at a time."""

    name, forms, capacity = "oracle", ("choose",), 2
    forms: tuple[Form, ...]

    def __init__(self) -> None:
        self.under_way: list[Request] = []
        self.most = 0

    def describe(self) -> dict[str, object]:
        return {}

    def start(self, request: Request) -> None:
        self.under_way.append(request)
        self.most = max(self.most, len(self.under_way))

    def finished(self) -> list[Reply]:
        request = self.under_way.pop()
        question = request.chat[-1].content
        assert request.caption in question and request.choices == ("yes", "no")
        if "cats" in question:
            return [Reply(request.key, "refused")]
        if "cups" in question:
            return [Reply(request.key, "answered", text="perhaps")]
        return [Reply(request.key, "answered", text="yes" if "cow" in question else "no")]

    def close(self) -> None:
        self.under_way.clear()


def test_language_model_that_calls_a_negative_true() -> None:
    oracle = Oracle()
    with CaptionIndex(RECORDS) as index:
        rows = [
            Screened(row, caption)
            for row in (ROWS[0], ROWS[2], ROWS[4], ROWS[4], negative(0, "A man in a red shirt is holding two cups."))
            if (caption := index.find(row.caption_id))
        ]
    verdicts = TruthScreen(oracle)(rows)
    assert verdicts == [refused("still_true"), None, ACCEPTED, ACCEPTED, None]
    assert oracle.most == 2 and not oracle.under_way


def test_an_interrupted_judgement_is_resumed_without_paying_twice(tmp_path: Path) -> None:
    """Judging kept no replies: a run that failed asked everything again."""
    rows = [negative(n % 4, f"a text {n}") for n in range(300)]

    def judge(model: UnsteadyModel, name: str = "out.jsonl") -> list[NegativeRecord]:
        out = tmp_path / name
        with CaptionIndex(RECORDS) as index, Journal(journal_path(out), Summary((), 0)) as journal:
            journal.index()
            screen(rows, captions=index, screens=[TruthScreen(model, journal)], out=out)
        return list(read_jsonl(NegativeRecord, out))

    def answer(request: Request) -> str:
        return "yes" if "3\nCan" in request.chat[-1].content else "no"

    whole = judge(UnsteadyModel(answer), "whole.jsonl")
    assert sum(row.reason == "still_true" for row in whole) == 30
    first = UnsteadyModel(answer, capacity=5, fail_after=270)
    with pytest.raises(DeglaError, match="cannot be reached"):
        judge(first)
    rows.reverse()  # Replies belong to texts, not to places.
    second = UnsteadyModel(answer)
    assert judge(second)[::-1] == whole
    assert len(second.requests) == 30
    third = UnsteadyModel(answer)
    assert judge(third)[::-1] == whole and not third.requests
    other = UnsteadyModel(answer, name="another")
    judge(other)
    assert len(other.requests) == 300


def test_plausibility_by_any_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra degla[embedded] is not installed")
    from degla.negatives.checks import check_drop
    from degla.negatives.llm.likelihood import open_likelihood

    likelihood, name = open_likelihood(str(write_folder(tmp_path / "tiny")))
    texts = ["A man in a red shirt is riding a brown cow.", "zq xj " * 9, "word " * 600]
    with CaptionIndex(RECORDS) as index:
        caption = index.find("0")
        assert caption is not None
        verdicts = PlausibilityScreen(likelihood, name)([Screened(negative(0, text), caption) for text in texts])
    drops = likelihood.drops(RECORDS[0].text, texts[:2])
    assert verdicts == [*(check_drop("replace_nouns", drop) for drop in drops), None]


class Measured:
    """A language model with known likelihoods, as nats per token that a text is below its caption."""

    def __init__(self, drops: dict[str, float]) -> None:
        self.known = drops

    def drops(self, caption: str, texts: Sequence[str]) -> list[float]:
        return [self.known[text] for text in texts]


def test_what_is_far_less_likely_than_its_caption_is_refused_in_the_file(tmp_path: Path) -> None:
    drops = {"a likely text": -0.2, "just likely enough": 0.7, "too unlikely": 0.701, "a heap of words": 4.0}
    rows = [negative(number, text) for number, text in enumerate(drops)]
    judge = PlausibilityScreen(Measured(drops), "known")  # type: ignore[arg-type]
    with CaptionIndex(RECORDS) as index:
        counts = screen(rows, captions=index, screens=[judge], out=tmp_path / "out.jsonl")
    written = [(row.accepted, row.reason) for row in read_jsonl(NegativeRecord, tmp_path / "out.jsonl")]
    assert written == [(True, ""), (True, ""), (False, "implausible"), (False, "implausible")]
    assert counts.refused == {("replace_nouns", "implausible"): 2} and counts.accepted == 2


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    import numpy
    from PIL import Image

    generator = numpy.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for record in RECORDS[:3]:
        Image.fromarray(generator.integers(0, 255, (40, 36, 3), dtype=numpy.uint8)).save(folder / record.image)
    return folder


def test_picture_margin(tmp_path: Path, pictures: Path) -> None:
    import torch

    from degla.model.load import load_encoder

    encoder = load_encoder(str(write_model(tmp_path / "model")))
    with CaptionIndex(RECORDS) as index:
        rows = [
            Screened(row, caption) for row in (ROWS[0], ROWS[2], ROWS[4]) if (caption := index.find(row.caption_id))
        ]
    leads = []
    for row in rows[:2]:
        from PIL import Image

        with torch.inference_mode():
            image = encoder.encode_images(encoder.transform(Image.open(pictures / row.caption.image))[None])[0]
            texts = encoder.encode_captions(encoder.tokenize([row.caption.text, row.text]))
        leads.append(float((texts[0] - texts[1]) @ image))
    middle = sum(leads) / 2
    expected = [refused("still_true") if lead <= middle else ACCEPTED for lead in leads]
    assert {verdict.accepted for verdict in expected} == {True, False}
    assert ImageScreen(encoder, pictures, middle)(rows) == [*expected, None], "the third has no image"


def test_rows_of_an_image_that_cannot_be_read_stay_undecided(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = spread_row(b"x", 8)
    alike = FakeEncoder(lambda image: row, lambda tokens: row)
    with CaptionIndex(RECORDS) as index:
        rows = [Screened(each, caption) for each in ROWS if (caption := index.find(each.caption_id)) is not None]
    whole = ImageScreen(alike, pictures)(rows)
    bad = RECORDS[0].image
    (pictures / bad).write_bytes(b"no image")
    some = ImageScreen(alike, pictures)(rows)
    assert some == [None if row.caption.image == bad else verdict for row, verdict in zip(rows, whole, strict=True)]
    assert whole != some and set(some) == {None, refused("still_true")}
    (message,) = (record.getMessage() for record in caplog.records)
    assert bad in message and message.endswith("Its negatives are not judged.")
    assert ImageScreen(alike, pictures)(rows[:1]) == [None], "the only image"


def test_a_model_that_overflows_refuses_nothing_silently(pictures: Path) -> None:
    """NaN compares below no margin, so every negative would pass."""
    row = spread_row(b"x", 8)
    broken = FakeEncoder(lambda image: row, lambda tokens: row * float("nan"))
    with CaptionIndex(RECORDS) as index:
        caption = index.find("0")
    assert caption is not None
    with pytest.raises(DeglaError, match=r"the embedding of 'A man in .*\.' is zero or not finite \(2 of 2 in"):
        ImageScreen(broken, pictures)([Screened(ROWS[0], caption)])
    alike = FakeEncoder(lambda image: row, lambda tokens: row)
    assert ImageScreen(alike, pictures)([Screened(ROWS[0], caption)]) == [refused("still_true")], (
        "as true as its caption"
    )


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    captions, negatives = tmp_path / "captions.jsonl", tmp_path / "negatives.jsonl"
    write_jsonl(captions, RECORDS)
    write_jsonl(negatives, ROWS)
    (tmp_path / "negatives.jsonl.manifest.json").write_text('{"seed": 7}')
    return {"captions": captions, "negatives": negatives, "out": tmp_path / "judged.jsonl"}


def test_verb(files: dict[str, Path], tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["negatives", "judge", str(files["negatives"]), "--captions", str(files["captions"]), "--json"]
    words += ["--clip", str(write_model(tmp_path / "model")), "--images", str(pictures), "--margin", "9"]
    assert main([*words, "--out", str(files["out"])]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["refused"] == [["replace_nouns", "still_true", 2]]
    assert sum(counts["undecided"].values()) == 1 and counts["accepted"] == 1
    manifest = json.loads((tmp_path / "judged.jsonl.manifest.json").read_text())
    assert manifest["seed"] == 7 and len(manifest["judged"]) == 1
    again = [*words, "--out", str(tmp_path / "again.jsonl")]
    again[2] = str(files["out"])
    assert main(again) == 0
    assert len(json.loads((tmp_path / "again.jsonl.manifest.json").read_text())["judged"]) == 2


def test_long_texts_of_all_blocks_are_reported_once(
    files: dict[str, Path], tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(screening, "_ROWS", 1)
    write_jsonl(files["negatives"], [row.model_copy(update={"text": f"{row.text} again" * 30}) for row in ROWS[:3]])
    words = ["negatives", "judge", str(files["negatives"]), "--captions", str(files["captions"])]
    words += ["--clip", str(write_model(tmp_path / "model")), "--images", str(pictures), "--out", str(files["out"])]
    assert main(words) == 0
    (message,) = (record.getMessage() for record in caplog.records if "longer than" in record.getMessage())
    assert message.startswith("2 texts are longer than the 24 tokens")


def test_an_error_that_no_image_causes_is_raised(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = spread_row(b"x", 8)
    alike = FakeEncoder(lambda image: row, lambda tokens: row)

    def fail(*_: object) -> None:
        raise InputError("the model's own")

    monkeypatch.setattr(ImageScreen, "_embed", fail)
    with CaptionIndex(RECORDS) as index:
        caption = index.find("0")
    assert caption is not None
    with pytest.raises(InputError, match="the model's own"):
        ImageScreen(alike, pictures)([Screened(ROWS[0], caption)])


def test_requests_without_an_answer_are_sent_again_by_the_same_command(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai", reason="the extra degla[llm] is not installed")
    monkeypatch.setenv("DEGLA_API_KEY", "none")
    fails = True
    with serving(
        lambda each: Response(500) if fails and "cow" in each.last else Response(body=completion("Yes"))
    ) as server:
        words = ["negatives", "judge", str(files["negatives"]), "--captions", str(files["captions"]), "--json"]
        words += ["--llm", "openai", "--model", "m", "--base-url", server.url, "--retries", "0"]
        words += ["--out", str(files["out"])]
        assert main(words) == 1
        output = capsys.readouterr()
        counts = json.loads(output.out)
        assert counts["accepted"] == 1 and list(counts["undecided"].values()) == [1]
        assert "no answer to 1 request: the same command asks again" in output.err
        fails, count = False, len(server.requests())
        assert main(words) == 0
        assert len(server.requests()) == count + 1
        assert json.loads(capsys.readouterr().out)["refused"] == [["replace_nouns", "still_true", 3]]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ([], "no judge given"),
        (["--clip", "world"], "--images"),
        (["--plausibility", "./nowhere.gguf"], "no such file or folder"),
        (["--clip", "world", "--images", ".", "--out", "negatives.jsonl"], "negatives.jsonl: this command reads it"),
        (["--clip", "world", "--images", ".", "--out", "captions.jsonl"], "captions.jsonl: this command reads it"),
        (["--plausibility", "--margin", "0.1"], "--margin requires --clip."),
        (["--llm", "embedded", "--examples", "3"], "--examples has no effect: a judge is shown no examples."),
        (["--plausibility", "--device", "cpu"], "--device requires --clip."),
        (["--clip", "world", "--images", ".", "--margin", "nan"], "--margin is nan; it must be a finite number"),
        (["--clip", "world", "--images", "captions.jsonl"], "captions.jsonl: no such folder of images (--images)."),
        (["--clip", "world", "--images", "."], ". has none of the captions' 4 images, such as 0.png."),
    ],
)
def test_wrong_use(
    files: dict[str, Path],
    wrong: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files["out"].parent)
    words = ["negatives", "judge", "negatives.jsonl", "--captions", "captions.jsonl", "--out", "judged.jsonl", *wrong]
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not files["out"].exists()


def test_positives_are_not_judged_by_whether_they_are_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "captions.jsonl", RECORDS)
    row = negative(0, "On a brown horse rides a man in a red shirt.", rule="front_place")
    write_jsonl(tmp_path / "positives.jsonl", [row.model_copy(update={"kind": "positive"})])
    (tmp_path / "script.jsonl").write_text("")
    words = ["negatives", "judge", str(tmp_path / "positives.jsonl"), "--captions", str(tmp_path / "captions.jsonl")]
    words += ["--out", str(tmp_path / "judged.jsonl"), "--llm", "scripted", "--script", str(tmp_path / "script.jsonl")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "rule front_place: is of kind 'positive', a true text" in said
    assert "positives.jsonl by --plausibility alone" in said and not (tmp_path / "judged.jsonl").exists()
