"""`degla look`: its numbers match the embeddings, a drawn scene's true caption wins, bad input is one line."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

import degla
from degla.cli import main
from degla.errors import DeglaError
from degla.evaluation.models import RandomModel
from degla.look import Candidate, Look, ModelLook, look, render_look
from degla.model.load import load_encoder
from degla.world.items import make_contrast
from degla.world.painting import render
from degla.world.scenes import sample_scene_of, stream
from degla.world.vocabulary import IN_DOMAIN
from tests.tiny import CAPTIONS, write_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """An image of the embedded world, its caption, and the caption with a noun replaced."""
    rng = stream("look")
    scene = sample_scene_of("test", rng)
    texts = make_contrast(scene, "replace_noun", vocabulary=IN_DOMAIN, rng=rng)
    path = tmp_path_factory.mktemp("drawn") / "scene.png"
    Image.fromarray(render(scene)).save(path)
    return path, texts.positive, texts.negative


def _printed(result: Look, width: int) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(render_look(result))
    return console.file.getvalue()  # type: ignore[attr-defined]


def _json(capsys: Capture, *words: str) -> dict[str, Any]:
    assert main(["look", *words, "--json"]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def test_the_true_caption_wins(drawn: tuple[Path, str, str], capsys: Capture) -> None:
    path, true, false = drawn
    result = _json(capsys, str(path), "--captions", false, true, "--models", "world")
    (model,) = result["models"]
    assert model["model"] == "world" and model["ranks"] == [[2, 1]] and model["share_by"] == "softmax"
    assert result["captions"] == [{"text": false, "rule": ""}, {"text": true, "rule": ""}]
    assert result["changes"] == [[None, None]]


def test_captions_with_the_same_tokens_are_reported(
    drawn: tuple[Path, str, str], capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    path, true, _ = drawn
    long = f"{true} and " * 20
    _json(capsys, str(path), "--captions", true, f"{long} a dog", f"{long} a cat", "--models", "world")
    (warning,) = [line for line in caplog.messages if "have the same tokens, and so the same numbers" in line]
    assert "a dog" in warning and "a cat" in warning


def test_numbers_are_those_of_the_embeddings(
    drawn: tuple[Path, str, str], tiny_model: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = [str(drawn[0]), str(drawn[0].with_name("grey.png"))]
    Image.new("RGB", (40, 30), "grey").save(pictures[1])
    twice = [*CAPTIONS, CAPTIONS[0]]
    result = _json(capsys, *pictures, "--captions", *twice, "--models", "world", str(tiny_model))
    assert f"Caption {CAPTIONS[0]!r} is given more than once; duplicates are ignored" in caplog.text
    assert result["pictures"] == pictures and len(result["captions"]) == len(CAPTIONS)  # The repeated one counts once.
    shares = []
    for name, row in zip(("world", str(tiny_model)), result["models"], strict=True):
        model = load_encoder(name)
        cosines = degla.encode_images(model, pictures) @ degla.encode_captions(model, CAPTIONS).T
        shares.append((model.scale.detach() * cosines).softmax(dim=-1))
        torch.testing.assert_close(torch.tensor(row["cosines"]), cosines)
        torch.testing.assert_close(torch.tensor(row["shares"]), shares[-1], rtol=1e-4, atol=1e-6)
        assert row["ranks"] == (cosines.argsort(dim=-1, descending=True).argsort(dim=-1) + 1).tolist()
    torch.testing.assert_close(torch.tensor(result["changes"]), shares[1] - shares[0], rtol=1e-4, atol=1e-5)


def test_a_model_with_a_bias_gives_probabilities(
    drawn: tuple[Path, str, str], tiny_model: Path, tmp_path: Path
) -> None:
    folder = str(write_model(tmp_path / "sigmoid", init_logit_bias=-1.5))
    result = look([drawn[0]], CAPTIONS, [str(tiny_model), folder])
    biased = result.models[1]
    model = load_encoder(folder)
    assert biased.share_by == "sigmoid" and biased.shares is not None and model.bias is not None
    expected = (model.scale * torch.tensor(biased.cosines) + model.bias).sigmoid().detach()
    torch.testing.assert_close(torch.tensor(biased.shares), expected)
    assert result.change(0, 0) is None  # A softmax and a sigmoid are not compared.
    assert "or its sigmoid probability" in " ".join(_printed(result, 120).split())


def test_an_onnx_folder_has_the_shares_of_its_model(drawn: tuple[Path, str, str], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from degla.export.run import export

    for name, changes in {"softmax": {}, "sigmoid": {"init_logit_bias": -1.5}}.items():
        folder = write_model(tmp_path / name, **changes)
        export(str(folder), to="onnx", out=tmp_path / f"{name}-onnx")
        first, second = look([drawn[0]], CAPTIONS, [str(folder), str(tmp_path / f"{name}-onnx")]).models
        assert first.share_by == second.share_by == name
        torch.testing.assert_close(torch.tensor(first.shares), torch.tensor(second.shares), rtol=1e-3, atol=1e-4)


def test_a_siglip_of_transformers_has_its_bias(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from degla.model.from_transformers import load_transformers_folder
    from tests.export.made import write_clip, write_siglip

    theirs = write_siglip(tmp_path / "siglip")
    encoder = load_transformers_folder(tmp_path / "siglip")
    assert encoder.bias is not None and torch.equal(encoder.bias, theirs.logit_bias.reshape(()))
    write_clip(tmp_path / "clip")
    assert load_transformers_folder(tmp_path / "clip").bias is None


def test_a_floor_has_ranks_and_no_shares(drawn: tuple[Path, str, str]) -> None:
    (floor,) = look([drawn[0]], CAPTIONS, ["random:3"]).models
    assert floor.share_by == "" and floor.shares is None and sorted(floor.ranks[0]) == [1, 2, 3, 4, 5, 6]


def test_negatives_of_the_rules(drawn: tuple[Path, str, str], capsys: Capture) -> None:
    caption = "a black dog chases a white cat"
    negatives = {row.text: row.rule for row in degla.generate_negatives([caption])[0]}
    assert len(negatives) > 1
    # A negative that was also given as a caption does not count as made by the rules.
    second = next(iter(negatives))
    table = _json(capsys, str(drawn[0]), "--captions", caption, second, "--negatives")
    rules = {row["text"]: row["rule"] for row in table["captions"]}
    assert rules[caption] == rules[second] == "" and {text for text in negatives if text != second} <= rules.keys()

    result = look([drawn[0]], [caption], ["world", "random", "world"], negatives=True)
    assert {each.text: each.rule for each in result.captions} == {caption: ""} | negatives
    for width in (80, 120):
        printed = _printed(result, width)
        assert max(map(len, printed.splitlines())) <= width
        assert "✓ a black dog" in printed and "✗ a white dog" in printed and "swap_adjectives" in printed
        assert printed.count("+0.0") == len(result.captions) and printed.count(" #1 ") == 3


def test_false_captions_of_ones_own(drawn: tuple[Path, str, str], capsys: Capture) -> None:
    path, true, false = drawn
    result = _json(capsys, str(path), "--captions", true, "--false", false, "--negatives", "--models", "world")
    assert result["captions"][:2] == [{"text": true, "rule": ""}, {"text": false, "rule": "given as false"}]
    assert result["models"][0]["ranks"][0][0] < result["models"][0]["ranks"][0][1]
    assert main(["look", str(path), "--captions", true, "--false", false]) == 0
    printed = capsys.readouterr().out
    assert printed.count("✓") == printed.count("✗") == 1 and "given as false" in printed


def test_the_terminal_obeys_no_caption(drawn: tuple[Path, str, str], tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "a[red]\x1b]0;b.png"
    path.write_bytes(drawn[0].read_bytes())
    assert main(["look", str(path), "--captions", "a \x1b[31mred\x9b5m dog\x07\u202e", "[red]a cat[/]"]) == 0
    printed = capsys.readouterr().out
    assert not any(letter in printed for letter in "\x1b\x9b\x07\u202e")
    whole = "".join(printed.split())
    assert (
        "\\x1b[31mred\\x9b5m" in whole and "\\u202e" in whole and "[red]a" in whole and "a[red]\\x1b]0;b.png" in whole
    )


def test_the_winner_is_bold_and_changes_are_coloured() -> None:
    captions = (Candidate("true"), Candidate("false", "swap_nouns"))
    first = ModelLook("base", "softmax", [[0.1, 0.2]], [[2, 1]], [[0.25, 0.75]])
    last = ModelLook("tuned", "softmax", [[0.3, 0.2]], [[1, 2]], [[0.75, 0.25]])
    console = Console(file=StringIO(), width=80, force_terminal=True, color_system="standard")

    def lines(*models: ModelLook) -> list[str]:
        console.file = StringIO()
        console.print(render_look(Look(("a.png",), captions, models)))
        return [line for line in console.file.getvalue().splitlines() if "true" in line or "0.200" in line]

    bold, green, red = "\x1b[1m", "\x1b[32m", "\x1b[31m"
    true, false = lines(first, last)
    assert f"{bold}0.300 #1" in true and f"{bold}0.100" not in true and f"{green} +50.0" in true
    assert f"{bold}0.200 #1" in false and f"{bold}0.200 #2" not in false and f"{green} −50.0" in false
    true, false = lines(last, first)
    assert f"{red} −50.0" in true and f"{red} +50.0" in false


def test_one_model_and_only_true_captions(drawn: tuple[Path, str, str], capsys: Capture) -> None:
    path, true, false = drawn
    assert main(["look", str(path), "--captions", true, false]) == 0
    printed = capsys.readouterr().out
    assert "scene.png" in printed and "#1" in printed and "✓" not in printed and "change" not in printed


@pytest.mark.parametrize(
    ("picture", "words", "message"),
    [
        ("gone.png", ["--captions", "a dog"], "gone.png is missing. Give the path of an image."),
        (".", ["--captions", "a dog"], "it is a folder, not a file. Give the path of an image."),
        ("cut.png", ["--captions", "a dog"], "cut.png is damaged or cut off"),
        ("text.png", ["--captions", "a dog"], "text.png is not in a format Pillow reads"),
        ("whole.png", [], "no captions: give --captions TEXT"),
        ("whole.png", ["--captions", "a dog", " "], "caption 2 is empty"),
        ("whole.png", ["--captions", __file__], f"caption 1, {__file__}, is a file. Give the texts themselves"),
        ("whole.png", ["--captions", "a dog", "--false", __file__], "false caption 1, "),
        ("whole.png", ["--captions", "a dog", "--models", "wrold"], "wrold"),
        ("whole.png", ["--captions", "a dog", "--false", " "], "false caption 1 is empty"),
        ("whole.png", ["--captions", "a dog", "--false", ""], "--false needs a value, got an empty one."),
        (
            "whole.png",
            ["--captions", "a dog", "--false", "a cat", "a dog"],
            "false caption 2 is also among the true captions",
        ),
    ],
)
def test_bad_input_is_one_line(
    picture: str, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((40, 40), 90).save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:300])
    Path("text.png").write_text("no picture")
    assert main(["look", picture, *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.startswith("degla: ") and len(printed.splitlines()) == 1


def test_numbers_that_are_not_finite_are_refused(drawn: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomModel, "encode_images", lambda model, images: torch.full((len(images), 512), torch.nan))
    with pytest.raises(DeglaError, match=r"'random': the embedding of '.*scene\.png' is zero or not finite"):
        look([drawn[0]], CAPTIONS, ["random"])


def test_true_rewrites_count_as_true(drawn: tuple[Path, str, str], capsys: Capture, caplog: Any) -> None:
    """As on the page: the rules make true and false captions, and a rewrite that is given as false stays false."""
    text = "A man and a woman sit on a bench near a large tree."
    words = [str(drawn[0]), "--captions", text, "--models", "world", "--positives"]
    rewrites = [each["text"] for each in _json(capsys, *words)["captions"][1:]]
    assert "A woman and a man sit on a bench near a large tree." in rewrites
    captions = _json(capsys, *words, "--negatives", "--false", rewrites[0])["captions"]
    rules = {each["text"]: each["rule"] for each in captions}
    assert rules[rewrites[0]] == "given as false" and {rules[each] for each in [text, *rewrites[1:]]} == {""}
    assert {"", "given as false"} < set(rules.values())
    _json(capsys, str(drawn[0]), "--captions", "hm", "--models", "world", "--positives")
    assert "The rules made no true rewrites" in caplog.text
