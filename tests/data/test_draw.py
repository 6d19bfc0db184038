"""Images drawn of classes, and the recipe that replays them."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from degla.cli import main
from degla.negatives.llm.server import ServerModel
from degla.records import CaptionRecord, read_jsonl
from degla.training.loop import train
from tests.negatives.flaky_server import Received, Response, failure, serving
from tests.training.configs import tiny_config


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(ServerModel, "backoff", 0.01)
    (tmp_path / "usual.txt").write_text("dog\ncat\nhorse\n")
    (tmp_path / "earlier.txt").write_text("cat\nDC-3\n")
    classes = [str(tmp_path / name) for name in ("usual.txt", "earlier.txt")]
    return ["draw", *classes, "--count", "6", "--out", str(tmp_path / "generated")]


def _picture(received: Received) -> Response:
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), (received.body["seed"], len(received.body["prompt"]), 30)).save(stream, "PNG")
    return Response(body={"data": [{"b64_json": base64.b64encode(stream.getvalue()).decode()}]})


def test_what_a_server_draws_is_replayed(
    words: list[str], tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai")
    fails = True

    def draw(received: Received) -> Response:
        return failure(400, "not today") if fails and "DC-3" in received.body["prompt"] else _picture(received)

    with serving(draw) as server:
        words += ["--base-url", server.url, "--model", "painter", "--seed", "7"]
        assert main(words) == 1
        assert "not drawn; the same command asks again. The first: " in capsys.readouterr().err
        some = {record.text for record in read_jsonl(CaptionRecord, tmp_path / "generated" / "captions.jsonl")}
        assert some == {f"a photo of a {name}." for name in ("dog", "cat", "horse")}
        fails, before = False, len(server.received)
        assert main(words) == 0
        assert {received.body["prompt"] for received in server.received[before:]} == {"a photo of a DC-3."}
        after = len(server.received)
        assert main(words) == 0 and len(server.received) == after
    records = list(read_jsonl(CaptionRecord, tmp_path / "generated" / "captions.jsonl"))
    times = Counter(record.text for record in records)
    assert len(records) == 6 and sorted(times.values()) == [1, 1, 2, 2], "four classes, the one in both files once"
    shown = {(each.text, Image.open(tmp_path / "generated" / each.image).getpixel((0, 0))) for each in records}
    assert shown == {(text, (7 + number, len(text), 30)) for text, count in times.items() for number in range(count)}, (
        "images of one text have seeds of their own"
    )
    config = tiny_config("gift", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=2)
    folder = tmp_path / "generated"
    again = replace(config.replay.data, captions=folder / "captions.jsonl", images=folder)
    (tmp_path / "classes.txt").write_text("red\nblue\n")
    rows = [each.model_copy(update={"label": "red"}) for each in read_jsonl(CaptionRecord, tiny_pairs["captions"])]
    (tmp_path / "labelled.jsonl").write_text("".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows))
    data = replace(config.data, captions=tmp_path / "labelled.jsonl", classes=tmp_path / "classes.txt")
    assert train(replace(config, data=data, replay=replace(config.replay, data=again))).finished


def test_more_images_are_drawn_evenly_and_none_again(words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("openai")
    with serving(_picture) as server:
        words += ["--base-url", server.url, "--model", "painter"]
        for count, sent, each in (
            ("6", 6, [1, 1, 2, 2]),
            ("9", 9, [2, 2, 2, 3]),
            ("2", 9, [1, 1]),
            ("9", 9, [2, 2, 2, 3]),
        ):
            assert main([*words, "--count", count]) == 0
            records = read_jsonl(CaptionRecord, tmp_path / "generated" / "captions.jsonl")
            assert sorted(Counter(record.text for record in records).values()) == each
            assert len(server.received) == sent


def test_a_server_that_draws_nothing_is_a_failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai")
    with serving(lambda _: failure(400, "not today")) as server:
        assert main([*words, "--base-url", server.url, "--model", "painter"]) == 1, "the input is right"
    assert "no image was drawn" in capsys.readouterr().err


def test_what_cannot_be_drawn_is_refused(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = ["--base-url", "http://127.0.0.1:9/v1", "--model", "m"]
    for more, message in (
        ([], "Drawing needs --base-url URL and --model NAME."),
        ([*server, "--count", "0"], "--count is 0; it must be 1 or more."),
        ([*server, "--template", "a photo"], "--template is 'a photo'; it must contain {} exactly once."),
        ([*server, "--out", "s3://bucket/generated"], "s3://bucket/generated: only a local path can be written here."),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "generated").exists()
