"""Second images from negatives: similar ones and drawn ones, and a recipe that trains on them."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from degla.cli import main
from degla.data.neighbours import NeighbourRecord, drawn_images, drawn_text, image_name, texts_of_rule, with_partners
from degla.negatives.drawing import draw_images
from degla.negatives.llm.scripted import ScriptedModel
from degla.negatives.llm.server import ServerModel
from degla.records import CaptionRecord, NegativeRecord, read_jsonl, write_jsonl
from degla.training.loop import train
from tests.negatives.flaky_server import Received, Response, failure, serving
from tests.training.configs import tiny_config


@pytest.mark.parametrize("source", ["neighbours", "drawn"])
def test_the_command_writes_what_con_clip_reads(
    source: str, tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    for name in ("0-0", "2-1"):
        shutil.copy(tiny_pairs["images"] / "005.png", drawn / f"{name}.png")
    where = ["--neighbours", str(tiny_pairs["neighbours"])] if source == "neighbours" else ["--drawn", str(drawn)]
    words = ["distractors", str(tiny_pairs["captions"]), "--negatives", str(tiny_pairs["negatives"]), *where]
    out = tmp_path / "partners.jsonl"
    # Every caption has a negative of this rule in the tiny pairs, every third of "replace_nouns".
    assert main([*words, "--rule", "reshuffle_order", "--out", str(out)]) == 0
    assert f"{24 if source == 'neighbours' else 2} of 24 captions" in capsys.readouterr().err
    texts: dict[str, str] = {}
    for row in map(json.loads, tiny_pairs["negatives"].open()):
        if row["rule"] == "reshuffle_order":
            texts[row["caption_id"]] = row["text"]
    near = {row["caption_id"]: row["neighbours"][0] for row in map(json.loads, tiny_pairs["neighbours"].open())}
    for record in read_jsonl(CaptionRecord, out):
        if source == "neighbours":
            assert record.distractor_image == f"{int(near[record.id].split('-')[0]):03d}.png"
        else:
            assert (record.distractor_image is not None) == (record.id in ("0-0", "2-1"))
        assert record.distractor_text == (texts[record.id] if record.distractor_image else None)
    config = tiny_config(
        "con_clip", model=tiny_model, pairs={**tiny_pairs, "captions": out}, out=tmp_path / "run", steps=2
    )
    assert train(config).finished


def test_what_other_commands_added_stays(tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in tiny_pairs["captions"].open()][:20]  # Neighbours also list the others.
    captions, out = tmp_path / "captions.jsonl", tmp_path / "out.jsonl"
    added = {"positives": ["another text"], "masked_words": ["red"], "distractor_image": "old.png"}
    captions.write_text("".join(json.dumps({**row, **added, "distractor_text": "old"}) + "\n" for row in rows))
    words = ["--negatives", str(tiny_pairs["negatives"]), "--rule", "replace_nouns", "--out", str(out)]
    assert main(["distractors", str(captions), *words, "--neighbours", str(tiny_pairs["neighbours"])]) == 0
    records = list(read_jsonl(CaptionRecord, out))
    assert all((record.positives, record.masked_words) == (("another text",), ("red",)) for record in records)
    assert {record.distractor_image is None for record in records} == {True, False}
    assert "old.png" not in {record.distractor_image for record in records}


def test_the_text_of_a_second_image_is_the_first_that_the_checks_accepted() -> None:
    caption = CaptionRecord(id="0", image="a.png", text="a dog", image_id="a")
    rows = (("refused", "swap", False), ("other", "else", True), ("first", "swap", True), ("second", "swap", True))
    negatives = [
        NegativeRecord(caption_id="0", rule=rule, kind="k", text=text, source="s", accepted=accepted)
        for text, rule, accepted in rows
    ]
    texts = texts_of_rule(negatives, "swap")
    (record,) = with_partners([caption], texts, lambda caption: "b.png", rule="swap")
    assert (record.distractor_image, record.distractor_text) == ("b.png", "first")


def _picture(number: int) -> str:
    stream = io.BytesIO()
    Image.new("RGB", (9, 6), (number, 20, 30)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


@pytest.fixture
def to_draw(tiny_pairs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The start of a command that draws, for eight captions with a negative of the rule."""
    monkeypatch.setattr(ServerModel, "backoff", 0.01)
    monkeypatch.setenv("DEGLA_API_KEY", "sk-very-secret")
    rows = [row for row in map(json.loads, tiny_pairs["negatives"].open()) if row["rule"] == "reshuffle_order"][:8]
    lines = [json.dumps({**row, "text": f"{row['text']} {number}"}) + "\n" for number, row in enumerate(rows)]
    (tmp_path / "negatives.jsonl").write_text("".join(lines))
    words = ["distractors", str(tiny_pairs["captions"]), "--negatives", str(tmp_path / "negatives.jsonl")]
    return [*words, "--rule", "reshuffle_order", "--drawn", str(tmp_path / "drawn"), "--out", str(tmp_path / "o.jsonl")]


def test_a_server_draws_the_images_that_are_missing(
    to_draw: list[str], tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    """A server that is busy at first and knows neither seed nor response_format."""
    pytest.importorskip("openai")
    drawn, negatives = tmp_path / "drawn", tmp_path / "negatives.jsonl"
    texts = {row["caption_id"]: row["text"] for row in map(json.loads, negatives.open())}
    own, *others = texts
    drawn.mkdir()
    Image.new("RGB", (4, 4)).save(drawn / f"{own}.jpg")
    (drawn / f"{others[1]}.txt").write_text("a note, not an image")
    bodies: list[dict[str, Any]] = []

    def draw(received: Received) -> Response:
        assert received.path == "/v1/images/generations"
        assert received.headers["authorization"] == "Bearer sk-very-secret"
        if received.number < 2:
            return failure(429, "busy")
        for name in ("seed", "response_format"):
            if name in received.body:
                return failure(400, f"Unknown parameter: '{name}'.")
        bodies.append(received.body)
        number = list(texts.values()).index(received.body["prompt"])
        return Response(body={"created": 1, "data": [{"b64_json": _picture(number)}], "usage": {"total_tokens": 9}})

    with serving(draw) as server:
        words = [*to_draw, "--base-url", server.url, "--model", "painter", "--extra-body", '{"size": "64x64"}']
        assert main(words) == 0
        assert sorted(body["prompt"] for body in bodies) == sorted(texts[name] for name in others)
        assert all(body == {**bodies[0], "prompt": body["prompt"]} for body in bodies)
        assert {**bodies[0], "prompt": ""} == {"model": "painter", "prompt": "", "n": 1, "size": "64x64"}
        for number, (name, text) in list(enumerate(texts.items()))[1:]:
            assert drawn_text(drawn / f"{name}.png") == text
            assert Image.open(drawn / f"{name}.png").getpixel((3, 3)) == (number, 20, 30)
        rows = {row.id: row for row in read_jsonl(CaptionRecord, tmp_path / "o.jsonl") if row.distractor_image}
        assert {name: row.distractor_text for name, row in rows.items()} == texts
        assert Path(rows[own].distractor_image or "").name == f"{own}.jpg"
        bodies.clear()
        assert main(words) == 0 and not bodies
        # Another text for one of them: its image is not used, and drawn again only with a server.
        texts[others[0]] += " again"
        replaced = [{**json.loads(line), "text": texts[json.loads(line)["caption_id"]]} for line in negatives.open()]
        negatives.write_text("".join(json.dumps(row) + "\n" for row in replaced))
        assert main(to_draw) == 0
        made = {row.id for row in read_jsonl(CaptionRecord, tmp_path / "o.jsonl") if row.distractor_image}
        assert made == set(texts) - {others[0]}
        # Nor does it hide one that someone else puts beside it.
        beside = Image.new("RGB", (4, 4)), drawn / f"{others[0]}.jpg"
        beside[0].save(beside[1])
        assert main(to_draw) == 0
        rows = {row.id: row for row in read_jsonl(CaptionRecord, tmp_path / "o.jsonl") if row.distractor_image}
        assert rows[others[0]].distractor_image == str(beside[1])
        beside[1].unlink()
        assert main(words) == 0 and [body["prompt"] for body in bodies] == [texts[others[0]]]
    pairs = {**tiny_pairs, "captions": tmp_path / "o.jsonl"}
    del pairs["negatives"]
    config = tiny_config("triplet_clip", model=tiny_model, pairs=pairs, out=tmp_path / "run", steps=2)
    assert train(config).finished


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"data": [{"url": "http://elsewhere/x.png"}]}, "malformed: the answer has no image in b64_json"),
        ({"data": [{"b64_json": "AAAA"}]}, "1-1: the server's image is not in a format"),
        ({"data": [{"b64_json": "?"}]}, "1-1: the server's image is not in base64"),
        ({"data": [{"b64_json": "é"}]}, "1-1: the server's image is not in base64"),
        ({"data": []}, "unreachable: bad body"),
        (failure(400, "Your request was rejected by our content_policy.").body, "refused"),
    ],
)
def test_images_that_a_server_does_not_give_are_counted(
    body: dict[str, Any], word: str, to_draw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai")
    texts = [json.loads(line)["text"] for line in (tmp_path / "negatives.jsonl").open()]

    def draw(received: Received) -> Response:
        if received.body["prompt"] != texts[3]:
            return Response(body={"data": [{"b64_json": _picture(1)}]})
        return Response(400 if "error" in body else 200, body)

    with serving(draw) as server:
        assert main([*to_draw, "--base-url", server.url, "--model", "m", "--retries", "1"]) == 1
    told = capsys.readouterr().err
    assert "1 image not drawn; the same command asks again." in told and word in told
    assert "7 of 24 captions with a distractor image" in told
    assert len(list((tmp_path / "drawn").iterdir())) == 7


def test_a_field_of_the_user_is_not_omitted(to_draw: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai")
    with serving(lambda received: failure(400, "Unknown parameter: 'seed'.")) as server:
        assert main([*to_draw, "--base-url", server.url, "--model", "m", "--extra-body", '{"seed": 3}']) == 2
        assert all(received.body["seed"] == 3 for received in server.received)
    assert "Unknown parameter: 'seed'" in capsys.readouterr().err


def test_flags_of_the_server_that_do_not_fit_are_refused(
    to_draw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = ["--base-url", "http://localhost:1/v1"]
    for words, message in (
        ([*to_draw, "--model", "m"], "--model requires --base-url URL."),
        ([*to_draw, *url], "--base-url needs --model NAME, and --drawn FOLDER"),
        ([*to_draw, *url, "--model", "m", "--extra-body", "[]"], "--extra-body is no JSON object"),
        ([*to_draw, *url, "--model", "m", "--drawn", "s3://bucket/drawn"], "s3://bucket/drawn"),
        (to_draw, "drawn"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "drawn").exists()


def test_an_id_that_is_a_path_names_a_file_in_the_folder(tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    long, similar = "é" * 123 + "x", "é" * 123 + "y"
    texts = {"../7": "a dog", "00000/%41": "a cat", "%41": "a cow", "..": "a fox", "..%2F7": "a pig"}
    texts |= {long: "a hen", similar: "a bee"}
    model = ScriptedModel(lambda request: _picture(1))
    assert draw_images(texts, drawn, model) == []
    names = {"../7": "..%2F7", "00000/%41": "00000%2F%2541", "%41": "%41", "..": "..", "..%2F7": "..%252F7"}
    names |= {each: image_name(each) for each in (long, similar)}
    assert names[long] != names[similar] and len(names[long]) == 240
    assert {path.name for path in drawn.iterdir()} == {f"{name}.png" for name in names.values()}
    assert list(tmp_path.iterdir()) == [drawn]
    image_of = drawn_images(drawn, texts)
    for name, file in names.items():
        caption = CaptionRecord(id=name, image="a.png", text="an owl", image_id="a")
        assert image_of(caption) == str(drawn / f"{file}.png")
        assert drawn_text(drawn / f"{file}.png") == texts[name]
    assert draw_images(texts, drawn, ScriptedModel(lambda request: "nothing is asked again")) == []


def test_a_damaged_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "7.png").write_bytes(b"no image")
    caption = CaptionRecord(id="7", image="a.png", text="a dog", image_id="a")
    assert drawn_images(tmp_path, {})(caption) == str(tmp_path / "7.png")


@pytest.mark.parametrize(
    ("text", "shown", "fits"),
    [
        ("A man not riding a horse on a beach.", "Two people rode their horses in a park.", False),
        ("A man not riding a horse on a beach.", "A man leads a horse on a beach.", True),
        ("A man not riding a horse on a beach.", "A man rides a bike on a road.", True),
        ("A man is not in a kitchen.", "A cook in a large kitchen", False),
        ("A man is not in a kitchen.", "A kitchen with a stove", False),
        ("A dog that is not running.", "A black dog runs on a road.", False),
        ("A dog that is not running.", "A black dog lies on a road.", True),
        ("A woman holding no bicycle.", "A girl with a bike", False),
        ("A woman holding no bicycle.", "A girl with a scooter", True),
        ("There is no dog on the sofa.", "A black dog lies on a bed.", False),
        ("A sofa without a dog.", "A cat on a sofa", True),
        ("A cat is on a sofa and a dog is not", "A dog on a sofa", True),
        ("A dog in a red hat.", "A black dog in a hat", True),
        ("A dog cannot run.", "A black dog runs on a road.", False),
        ("A dog cannot run.", "A black dog lies on a road.", True),
        ("Neither a dog nor a cat is on the sofa.", "A kitten on a bed", False),
        ("A man neither riding a horse nor holding a rope.", "A man holds a rope.", False),
        ("A man neither riding a horse nor holding a rope.", "A man leads a horse.", True),
        ("None of the dogs is on a sofa.", "A puppy on a sofa", False),
        ("None of the dogs is on a sofa.", "A cat on a sofa", True),
        ("Nobody is riding a horse.", "Two people rode their horses.", False),
        ("No one rides a horse.", "Two people rode their horses.", False),
        ("Nobody rides a horse.", "Two people lead a horse.", True),
        ("There is nobody on the beach.", "A surfer on a beach", False),
        ("No one is on the beach.", "A surfer on a beach", False),
        ("There is nobody on the beach.", "A dog on a beach", True),
        ("A dog with no collar and no leash.", "A dog on a leash", False),
    ],
)
def test_a_similar_image_must_not_show_what_the_text_denies(
    text: str, shown: str, fits: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = [
        CaptionRecord(id=str(number), image=f"{number}.jpg", text=each, image_id=str(number))
        for number, each in enumerate(("A man rides a horse.", shown, "A lake at night."))
    ]
    captions.append(CaptionRecord(id="4", image="1.jpg", text="A colourful scene.", image_id="1"))
    negative = NegativeRecord(caption_id="0", rule="negation", kind="k", text=text, source="s", accepted=True)
    for near, expected in ((["4", "2"], "1.jpg" if fits else "2.jpg"), (["4"], "1.jpg" if fits else None)):
        paths = [tmp_path / f"{name}.jsonl" for name in ("captions", "negatives", "neighbours", "out")]
        write_jsonl(paths[0], captions)
        write_jsonl(paths[1], [negative])
        write_jsonl(paths[2], [NeighbourRecord(caption_id="0", neighbours=tuple(near))])
        words = ["--negatives", str(paths[1]), "--neighbours", str(paths[2]), "--out", str(paths[3])]
        status = main(["distractors", str(paths[0]), *words])
        if expected is None:
            assert status == 2
            assert "that can fit its text (0 have one)" in capsys.readouterr().err
        else:
            assert next(read_jsonl(CaptionRecord, paths[3])).distractor_image == expected


def test_nothing_to_give_is_reported(
    tiny_pairs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distractors", str(tiny_pairs["captions"]), "--negatives", str(tiny_pairs["negatives"])]
    words += ["--neighbours", str(tiny_pairs["neighbours"]), "--out", str(tmp_path / "partners.jsonl")]
    assert main(words) == 2
    assert "24 have one) and an accepted negative of the rule negation (0 have one)" in capsys.readouterr().err
    assert not (tmp_path / "partners.jsonl").exists()


@pytest.mark.parametrize(
    "command",
    [
        "negatives captions.jsonl",
        "examples draft --rule negation --captions captions.jsonl",
        "distractors captions.jsonl --negatives negatives.jsonl --neighbours neighbours.jsonl",
        "neighbours captions.jsonl --images . --model world",
        "prepare units captions.jsonl",
        "prepare contexts captions.jsonl",
        "negatives judge negatives.jsonl --captions captions.jsonl --clip world --images .",
        "negatives balance negatives.jsonl --captions captions.jsonl",
        "negatives export negatives.jsonl --captions captions.jsonl --to csv",
        "negatives pack negatives.jsonl",
        "negatives report negatives.jsonl --captions captions.jsonl",
    ],
)
def test_no_command_writes_over_what_it_reads(
    command: str,
    tiny_pairs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("captions", "negatives", "neighbours"):
        shutil.copy(tiny_pairs[name], f"{name}.jsonl")
    for name in (f"{one}.jsonl" for one in ("captions", "negatives", "neighbours") if f"{one}.jsonl" in command):
        Path("link.jsonl").unlink(missing_ok=True)
        Path("link.jsonl").symlink_to(name)
        before = Path(name).read_bytes()
        for out in (name, "link.jsonl"):
            assert main([*command.split(), "--out", out]) == 2
            assert capsys.readouterr().err == (
                f"degla: {out}: this command reads it and would overwrite it. Choose another --out.\n"
            )
        assert Path(name).read_bytes() == before
