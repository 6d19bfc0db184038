"""What explanations keep: probabilities by hand, parts by chance, towers of any kind, what the command refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from degla.api import encode_captions
from degla.cli import main
from degla.errors import InputError
from degla.evaluation.explained import AskedImages, Explainer, ExplainSettings, explain_model, scores_of
from degla.evaluation.robustness import AttackSettings, attack_model
from degla.evaluation.run import ask_all
from degla.model.evidence import keep_patches, pixel_evidence
from degla.model.load import load_encoder
from degla.records import ItemImage
from tests.tiny import RESNET, write_classes, write_model


def test_what_is_kept_and_gradient_times_pixels_by_hand() -> None:
    images = torch.arange(1.0, 17).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    mask = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    part = keep_patches(images, mask)
    assert part[0, 0].tolist() == [[0, 0, 3, 4], [0, 0, 7, 8], [0, 0, 0, 0], [0, 0, 0, 0]]
    weights = torch.zeros(3, 4, 4)
    weights[0, 0, 0], weights[2, 0, 0], weights[1, 0, 1], weights[2, 3, 3] = 2.0, -0.5, -1.0, 0.5
    evidence = pixel_evidence(images, lambda leaf: (leaf * weights).sum(dim=(1, 2, 3)), grid=(2, 2))
    # Above on the left 2 * 1 - 0.5 * 1, and -1 * 2, which is cut to 0; below on the right 0.5 * 16: means of 4 pixels.
    assert evidence.tolist() == [[[0.375, 0.0], [0.0, 2.0]]]


class _Sums:
    """In place of a CLIP: a picture's embedding is the mean of its left and of its right half."""

    reads_class_token = False
    scale = torch.tensor(2.0)

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        half = images.shape[3] // 2
        return torch.stack([images[..., :half].mean(dim=(1, 2, 3)), images[..., half:].mean(dim=(1, 2, 3))], dim=1)


def test_probabilities_of_a_picture_and_of_its_parts_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(_Sums(), Path(), ExplainSettings(share=1 / 64))  # type: ignore[arg-type]
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[..., 0, 0], pixels[..., 7, 7], pixels[..., 0, 7] = 32.0, 32.0, 48.0
    # Halves are 1 and 2.5; of the texts "left", "right" and one that is not there, the answer is "right".
    texts = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    noise = torch.zeros(8, 8)
    noise[7, 7] = 1.0
    monkeypatch.setattr(Explainer, "_noise", lambda self, number, grid: noise)
    probabilities = explainer.explain(pixels, texts, torch.tensor([[True, True, False]]), numbers=[0])
    # Evidence for it keeps the brightest place on the right, chance here the other one there.
    answers = [torch.tensor([2.0, 5.0]), torch.tensor([0.0, 3.0]), torch.tensor([0.0, 2.0])]
    assert probabilities[0].tolist() == pytest.approx([float(each.softmax(0)[1]) for each in answers])


def test_pictures_with_fewer_texts_have_rows_that_are_not_there() -> None:
    images = tuple(ItemImage(path=name) for name in "ab")
    sample = AskedImages("part", images, torch.eye(3), ((0, 1, 2), (2, 0)))
    rows, there = sample.rows_of([1, 0])
    assert there.tolist() == [[True, True, False], [True, True, True]]
    assert rows[0, :2].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_no_interval_of_few_pictures_is_a_point() -> None:
    sample = AskedImages("part", tuple(ItemImage(path=name) for name in "abcdefgh"), torch.eye(3), ((0, 1),) * 8)
    scores = scores_of(sample, torch.tensor([[0.8, 0.2, 0.8]]).expand(8, -1), contents="abcdefgh", seed=0)
    drop, increase, *by_chance = scores
    assert [score.lower for score in scores] == [True, False, True, False]
    assert (drop.value, increase.value) == (pytest.approx(0.75), 0.0)
    assert [score.value for score in by_chance] == [0.0, 0.0], "an equal probability has neither dropped nor risen"
    # Clopper and Pearson's for none of 8: 1 - 0.025^(1/8).
    assert increase.interval is not None and increase.interval.high == pytest.approx(1 - 0.025**0.125)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("explained"), images=2)


def test_towers_of_any_kind_are_explained(root: Path, tmp_path: Path, tiny_model: Path) -> None:
    resnet = write_model(tmp_path / "resnet", vision_cfg=RESNET)
    questions = ask_all(["zeroshot"], root)
    for folder, by in ((tiny_model, "attention"), (resnet, "gradient")):
        encoder = load_encoder(f"local-dir:{folder}")
        result = explain_model(encoder, ExplainSettings(0.5), questions, root=root)
        scores = result.benchmarks[0].parts[0].scores
        assert result.by == by and [score.metric for score in scores][:2] == ["drop", "increase"]
        assert all(score.n == 6 and score.interval is not None for score in scores)
        again = explain_model(encoder, ExplainSettings(0.5), questions, root=root)
        assert again.benchmarks == result.benchmarks, "the same squares are drawn again"
    with pytest.raises(InputError, match=r"--by attention: .* is not a plain open_clip vision transformer"):
        explain_model(encoder, ExplainSettings(by="attention"), questions, root=root)


def test_copies_of_a_picture_count_once(tmp_path: Path, tiny_model: Path) -> None:
    root = write_classes(tmp_path, images=2)
    for file in sorted(root.rglob("*.png")):
        shutil.copy(file, file.with_name(f"copy {file.name}"))
    encoder, questions = load_encoder(f"local-dir:{tiny_model}"), ask_all(["zeroshot"], root)
    explained = explain_model(encoder, ExplainSettings(0.5), questions, root=root)
    attacked = attack_model(encoder, AttackSettings([1 / 255], steps=1), questions, root=root)
    for score in (explained.benchmarks[0].parts[0].scores[1], attacked.benchmarks[0].attacked[0].scores[0]):
        assert score.interval is not None and "bootstrap over images" in score.interval.method, "not exact binomial"


def test_a_caption_and_its_false_ones_are_the_texts_of_their_picture(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts_of = {
        f"{name}.png": (f"a {name} cat", f"a {name} dog") for name in ("red", "green", "blue", "black", "white")
    }
    rows = []
    for number, (image, (caption, negative)) in enumerate(texts_of.items()):
        Image.new("RGB", (8, 8)).save(tmp_path / image)
        rows.append({"image": image, "caption": caption, "negative": negative, "part": ("cats", "few")[number % 2]})
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    encoder, samples = load_encoder(f"local-dir:{tiny_model}"), list[AskedImages]()

    def ask(explainer: Explainer, each: AskedImages) -> torch.Tensor:
        samples.append(each)
        return torch.full((len(each.images), 3), 0.5)

    monkeypatch.setattr(Explainer, "ask", ask)
    result = explain_model(encoder, ExplainSettings(images=2), ask_all(["own"], tmp_path), root=tmp_path)
    assert [(part.part, part.scores[0].n) for part in result.benchmarks[0].parts] == [("cats", 2), ("few", 2)]
    for each, names in zip(samples, (("red", "blue", "white"), ("green", "black")), strict=True):
        assert len({image.path for image in each.images} & {f"{name}.png" for name in names}) == 2
        for number, image in enumerate(each.images):
            texts, there = each.rows_of([number])
            assert there.all() and torch.allclose(texts[0], encode_captions(encoder, texts_of[image.path]), atol=1e-5)


def test_the_command_compares_models(
    root: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evidence", f"local-dir:{tiny_model}", f"local-dir:{tiny_model}", "--benchmarks", "zeroshot", "--root",
             str(root), "--label", "one", "other", "--images", "4", "--out", str(tmp_path / "found.json")]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("drop", "increase", "by chance", "one", "other", "4 items"))
    first, second = json.loads((tmp_path / "found.json").read_text())["models"]
    assert first["benchmarks"] == second["benchmarks"] and first["images"] == 4
    assert "Not comparable" not in printed


def test_different_evidence_in_one_table_is_said(
    root: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tower without a class token falls back to gradients, beside models explained by attention."""
    other = write_model(tmp_path / "resnet", vision_cfg=RESNET)
    words = ["evidence", f"local-dir:{tiny_model}", f"local-dir:{other}", "--benchmarks", "zeroshot", "--root",
             str(root), "--label", "vit", "resnet", "--images", "2"]  # fmt: skip
    said = "Not comparable, because the evidence differs: vit by attention, resnet by gradient."
    for more, differs in (([], True), (["--by", "gradient"], False)):
        assert main([*words, *more]) == 0
        assert (said in " ".join(capsys.readouterr().out.split())) is differs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--share", "1"], "--share is 1.0; it must be above 0 and below 1"),
        (["--images", "0"], "--images is 0; it must be 1 or more"),
        (["--label", "a", "b"], "--label gives 2 names for 1 model."),
    ],
)
def test_wrong_words_say_what_is_right(
    words: list[str], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evidence", "world", "--benchmarks", "zeroshot", "--root", str(root), *words]) == 2
    assert message in capsys.readouterr().err


def test_benchmarks_without_an_answer_are_refused_before_a_model_is_loaded(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("degla.model.load.load_encoder", pytest.fail)
    (root / "karpathy").mkdir()
    (root / "karpathy" / "flickr30k_test.json").write_text('[{"image": "a.png", "caption": ["a cat", "a dog"]}]')
    Image.new("RGB", (8, 8)).save(root / "a.png")
    command = ["evidence", "world", "--benchmarks", "zeroshot", "retrieval", "--root", str(root), "--allow-missing"]
    assert main(command) == 2
    assert "so there is no answer to explain. Omit the benchmark." in capsys.readouterr().err
