"""Floors score what a model without knowledge must, and stand beside chance in the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.benchmark import Benchmark, BenchmarkPart, Entry
from degla.evaluation.comparison import compare
from degla.evaluation.models import BlindModel, load_floor, load_model, seed_of
from degla.evaluation.report import report
from degla.evaluation.results import load_result, save_result
from degla.evaluation.run import Evaluation
from degla.evaluation.scoring import unit_rows
from degla.records import ItemImage, PairItem
from degla.results import Result
from degla.shelf import BENCHMARKS, Shelf
from tests.evaluation.fake_encoders import spreading
from tests.tiny import write_classes


def pairs_of(texts: list[tuple[str, str]]) -> Benchmark:
    """Six pictures, each with every pair of a true and a false text."""

    def items(root: Path) -> Iterator[Entry]:
        for image in range(6):
            for number, (true, false) in enumerate(texts):
                yield PairItem(
                    id=f"gift/pair/{image}-{number}",
                    benchmark="gift",
                    part="pair",
                    images=(ItemImage(path=f"{image}.png"),),
                    texts=(true, false),
                    gold=((1, 0),),
                )

    return Benchmark(
        name="gift", title="Gift", paper="-", licence="-", source="-", layout="N.png", citation="",
        parts=(BenchmarkPart(name="pair", family="swap"),), items=items, annotations=(),
        headline={"composition": "pair"},
    )  # fmt: skip


@pytest.fixture
def gift(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark whose false texts are the longer ones, under the small benchmark's pictures."""
    texts = [(f"thing {number:03d}", f"thing {number:03d} more") for number in range(60)]
    use(pairs_of(texts), monkeypatch)
    return small_root


def use(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    load, names = Shelf.load, Shelf.names
    module = type("module", (), {"BENCHMARK": benchmark})
    monkeypatch.setattr(Shelf, "load", lambda shelf, name: module if name == "gift" else load(shelf, name))
    monkeypatch.setattr(Shelf, "names", lambda shelf: [*names(shelf), *(["gift"] if shelf == BENCHMARKS else [])])


def score(name: str, root: Path, benchmark: str = "gift") -> Result:
    return Evaluation([benchmark], root, progress=False).score(load_model(name))


def test_random_is_at_chance_and_the_same_every_time(gift: Path) -> None:
    values = {seed: score(f"random:{seed}", gift).benchmarks[0].parts[0].scores[0].value for seed in range(4)}
    assert np.mean(list(values.values())) == pytest.approx(0.5, abs=0.05)
    assert len(set(values.values())) > 1
    again = score("random", gift)
    assert again.items == score("random:0", gift).items
    assert again.model.activation == "none"
    assert again.model.fingerprint != score("random:1", gift).model.fingerprint


def test_random_depends_on_content_alone() -> None:
    first, second = load_floor("random"), load_floor("random")
    texts = [f"text {number}" for number in range(5)]
    whole = first.encode_captions(first.tokenize(texts))
    parts = torch.cat([second.encode_captions(second.tokenize([text])) for text in reversed(texts)]).flip(0)
    assert torch.equal(whole, parts)
    assert np.allclose(np.linalg.norm(whole.numpy(), axis=1), 1, atol=1e-6)
    red, blue = (first.transform(Image.new("RGB", (4, 4), colour)) for colour in ("red", "blue"))
    rows = first.encode_images(torch.stack([red, blue, red]))
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])


def test_blind_prefers_the_shorter_text_whatever_the_image(gift: Path) -> None:
    result = score("blind", gift)
    assert result.benchmarks[0].parts[0].scores[0].value == 1.0
    assert result.benchmarks[0].parts[0].scores[0].ties == 0
    # The pictures make no difference: each pair has one margin.
    margins: dict[str, set[float | None]] = {}
    for item in result.items:
        margins.setdefault(item.id.rpartition("-")[2], set()).add(item.margin)
    assert len(margins) == 60 and {len(values) for values in margins.values()} == {1}


def test_blind_is_at_chance_between_equal_lengths(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(pairs_of([(f"a {number:04d} b", f"b {number:04d} a") for number in range(800)]), monkeypatch)
    scored = score("blind", small_root).benchmarks[0].parts[0].scores[0]
    assert scored.ties == 0
    assert scored.value == pytest.approx(0.5, abs=0.07)


def test_blind_orders_texts_by_any_dislike_to_the_last_bit() -> None:
    dislikes = {f"t{number}": 0.5 + 0.001 * number for number in range(2000)}
    blind = BlindModel("blind:x", lambda texts: [dislikes[text] for text in texts], fingerprint="x")
    rows = unit_rows(blind.encode_captions(blind.tokenize(list(dislikes))).numpy())
    similarities = rows @ np.array([1, 0], dtype=np.float32)
    assert (np.diff(similarities) < 0).all()


def test_wrong_names_are_reported() -> None:
    with pytest.raises(InputError, match="random:SEED"):
        load_model("random:often")
    assert (seed_of("random"), seed_of("random:7"), seed_of("blind"), seed_of("world")) == (0, 7, None, None)


def save(result: Result, folder: Path, label: str) -> Path:
    path = folder / f"{label}.json"
    save_result(result.model_copy(update={"model": result.model.model_copy(update={"label": label})}), path)
    return path


def test_they_stand_beside_chance_in_the_report(gift: Path, tmp_path: Path) -> None:
    paths = [save(score(name, gift), tmp_path, name) for name in ("random", "blind")]
    model = Evaluation(["gift"], gift, progress=False).score(spreading())
    paths += [save(model, tmp_path, "mine")]
    comparison = compare(paths, baseline="mine")
    assert [method.label for method in comparison.methods] == ["mine"]
    assert [floor.label for floor in comparison.floors] == ["random", "blind"]
    (row,) = comparison.rows
    assert row.cells.keys() == {"mine"}
    scored_random = load_result(paths[0]).benchmarks[0].parts[0].scores[0].value
    assert row.floors == {"shorter text": 1.0, "random": scored_random, "blind": 1.0}
    assert any(
        "Gift: blind beats chance without the image: pair 100 % (chance 50 %)" in warning
        for warning in comparison.warnings
    )
    assert not any("activation" in warning for warning in comparison.warnings)
    data = report(paths, out=tmp_path / "report.html", baseline="mine")
    assert data["rows"][0]["floors"]["blind"] == 1.0
    assert [floor["label"] for floor in data["floors"]] == ["random", "blind"]
    page = (tmp_path / "report.html").read_text()
    assert '<th scope="row"><span>blind</span></th>' in page
    assert "| chance | shorter text | random | blind |" in (tmp_path / "report.md").read_text()
    # Alone they are what there is to show; as the baseline they are counted from.
    assert [method.label for method in compare(paths[:2]).methods] == ["random", "blind"]
    assert [method.label for method in compare(paths, baseline="random").methods] == ["random", "mine"]


@pytest.mark.parametrize("name", ["random", "blind"])
def test_a_model_in_a_folder_of_that_name_is_none(gift: Path, tmp_path: Path, name: str) -> None:
    model = Evaluation(["gift"], gift, progress=False).score(spreading())
    model = model.model_copy(update={"model": model.model.model_copy(update={"name": name})})
    paths = [save(model, tmp_path, "mine"), save(score("random:2", gift), tmp_path, "floor")]
    paths.append(save(model, tmp_path, "other"))
    comparison = compare(paths, baseline="other")
    assert [method.label for method in comparison.methods] == ["other", "mine"]
    assert [floor.label for floor in comparison.floors] == ["floor"]
    assert not any("beats chance without the image" in warning for warning in comparison.warnings)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_classes(tmp_path / "data", images=2)
    out = tmp_path / "out.json"
    cache = tmp_path / "cache"
    words = ["evaluate", "random:3", "blind", "world", "--benchmarks", "zeroshot", "--root", str(root)]
    assert main([*words, "--out", str(out), "--cache", str(cache), "--json"]) == 0
    results = [load_result(tmp_path / f"out-{number}.json") for number in (1, 2, 3)]
    assert [result.model.name for result in results] == ["random:3", "blind", "world"]
    assert [result.training_seed for result in results] == [3, None, None]
    assert len({result.benchmarks[0].items_sha256 for result in results}) == 1
    # Files of the one model's images and texts: floors that are scored as models are not kept.
    assert len(list(cache.glob("*.sqlite"))) == 2
    assert main(["train", "smoke", "--model", "random", "--out", str(tmp_path / "run")]) == 2
    assert json.loads((tmp_path / "out-1.json").read_text())["model"]["activation"] == "none"
    capsys.readouterr()
    options = ["--activation", "gelu", "--precision", "bf16", "--no-cache", "--out", str(out)]
    for several, lines in ((words[:3], 2), (words[:4], 0)):
        assert main([*several, *words[4:], *options]) == 0
        assert capsys.readouterr().err.count(" has no effect: floors have none.") == lines


def write_language_model(folder: Path) -> Path:
    """A tiny causal transformer over letters, as transformers writes it."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {token: number for number, token in enumerate(["<s>", "</s>", *"abcdefghij "])}, "<s>"
        )
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        **sizes, vocab_size=13, max_position_embeddings=64, bos_token_id=0, eos_token_id=1
    )
    transformers.LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


def test_blind_with_a_language_model_ranks_by_mean_likelihood(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path / "lm")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    texts = ["abc", "abcabc", "a bad cab", "jjjj", "d", "abd"] + [f"a{letter}" * 3 for letter in "abcdefghij"] * 3
    expected = []
    for text in texts:
        numbers = torch.tensor([[0, *(2 + "abcdefghij ".index(letter) for letter in text)]])
        with torch.no_grad():
            rows = torch.log_softmax(model(numbers).logits[0, :-1], dim=-1)
        expected.append(-rows.gather(1, numbers[0, 1:, None]).mean().item())
    blind = load_floor(f"blind:{folder}")
    assert isinstance(blind, BlindModel)
    assert blind._dislike(texts) == pytest.approx(expected, abs=1e-4)
    assert blind._dislike([""]) == [0.0]  # without tokens
    rows = blind.encode_captions(blind.tokenize(texts)).numpy()
    assert np.argsort(rows[:6, 0]).tolist() == np.argsort(expected[:6])[::-1].tolist()
    assert blind.fingerprint != load_floor("blind").fingerprint
    with pytest.raises(InputError, match="a text is too long for the language model"):
        blind.encode_captions(blind.tokenize(["a" * 80]))
    with pytest.raises(InputError, match=r"no/such/model\.gguf: no such file"):
        load_floor("blind:no/such/model.gguf")
    with torch.no_grad():
        model.model.embed_tokens.weight[2 + "abcdefghij ".index("j")] = torch.nan
    model.save_pretrained(folder)
    broken = load_floor(f"blind:{folder}")
    assert broken.encode_captions(broken.tokenize(["ja"])).isnan().any()  # Such rows end an evaluation.
