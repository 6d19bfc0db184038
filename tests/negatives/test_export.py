"""Exports are read back as the same pairs, and what cannot be exported is counted."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from degla.cli import main
from degla.data.columns import Columns
from degla.data.joining import join
from degla.data.neighbours import NeighbourRecord, read_neighbours
from degla.data.pairs import PairRow
from degla.data.sources import read_captions, read_negatives
from degla.errors import InputError
from degla.negatives.files.export import POSITIONS, ExportSummary, _neighbours
from degla.records import CaptionRecord, NegativeRecord, write_jsonl

FIVE = {rule: f"{rule} text" for rule in POSITIONS}


def caption(number: int, *, image: int | str | None = None) -> CaptionRecord:
    name = number if image is None else image
    file = f"COCO_train2014_{name:012d}.jpg" if isinstance(name, int) else f"{name}.jpg"
    return CaptionRecord(id=f"c{number}", image=file, text=f'Caption "{number}", ü', image_id=str(name))


def negatives(number: int, texts: dict[str, str] | list[tuple[str, str]]) -> list[NegativeRecord]:
    listed = list(texts.items()) if isinstance(texts, dict) else texts
    return [
        NegativeRecord(
            caption_id=f"c{number}", rule=rule, kind="k", text=text, source="rules", accepted=True, draw=draw
        )
        for draw, (rule, text) in enumerate(listed)
    ]


NAMES = {"degla-json": "out.json", "csv": "out.csv"}


class Case:
    """Captions and negatives on disk, and the command that exports them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.captions = [caption(1), caption(2), caption(3, image=2), caption(4)]
        self.rows = [
            *negatives(1, FIVE),
            *negatives(2, [(rule, f"two {rule}") for rule in POSITIONS[:4]]),
            *negatives(3, {"swap_nouns": "three, 'b'", "replace_nouns": 'three "e"'}),
        ]

    def export(self, *words: str, to: str = "degla-json", name: str = "out.json") -> int:
        write_jsonl(self.folder / "c.jsonl", self.captions)
        write_jsonl(self.folder / "n.jsonl", self.rows)
        out = self.folder / name
        arguments = ["n.jsonl", "--captions", "c.jsonl"]
        arguments = [str(self.folder / word) if not word.startswith("--") else word for word in arguments]
        return main(["negatives", "export", *arguments, "--to", to, "--out", str(out), "--json", *words])

    def read(self, name: str = "out.json") -> list[dict]:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def pairs(self) -> list[PairRow]:
        return list(join(self.captions, self.rows))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def texts(rows: list[PairRow]) -> list[tuple[str, str, str, frozenset[str]]]:
    return [(row.caption.image, row.caption.image_id, row.caption.text, frozenset(row.negatives)) for row in rows]


def test_degla_json_has_fixed_positions_and_comes_back(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.rows += negatives(3, {"reshuffle_order": "three a", "replace_adjectives": "three d", "swap_adjectives": "c"})
    assert case.export() == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["captions"], summary["negatives"]) == (3, 14)
    assert summary["left_out"] == {"captions without a negative": 1}
    records = case.read()
    assert all(list(record) == ["image_id", "original", "enhanced"] for record in records)
    assert records[0] == {"image_id": 1, "original": 'Caption "1", ü', "enhanced": list(FIVE.values())}
    assert records[2]["enhanced"] == ["three a", "three, 'b'", "c", "three d", 'three "e"']
    out = case.folder / "out.json"
    back = join(read_captions(out), read_negatives(out))
    assert texts([row for row in back if row.negatives]) == texts([row for row in case.pairs() if row.negatives])


def test_the_order_of_the_rows_does_not_matter(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.export() == 0
    straight = case.read()
    case.rows = case.rows[::-1]
    assert case.export() == 0
    assert case.read() == straight


def test_what_the_released_loader_reads_is_always_four_texts(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.rows += negatives(3, [("add_object", "spare one"), ("swap_nouns", "spare two"), ("negation", "spare three")])
    case.rows += negatives(
        4, {"swap_nouns": "b", "negation": "x", "replace_nouns": "e", "add_object": "y", "more": "z"}
    )
    case.rows += negatives(1, {"negation": "not in any place"})
    assert case.export() == 0
    summary = json.loads(capsys.readouterr().out)
    records = case.read()
    # The loader takes enhanced[0] to enhanced[3] of every record, whatever they are.
    assert all(record["enhanced"][position].strip() for record in records for position in range(4))
    assert records[2]["enhanced"] == ["spare one", "three, 'b'", "spare two", "spare three", 'three "e"']
    assert records[3]["enhanced"] == ["x", "b", "y", "z", "e"]
    assert summary["left_out"] == {"negatives of rules without position": 1}
    assert len(records) == 4 and summary["notes"] == []


@pytest.mark.parametrize("missing", ["swap_adjectives", "replace_adjectives"])
def test_a_gap_among_the_first_four_takes_the_fifth(
    missing: str, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.captions, case.rows = (
        [caption(1)],
        negatives(1, {rule: text for rule, text in FIVE.items() if rule != missing}),
    )
    assert case.export() == 0
    expected = ["reshuffle_order", "swap_nouns", "swap_adjectives", "replace_adjectives"]
    expected[expected.index(missing)] = "replace_nouns"
    assert case.read()[0]["enhanced"] == [FIVE[rule] for rule in expected]


def test_captions_left_out_are_counted_with_their_negatives(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.captions.append(caption(5, image="007"))
    case.rows += negatives(5, FIVE)
    case.rows += negatives(9, FIVE)
    wordless = negatives(1, {"swap_nouns": "  "})
    case.rows += [*wordless, wordless[0].model_copy(update={"text": None})]
    case.rows.append(wordless[0].model_copy(update={"text": None, "accepted": False, "reason": "no_candidate"}))
    case.rows += [row.model_copy(update={"accepted": False, "reason": "synonym"}) for row in negatives(1, FIVE)]
    assert case.export() == 0
    summary = json.loads(capsys.readouterr().out)
    assert [record["image_id"] for record in case.read()] == [1, 2]
    assert summary["captions"] == 2 and summary["negatives"] == 9
    assert summary["left_out"] == {
        "captions with fewer than 4 negatives": 1,
        "captions without a negative": 1,
        "captions whose image_id is not an integer without leading zeros": 1,
        "negatives of captions that are left out": 7,
        "negatives of captions that are not in the captions file": 5,
        "negatives not accepted by the checks": 5,
        "negatives without text": 3,
    }
    shown = ExportSummary(left_out=Counter(summary["left_out"])).omitted
    assert shown.startswith("1 caption whose image_id is not an integer without leading zeros, 1 caption with fewer ")
    assert (
        "negatives, 1 caption without a negative, " in shown
        and ", 7 negatives of captions that are left out, " in shown
    )


def test_images_of_other_names_are_reported(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.captions = [caption(1).model_copy(update={"image": "000000000001.jpg"})]
    case.rows = negatives(1, FIVE)
    assert case.export() == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "1 caption has an image not named like COCO_train2014_000000000009.jpg" in note


@pytest.mark.parametrize(("to", "name"), [("degla-json", "out.csv"), ("csv", "out.json"), ("csv", "out")])
def test_a_name_of_another_format_is_refused(
    case: Case, to: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert case.export(to=to, name=name) == 2 and not (case.folder / name).exists()
    ending = {"degla-json": ".json", "csv": ".csv or .tsv or .tab"}[to]
    assert f"{name}: " in (message := capsys.readouterr().err) and f"must end in {ending} (--out)" in message


@pytest.mark.parametrize(("name", "delimiter"), [("out.csv", ","), ("out.tsv", "\t"), ("OUT.TAB", "\t")])
def test_table_of_negclip_comes_back(case: Case, name: str, delimiter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.export(to="csv", name=name) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["captions"], summary["negatives"]) == (3, 11)
    assert summary["left_out"] == {"captions without a negative": 1}
    with (case.folder / name).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter=delimiter))
    assert {"title", "filepath", "neg_caption", "neg_image"} <= rows[0].keys()
    assert ast.literal_eval(rows[2]["neg_caption"]) == ["three, 'b'", 'three "e"']
    for place, row in enumerate(rows):
        near = ast.literal_eval(row["neg_image"])
        assert len(near) == 3 and all(rows[other]["image_id"] != rows[place]["image_id"] for other in near)
    out = case.folder / name
    columns = Columns(image="filepath", text="title")
    back = join(read_captions(out, columns=columns), read_negatives(out))
    pairs = [row for row in case.pairs() if row.negatives]
    assert [row for row in back if row.negatives] == pairs  # captions with ids and images, negatives in order, rules


def test_rows_of_other_images_are_found_at_once_where_most_rows_are_of_one() -> None:
    draw = _neighbours([0, 1] + 200_000 * [2])
    assert {other for row in range(2, 102) for other in draw(row)} == {0, 1}
    assert all(other != 0 for other in draw(0))


def test_table_with_a_folder_of_images_and_of_one_image(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.captions = [caption(1), caption(2, image=1)]
    case.rows = [*negatives(1, FIVE), *negatives(2, FIVE)]
    assert case.export("--images", "/data/train2014", to="csv", name="out.csv") == 0
    assert "there is only one image" in json.loads(capsys.readouterr().out)["notes"][0]
    with (case.folder / "out.csv").open(encoding="utf-8", newline="") as stream:
        row = next(csv.DictReader(stream))
    assert row["filepath"] == "/data/train2014/COCO_train2014_000000000001.jpg" and row["neg_image"] == "[]"


def test_the_table_has_the_similar_images_and_gives_them_back(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.rows += negatives(4, {"negation": "four"})
    case.rows = [
        row for row in case.rows if row.caption_id != "c2"
    ]  # It has no row, so rows are not captions' numbers.
    near = {"c1": ("c2", "c4"), "c2": ("c1",), "c3": ("c4", "c1"), "c4": ("c2",)}
    file = case.folder / "near.jsonl"
    write_jsonl(file, [NeighbourRecord(caption_id=name, neighbours=names) for name, names in near.items()])
    assert case.export("--neighbours", str(file), to="csv", name="out.tsv") == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "for 1 of 3 captions rows drawn at random" in note and note.endswith("(none is in the table).")
    write_jsonl(file, [NeighbourRecord(caption_id="x", neighbours=("y",))])  # of other captions
    assert case.export("--neighbours", str(file), to="csv", name="other.csv") == 0
    assert "for 3 of 3 captions rows drawn" in capsys.readouterr().out
    write_jsonl(file, [NeighbourRecord(caption_id=name, neighbours=names) for name, names in near.items()])
    back = {record.caption_id: record.neighbours for record in read_neighbours(case.folder / "out.tsv")}
    assert back["c1"] == ("c4",) and back["c3"] == ("c4", "c1") and "c4" not in back["c4"]
    case.rows += negatives(2, {"negation": "two"})
    assert case.export("--neighbours", str(file), to="csv", name="all.csv") == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []
    assert {record.caption_id: record.neighbours for record in read_neighbours(case.folder / "all.csv")} == near


@pytest.mark.parametrize(
    ("header", "cell", "message"),
    [
        ("neg_image", "[0, 2]", "'neg_image' has row 2, but the table has 2 rows"),
        ("neg_image", "[-1]", "has row -1"),
        ("neg_image", "['0']", "must be a Python list of whole numbers, found \"['0']\""),
        ("other", "[0]", "has no column 'neg_image'"),
    ],
)
def test_a_table_with_wrong_rows_of_similar_images(header: str, cell: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "negclip.tsv"
    file.write_text(f"title\t{header}\na\t[1]\nb\t{cell}\n")
    with pytest.raises(InputError, match=re.escape(message)):
        list(read_neighbours(file))


@pytest.mark.parametrize("to", ["degla-json", "csv"])
def test_nothing_to_export_leaves_nothing(case: Case, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    case.rows = [row.model_copy(update={"accepted": False, "reason": "synonym"}) for row in case.rows]
    assert case.export(to=to, name=NAMES[to]) == 2
    message = capsys.readouterr().err
    assert "nothing to export: " in message and "11 negatives not accepted by the checks" in message
    assert {path.name for path in case.folder.iterdir()} == {"c.jsonl", "n.jsonl"}


@pytest.mark.parametrize("to", ["degla-json", "csv"])
def test_true_texts_are_not_exported_as_false_ones(case: Case, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    case.rows[3] = case.rows[3].model_copy(update={"kind": "positive"})
    assert case.export(to=to, name=NAMES[to]) == 2
    assert "a true text" in capsys.readouterr().err and not (case.folder / NAMES[to]).exists()


@pytest.mark.parametrize("to", ["degla-json", "csv"])
def test_a_negative_equal_to_its_caption_is_not_exported(
    case: Case, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither NegCLIP's nor DeGLA's loader compares them."""
    text = case.captions[0].text
    case.rows[0] = case.rows[0].model_copy(update={"text": f"{text.upper()}!"})
    assert case.export(to=to, name=NAMES[to]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"]["negatives equal to their caption"] == 1
    assert f"{text.upper()}!" not in (case.folder / NAMES[to]).read_text()


def test_a_flag_of_the_other_form_is_refused(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.export("--images", "images", to="degla-json") == 2
    assert "--images requires --to csv; this is --to degla-json." in capsys.readouterr().err
    assert {path.name for path in case.folder.iterdir()} == {"c.jsonl", "n.jsonl"}
