"""SugarCrepe++: official counts, a literal twin of both questions, made data, and items that cannot be right."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from degla.errors import DeglaError, InputError
from degla.evaluation.benchmarks.sugarcrepe_pp import BENCHMARK
from degla.evaluation.scoring import score_texts
from degla.records import PairItem, validate
from tests.evaluation.fake_encoders import FakeEncoder, spread_row, words
from tests.evaluation.shelf_contract import (
    assert_constant_ties,
    literal_image,
    literal_text,
    paint,
    score,
    tiny_encoder,
    values_of,
)
from tests.official import SHARED

COUNTS = {"replace_obj": 1652, "replace_att": 788, "replace_rel": 1406, "swap_obj": 245, "swap_att": 666}


def test_counts_of_the_official_files(data_root: Path) -> None:
    items = [item for item in BENCHMARK.items(data_root) if isinstance(item, PairItem)]
    official = data_root == SHARED
    assert {part.name: part.n for part in BENCHMARK.parts if "/" not in part.name} == COUNTS
    assert sum(COUNTS.values()) == 4757
    counts = COUNTS if official else dict.fromkeys(COUNTS, 8)
    assert len({item.id for item in items}) == len(items) == 2 * sum(counts.values())
    for part, count in counts.items():
        assert sum(item.part == part for item in items) == count
        assert sum(item.part == f"text_only/{part}" for item in items) == count
    assert sum(bool(item.images) for item in items) == sum(counts.values())
    same = {item.id for item in items if item.images and item.texts[0] == item.texts[2]}
    assert same == {"sugarcrepe_pp/swap_obj/2", f"sugarcrepe_pp/swap_obj/{8 if official else 5}"}
    if official:
        assert [item.id for item in items if item.images and item.texts[0] == item.texts[1]] == [
            "sugarcrepe_pp/replace_att/14"
        ]


def test_equals_the_literal_protocol_item_by_item(data_root: Path) -> None:
    """Both questions on the pictures that are there, and the text question on every item of swap_obj."""
    encoder = tiny_encoder()
    official = data_root == SHARED
    counts = COUNTS if official else dict.fromkeys(COUNTS, 8)
    result = score(encoder, "sugarcrepe_pp", data_root)
    verdicts = {item.id: item for item in result.items}
    photographs = texts_only = 0
    right = {"text_ok": 0, "text_ok.1": 0, "text_ok.2": 0, "brittle": 0, "text_only_ok": 0}
    for part in COUNTS:
        for row in json.loads((data_root / "sugarcrepe_pp" / f"{part}.json").read_text()):
            image = data_root / "coco" / "val2017" / row["filename"]
            if not image.exists() and part != "swap_obj":
                continue
            first, second, negative = (
                literal_text(encoder, row[name]) for name in ("caption", "caption2", "negative_caption")
            )
            alone = verdicts[f"sugarcrepe_pp/text_only/{part}/{row['id']}"]
            together = first @ second
            expected = bool(together > first @ negative) and bool(together > second @ negative)
            # A caption that is its own negative ties exactly here; one forward a text could round it either way.
            if row["caption"] == row["negative_caption"]:
                assert alone.degenerate
                assert alone.ties["text_only_ok"] == 1
                expected = False
            assert alone.ok == {"text_only_ok": float(expected)}
            right["text_only_ok"] += expected
            texts_only += 1
            if not image.exists():
                assert f"sugarcrepe_pp/{part}/{row['id']}" not in verdicts
                continue
            picture = literal_image(encoder, image)
            one, two, false = (float(picture @ text) for text in (first, second, negative))
            literal = {"text_ok": one > false and two > false, "text_ok.1": one > false, "text_ok.2": two > false}
            literal["brittle"] = min(one, two) < false < max(one, two)
            verdict = verdicts[f"sugarcrepe_pp/{part}/{row['id']}"]
            assert {key: bool(worth) for key, worth in verdict.ok.items()} == literal
            assert verdict.image == alone.image
            for key, worth in literal.items():
                right[key] += worth
            photographs += 1
    assert photographs == (97 if official else 35)
    assert texts_only > (300 if official else 35)
    assert 0 < right["text_ok"] / photographs <= min(right["text_ok.1"], right["text_ok.2"]) / photographs < 1
    assert 0.05 < right["text_only_ok"] / texts_only < 1
    parts = {part.name: part for part in result.benchmarks[0].parts}
    for number, (metric, key) in enumerate(
        (
            ("image_to_text", "text_ok"),
            ("caption", "text_ok.1"),
            ("caption2", "text_ok.2"),
            ("brittleness", "brittle"),
        )
    ):
        scores = [parts[name].scores[number] for name in COUNTS]
        assert {score.metric for score in scores} == {metric}
        assert sum(score.value * score.n for score in scores) == pytest.approx(right[key])
    assert len({right[key] for key in ("text_ok", "text_ok.1", "text_ok.2")}) >= (3 if official else 2)
    assert parts["text_only/swap_obj"].degenerate == 2
    assert {name: part.scores[0].n for name, part in parts.items() if "/" in name} == {
        f"text_only/{name}": count for name, count in counts.items()
    }
    assert all(part.missing == 0 for name, part in parts.items() if "/" in name)
    assert parts["swap_att"].scores[0].n + parts["swap_att"].missing == counts["swap_att"]
    assert [each.chance for each in parts["swap_att"].scores] == pytest.approx([1 / 3, 1 / 2, 1 / 2, 1 / 3])
    assert parts["text_only/swap_att"].scores[0].chance == pytest.approx(1 / 3)


def knowing_texts(truth: dict[str, str], *, lying: bool) -> FakeEncoder:
    """Brings together the texts that say the same; the liar brings the negative to the first caption."""
    rows = {tuple(words(text)): spread_row(key.encode(), 24) for text, key in truth.items()}
    assert len(rows) == len(truth)
    sign = -1.0 if lying else 1.0
    return FakeEncoder(lambda image: sign * spread_row(b"picture", 24), lambda tokens: rows[tokens])


def write_made(root: Path) -> None:
    (root / "sugarcrepe_pp").mkdir()
    for part in COUNTS:
        rows = [
            {
                "id": number,
                "filename": f"{number}.jpg",
                "caption": f"{part} true {number}",
                "caption2": f"{part} also true {number}",
                "negative_caption": f"{part} false {number}",
            }
            for number in range(3)
        ]
        (root / "sugarcrepe_pp" / f"{part}.json").write_text(json.dumps(rows))


def test_oracle_liar_and_constant(tmp_path: Path) -> None:
    write_made(tmp_path)
    paint(tmp_path, [f"coco/val2017/{number}.jpg" for number in range(3)])
    texts = {text for item in BENCHMARK.items(tmp_path) for text in item.texts}
    honest = {text: "false" if "false" in text else "picture" for text in texts}
    oracle = score(knowing_texts(honest, lying=False), "sugarcrepe_pp", tmp_path).benchmarks[0]
    assert {value for name, value in values_of(oracle).items() if "brittleness" not in name} == {1.0}
    assert {value for name, value in values_of(oracle).items() if "brittleness" in name} == {0.0}
    swapped = {text: "picture" if "also" in text else "false" for text in texts}
    liar = score(knowing_texts(swapped, lying=False), "sugarcrepe_pp", tmp_path).benchmarks[0]
    assert {value for name, value in values_of(liar).items() if "text_only" in name} == {0.0}
    liar = score(knowing_texts(honest, lying=True), "sugarcrepe_pp", tmp_path).benchmarks[0]
    assert {value for name, value in values_of(liar).items() if "text_only" not in name} == {0.0}
    assert_constant_ties("sugarcrepe_pp", tmp_path)
    assert oracle.headline == {"composition": "macro5", "swap": "swap.macro"}
    assert {average.name: average.n for average in oracle.averages}["text_only.micro"] == 15


def test_the_texts_alone_need_no_image(tmp_path: Path) -> None:
    write_made(tmp_path)
    result = score(tiny_encoder(), "sugarcrepe_pp", tmp_path).benchmarks[0]
    assert [part.name for part in result.parts] == [f"text_only/{name}" for name in COUNTS]
    assert result.missing_images == 3
    assert result.headline == {}


@pytest.mark.parametrize(("tie", "worth"), [("strict", 0.0), ("half", 0.5), ("lenient", 1.0)])
def test_text_only_truth_table(tie: str, worth: float) -> None:
    for order in permutations((0.1, 0.5, 0.9)):
        same, first, second = order
        values = np.array([[[1, same, first], [same, 1, second], [first, second, 1]]])
        ok, ties, margin = score_texts(values, np.array([[1, 1, 0]]), tie=tie)  # type: ignore[arg-type]
        assert ok[0] == float(same > first and same > second)
        assert ties[0] == 0
        assert margin[0] == pytest.approx(same - max(first, second))
    tied = np.array([[[1, 0.5, 0.5], [0.5, 1, 0.2], [0.5, 0.2, 1]]])
    ok, ties, _ = score_texts(tied, np.array([[1, 1, 0]]), tie=tie)  # type: ignore[arg-type]
    assert (ok[0], ties[0]) == (worth, 1)


def test_text_only_scores_refuse_what_is_wrong() -> None:
    with pytest.raises(DeglaError, match="item 'a'"):
        score_texts(np.full((1, 3, 3), np.nan), np.array([[1, 1, 0]]), tie="strict", ids=["a"])
    with pytest.raises(ValueError, match="must be"):
        score_texts(np.zeros((1, 3, 2)), np.array([[1, 1, 0]]), tie="strict")
    row = {"id": "a", "benchmark": "b", "part": "c", "images": (), "texts": ("x", "y"), "gold": ((1, 0),)}
    with pytest.raises(InputError, match="at least two texts with the same meaning"):
        validate(PairItem, row, where="made")


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"replace_obj\.json: cannot be read(.|\n)*scpp(.|\n)*coco/val2017"):
        list(BENCHMARK.items(tmp_path))
    write_made(tmp_path)
    file = tmp_path / "sugarcrepe_pp" / "replace_obj.json"
    file.write_text("{}")
    with pytest.raises(InputError, match=r"replace_obj\.json: must be one JSON list, got a dict"):
        list(BENCHMARK.items(tmp_path))
    file.write_text('[{"id": 0, "filename": "a.jpg", "caption": "x", "caption2": "", "negative_caption": "y"}]')
    with pytest.raises(InputError, match=r"replace_obj\.json item 0: field 'caption2'"):
        list(BENCHMARK.items(tmp_path))
    row = {"id": 7, "filename": "a.jpg", "caption": "x", "caption2": "z", "negative_caption": "y"}
    file.write_text(json.dumps([row, row]))
    with pytest.raises(InputError, match="'sugarcrepe_pp/replace_obj/7' occurs twice"):
        score(tiny_encoder(), "sugarcrepe_pp", tmp_path)
