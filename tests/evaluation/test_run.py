"""Evaluation from end to end: the shelf's contract, each input embedded once, provenance, missing files, disk."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from degla.errors import DeglaError, InputError
from degla.evaluation.embed import Embedder
from degla.evaluation.results import load_result, refuse_to_overwrite_results, save_result
from degla.evaluation.run import Evaluation
from degla.records import ItemImage
from degla.results import Result
from tests.evaluation.conftest import COLOURS, TRUTH
from tests.evaluation.fake_encoders import FakeEncoder, constant, knowing, spread_row, spreading


def run(encoder: FakeEncoder, root: Path, **settings: object) -> Result:
    return Evaluation(["small"], root, progress=False, **settings).score(encoder)  # type: ignore[arg-type]


def values(result: Result) -> dict[str, float]:
    parts = {f"{part.name}.{score.metric}": score.value for part in result.benchmarks[0].parts for score in part.scores}
    return parts | {score.name: score.value for score in result.benchmarks[0].averages}


def test_oracle_scores_one_and_liar_zero(small_root: Path) -> None:
    truthful = values(run(knowing(TRUTH, COLOURS, lying=False), small_root))
    assert len(truthful) == 11
    assert set(truthful.values()) == {1.0}
    assert set(values(run(knowing(TRUTH, COLOURS, lying=True), small_root)).values()) == {0.0}


@pytest.mark.parametrize(("tie", "pair", "top1"), [(None, 0.0, 0.0), ("half", 0.5, 1 / 6), ("lenient", 1.0, 1.0)])
def test_constant_model_ties_everywhere(small_root: Path, tie: str | None, pair: float, top1: float) -> None:
    result = run(constant(), small_root, tie=tie)
    for part in result.benchmarks[0].parts:
        assert all(score.ties == score.n for score in part.scores)
        assert part.tie == (tie or "strict")
    assert all(average.ties == average.n > 0 for average in result.benchmarks[0].averages)
    assert values(result)["pair.accuracy"] == pair
    assert values(result)["recognise.top1"] == pytest.approx(top1)


def test_a_result_has_no_password_of_an_address(small_root: Path, tmp_path: Path) -> None:
    encoder = spreading()
    encoder.name = "sftp://me:secret@host/run"
    result = run(encoder, small_root)
    assert (result.model.name, result.model.label) == ("sftp://host/run",) * 2
    save_result(result, out := tmp_path / "result.json")
    refuse_to_overwrite_results({out: [encoder.name]}, benchmarks=["small"])
    with pytest.raises(InputError, match="would be lost"):
        refuse_to_overwrite_results({out: ["sftp://me:secret@host/other"]}, benchmarks=["small"])
    out.write_text(json.dumps({"model": {"name": 3}, "benchmarks": [{"name": "small"}]}))
    with pytest.raises(InputError, match="exists already and does not contain results"):
        refuse_to_overwrite_results({out: ["mine"]}, benchmarks=["small"])


def test_result_says_where_it_comes_from(small_root: Path) -> None:
    result = Evaluation(["small"], small_root, progress=False).score(spreading(), label="mine", training_seed=3)
    assert (result.model.label, result.training_seed, result.model.activation) == ("mine", 3, "quick_gelu")
    assert set(result.versions) == {"degla", "torch", "open_clip", "python"}
    benchmark = result.benchmarks[0]
    assert len(benchmark.annotation_sha256["notes.json"]) == 64
    scores = {part.name: part.scores[0] for part in benchmark.parts}
    assert {name: score.n for name, score in scores.items()} == {"pair": 6, "square": 2, "recognise": 6, "find": 6}
    assert scores["pair"].chance == 0.5
    assert scores["square"].chance == pytest.approx(1 / 6)
    assert scores["recognise"].chance == pytest.approx(1 / 6)
    assert scores["pair"].interval is not None
    assert scores["pair"].interval.method == "exact binomial"
    micro = next(score for score in benchmark.averages if score.name == "composition.micro")
    assert micro.value == pytest.approx((6 * scores["pair"].value + 2 * scores["square"].value) / 8)


def test_every_input_is_embedded_once(small_root: Path) -> None:
    encoder, cache = spreading(), {}
    run(encoder, small_root, cache=cache)
    assert encoder.images_seen == 6
    assert encoder.texts_seen == 6 + 6 + 6
    run(encoder, small_root, cache=cache)
    assert (encoder.images_seen, encoder.texts_seen) == (6, 18)
    other = spreading()
    other.fingerprint = "e" * 64
    run(other, small_root, cache=cache)
    assert other.images_seen == 6


def test_texts_are_bucketed_and_trimmed_without_a_trace(tmp_path: Path) -> None:
    texts = ["a", "b c d e f g h", "c d", "d e", "A", "f g h i j"]
    encoder = spreading()
    table = Embedder(encoder, root=tmp_path, texts_per_batch=2).embed([], texts)
    assert encoder.text_lengths == [2, 5, 7]
    assert table.text_row["a"] == table.text_row["A"]
    assert len(table.texts) == 5
    untrimmed = spreading()
    untrimmed.trims = False
    whole = Embedder(untrimmed, root=tmp_path, texts_per_batch=2).embed([], texts)
    assert set(untrimmed.text_lengths) == {16}
    assert np.array_equal(table.texts, whole.texts)


def test_float16_rows_become_unit_float32(small_root: Path) -> None:
    encoder = spreading()
    encoder.dtype = torch.float16
    table = Embedder(encoder, root=small_root).embed([ItemImage(path="0.png")], ["a"])
    assert table.images.dtype == np.float32
    assert np.linalg.norm(table.images[0]) == pytest.approx(1, abs=1e-6)


def test_crop_is_cut_before_the_transform(tmp_path: Path) -> None:
    picture = Image.new("RGB", (20, 10), (255, 0, 0))
    picture.paste((0, 0, 255), (10, 0, 20, 10))
    picture.save(tmp_path / "x.png")
    encoder = FakeEncoder(lambda image: image.reshape(3, -1).mean(axis=1) + 1e-3, lambda tokens: np.ones(3))
    images = [ItemImage(path="x.png", crop=(10, 0, 10, 10)), ItemImage(path="x.png", crop=(0, 0, 10, 10))]
    table = Embedder(encoder, root=tmp_path).embed(images, [])
    assert table.images.argmax(axis=1).tolist() == [2, 0]
    for crop in ((15, 0, 10, 10), (0, 5, 10, 10)):
        with pytest.raises(InputError, match=r"x\.png.*outside the image of 20 x 10"):
            Embedder(encoder, root=tmp_path).embed([ItemImage(path="x.png", crop=crop)], [])


def test_degenerate_items_are_counted(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.evaluation import fake_encoders

    plain = fake_encoders.words
    monkeypatch.setattr(fake_encoders, "words", lambda text: plain(text.replace("false 3", "true 3")))
    part = run(spreading(), small_root).benchmarks[0].parts[0]
    assert part.degenerate == 1
    assert part.scores[0].ties == 1


def test_missing_images_are_an_error_or_are_reported(small_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (small_root / "5.png").unlink()
    with pytest.raises(InputError, match=r"1 of 6 images.*5\.png.*--allow-missing \(in a plan allow_missing;"):
        run(spreading(), small_root)
    with caplog.at_level(logging.WARNING):
        result = run(knowing(TRUTH, COLOURS, lying=False), small_root, allow_missing=True)
    assert "1 of 6 images are missing" in caplog.text
    benchmark = result.benchmarks[0]
    assert (benchmark.missing_images, benchmark.missing_examples) == (1, ("5.png",))
    parts = {part.name: part for part in benchmark.parts}
    assert {name: (part.scores[0].n, part.missing) for name, part in parts.items()} == {
        "pair": (5, 1),
        "square": (2, 0),
        "recognise": (5, 1),
        "find": (5, 1),
    }
    assert set(values(result).values()) == {1.0}
    # A column whose average lacks a part, and so is none, is left out.
    assert list(benchmark.headline) == ["composition", "recognition"]
    for name in list(COLOURS)[1:]:
        (small_root / name).unlink(missing_ok=True)
    assert run(spreading(), small_root, allow_missing=True).benchmarks[0].headline == {"recognition": "recognise"}
    for name in COLOURS:
        (small_root / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match="none of its 6 images"):
        run(spreading(), small_root, allow_missing=True)


def test_bad_input_is_named(small_root: Path) -> None:
    with pytest.raises(InputError, match=r"unknown benchmark 'sugarcrap'.*Did you mean 'sugarcrepe'"):
        Evaluation(["sugarcrap"], small_root, progress=False).score(spreading())
    with pytest.raises(InputError, match="tie rule 'loose'"):
        run(spreading(), small_root, tie="loose")
    with pytest.raises(InputError, match="no such folder"):
        run(spreading(), small_root / "nowhere")
    (small_root / "2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"2\.png: the image is not in a format"):
        run(spreading(), small_root)


def test_a_model_that_overflows_is_refused(small_root: Path) -> None:
    broken = spreading()
    broken.text_row = lambda tokens: spread_row(b"x", 24) * np.nan
    with pytest.raises(DeglaError, match="the embedding of 'true 0' is zero or not finite"):
        run(broken, small_root)


def test_training_mode_is_put_back(small_root: Path) -> None:
    class Mode(FakeEncoder):
        training = True

        def eval(self) -> None:
            self.training = False

        def train(self) -> None:
            self.training = True

    modes: list[bool] = []
    encoder = Mode(
        lambda image: modes.append(encoder.training) or spread_row(b"a", 8), lambda tokens: spread_row(b"b", 8)
    )
    run(encoder, small_root)
    assert not any(modes)
    assert encoder.training


def test_results_come_back_from_disk_as_they_were(small_root: Path, tmp_path: Path) -> None:
    result = run(spreading(), small_root)
    path = tmp_path / "deep" / "results.json"
    items = save_result(result, path)
    assert items.name == "results.items.jsonl"
    assert "items" not in json.loads(path.read_text())
    again = load_result(path, items=True)
    assert again.items == result.items
    assert again.benchmarks == result.benchmarks
    whole = items.read_text()
    items.write_text(whole.replace("1.0", "0.0", 1))
    with pytest.raises(InputError, match=r"results\.items\.jsonl: changed since results\.json was written"):
        load_result(path, items=True)
    items.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"results\.items\.jsonl: has \d+ items"):
        load_result(path, items=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "'schema_version' is missing"),
        ('{"schema_version": 9, "versions": {"degla": "7.0"}}', r"'schema_version' is 9.*degla 7\.0"),
        ('{"schema_version": 2}', r"'schema_version' is 2, but .* reads 1\. A newer version .*: update degla\.$"),
        ('{"schema_version": 1, "model": 3}', r"field 'model'.*\. Evaluate again, or use the version that wrote it"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_result(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_result(tmp_path / "none.json")
