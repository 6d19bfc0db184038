"""Hard positives: aligned files of the official form, brittleness in all orders, and files that are not aligned."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from degla.errors import InputError
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.benchmarks.hard_positives import BENCHMARK
from degla.evaluation.comparison import compare
from degla.evaluation.neutral import score_names
from degla.evaluation.results import save_result
from degla.evaluation.terminal import named_scores
from degla.evaluation.verdicts import brittle, pair_chances
from degla.results import Result
from tests.evaluation.fake_encoders import constant, knowing
from tests.evaluation.shelf_contract import Colours, literal_image, literal_text, paint, score, tiny_encoder, values_of

STEMS = {
    "replace_att": "vl_checklist_attributes",
    "replace_rel": "vl_checklist_relations",
    "swap": "visual_genome_attribution",
}


def write_hard_positives(root: Path) -> dict[str, list[str]]:
    truth: dict[str, list[str]] = {}
    for folder in ("data", "swapped_data"):
        (root / "hard_positives" / folder).mkdir(parents=True)
    for part, stem in STEMS.items():
        pairs = []
        for number in range(4):
            box = {f"bbox_{name}": 2 + number for name in "xywh"} if part == "swap" else {}
            row = {"image_id": "1", "image_path": f"data/VG_100K_2/{len(truth)}.jpg", **box,
                   "false_caption": f"a black {part}  dog {number}"}  # fmt: skip
            texts = [f"a white {part} dog {number}", f"an ivory {part} dog {number}"]
            truth[f"vg/{len(truth)}.jpg"] = texts
            pairs.append([row | {"true_caption": text} for text in texts])
        for side, folder in enumerate(("data", "swapped_data")):
            rows = [pair[side] for pair in pairs]
            (root / "hard_positives" / folder / f"{stem}.json").write_text(json.dumps(rows))
    return truth


def test_oracle_and_liar_are_not_brittle(tmp_path: Path) -> None:
    truth = write_hard_positives(tmp_path)
    colours = paint(tmp_path, truth)
    for lying, worth in ((False, 1.0), (True, 0.0)):
        values = values_of(score(knowing(truth, colours, lying=lying), "hard_positives", tmp_path).benchmarks[0])
        assert {value for name, value in values.items() if "brittleness" not in name} == {worth}
        assert {value for name, value in values.items() if "brittleness" in name} == {0.0}
    tied = score(constant(), "hard_positives", tmp_path).benchmarks[0]
    assert set(values_of(tied).values()) == {0.0} and all(
        row.ties == row.n for part in tied.parts for row in part.scores
    )


def test_brittleness_of_all_orders() -> None:
    """Two of six orders of caption, paraphrase and negative have exactly one positive above the negative."""
    values = []
    for c, p, n in permutations((1, 2, 3)):
        worth = {"text_ok.1": float(c > n), "text_ok.2": float(p > n), "text_ok": float(c > n and p > n)}
        assert brittle(worth) == float((c > n) != (p > n))
        values.append(brittle(worth))
    assert sum(values) == 2
    chance = {"text_ok.1": 0.5, "text_ok.2": 0.5} | pair_chances(((1, 1, 0),))
    assert brittle(chance) == pytest.approx(np.mean(values)) == pytest.approx(1 / 3)


def test_equals_a_literal_reading(tmp_path: Path) -> None:
    paint(tmp_path, write_hard_positives(tmp_path), size=(40, 30))
    encoder = tiny_encoder()
    expected = {}
    for part, stem in STEMS.items():
        first, second = (
            json.loads((tmp_path / "hard_positives" / folder / f"{stem}.json").read_text())
            for folder in ("data", "swapped_data")
        )
        for number, (one, two) in enumerate(zip(first, second, strict=True)):
            box = None
            if part == "swap":
                x, y, width, height = (one[f"bbox_{name}"] for name in "xywh")
                box = (x, y, x + width, y + height)
            image = literal_image(encoder, tmp_path / "vg" / one["image_path"].split("/")[-1], box)
            texts = (one["true_caption"], two["true_caption"], two["false_caption"])
            c, p, n = (float(image @ literal_text(encoder, text)) for text in texts)
            expected[f"hard_positives/{part}/{number}"] = [c > n and p > n, c > n, p > n, (c > n) != (p > n)]
    result = score(encoder, "hard_positives", tmp_path)
    names = ("text_ok", "text_ok.1", "text_ok.2", "brittle")
    assert {item.id: [item.ok[name] == 1 for name in names] for item in result.items} == expected
    values = values_of(result.benchmarks[0])
    augmented = {part: np.mean([right[0] for name, right in expected.items() if f"/{part}/" in name]) for part in STEMS}
    replaced = (augmented["replace_att"] + augmented["replace_rel"]) / 2
    assert augmented["replace_att"] != augmented["replace_rel"], "else the averages say nothing"
    assert (values["replace"], values["macro"]) == pytest.approx((replaced, (replaced + augmented["swap"]) / 2))
    by_metric = {row.metric: row for row in result.benchmarks[0].parts[0].scores}
    brittle_items = [right[3] for name, right in expected.items() if "/replace_att/" in name]
    assert by_metric["brittleness"].value == pytest.approx(np.mean(brittle_items))
    for place, metric in enumerate(("augmented", "original", "paraphrase")):
        right = [row[place] for name, row in expected.items() if "/replace_att/" in name]
        assert by_metric[metric].value == pytest.approx(np.mean(right))
    assert by_metric["brittleness"].lower and not by_metric["augmented"].lower
    assert by_metric["brittleness"].chance == pytest.approx(1 / 3)
    assert by_metric["brittleness"].ceiling is None and by_metric["augmented"].ceiling is not None


def test_replacements_are_named(tmp_path: Path) -> None:
    write_hard_positives(tmp_path)
    items = {item.id: item for item in BENCHMARK.items(tmp_path)}  # type: ignore[union-attr]
    assert items["hard_positives/replace_rel/1"].group == {"replacement": "a white -> an ivory"}  # type: ignore[union-attr]
    assert items["hard_positives/swap/1"].images[0].crop == (3, 3, 3, 3)


def test_less_brittle_is_not_shown_as_a_loss(tmp_path: Path) -> None:
    """Of brittleness a report shows neither gains nor a best."""
    truth = write_hard_positives(tmp_path)
    colours: Colours = paint(tmp_path, truth)
    results: dict[str, Result] = {
        "oracle": score(knowing(truth, colours, lying=False), "hard_positives", tmp_path),
        "tiny": score(tiny_encoder(), "hard_positives", tmp_path),
    }
    for name, result in results.items():
        about = result.model.model_copy(update={"label": name})
        save_result(result.model_copy(update={"model": about}), tmp_path / f"{name}.json")
    rows = compare([tmp_path / "oracle.json", tmp_path / "tiny.json"], baseline="tiny").rows
    lower = [row for row in rows if "brittleness" in row.metric or "brittleness" in row.name]
    assert len(lower) == 4 and all(row.lower for row in lower)
    assert all(cell.gain is None and not cell.best for row in lower for cell in row.cells.values())
    assert all(row.cells["oracle"].gain is not None for row in rows if row not in lower)
    # Nor does it go by a name by which a choice or a study would have more of it.
    names = named_scores(results["tiny"]).keys()
    assert names == set(score_names(BENCHMARK, [part.name for part in BENCHMARK.parts]))
    assert not any("brittleness" in name for name in names)


def test_files_that_are_not_aligned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vl_checklist_attributes\.json: cannot be read(.|\n)*hard_positives"):
        list(BENCHMARK.items(tmp_path))
    write_hard_positives(tmp_path)
    file = tmp_path / "hard_positives" / "swapped_data" / "vl_checklist_relations.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps(rows[:-1]))
    with pytest.raises(InputError, match=r"swapped_data/vl_checklist_relations\.json: has 3 rows, but .* has 4"):
        list(BENCHMARK.items(tmp_path))
    file.write_text(json.dumps([rows[1], rows[0], *rows[2:]]))
    with pytest.raises(InputError, match=r"vl_checklist_relations\.json item 0: its image or false caption differs"):
        list(BENCHMARK.items(tmp_path))
    file.write_text(json.dumps([rows[0] | {"true_caption": ""}, *rows[1:]]))
    with pytest.raises(InputError, match=r"vl_checklist_relations\.json item 0: field 'true_caption'"):
        list(BENCHMARK.items(tmp_path))


def test_published_counts(tmp_path: Path) -> None:
    assert isinstance(BENCHMARK, Benchmark) and sum(part.n or 0 for part in BENCHMARK.parts) == 56191
    write_hard_positives(tmp_path)
    with pytest.raises(InputError, match=r"'replace_att' under .* has 4 items, the published one has 10,575"):
        score(tiny_encoder(), "hard_positives", tmp_path, allow_missing=False)
