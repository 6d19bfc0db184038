"""Verdicts of someone else: SugarCrepe's published means from their rows, and a wrong activation found item by item."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.aggregate import aggregate
from degla.evaluation.golden import GivenVerdict, compare_verdicts, read_verdicts
from degla.evaluation.verdicts import Judged
from degla.records import ItemImage, PairItem
from degla.results import ItemVerdict
from degla.shelf import BENCHMARKS
from tests.official import OFFICIAL, SHARED, write_own
from tests.tiny import write_model

Capture = pytest.CaptureFixture[str]
HEADER = ["filename", "caption", "negative_caption", "type", "subtype", "correct"]


@pytest.mark.skipif(not OFFICIAL, reason="the official verdicts are not in ../shared/data")
def test_the_seven_means_of_sugarcrepe() -> None:
    """OpenAI's ViT-B/32 with QuickGELU, the paper's 7,512 items: one more of swap_obj than the files have now."""
    file = SHARED / "sugarcrepe_per_item" / "SUGARCREPE_CORRECT_ViT-B-32.csv"
    verdicts = list(read_verdicts(file))
    assert len(verdicts) == 7512
    judged = [
        Judged(
            ItemVerdict(id=str(number), benchmark="sugarcrepe", part=row.key[1], image=row.file_name, ok=dict(row.ok),
                        ties={"text_ok": 0}, margin=None), {},
        )
        for number, row in enumerate(verdicts)
    ]  # fmt: skip
    benchmark = BENCHMARKS.load("sugarcrepe").BENCHMARK
    scores = aggregate(benchmark, judged, draws=1)
    means = [f"{100 * scores.parts[part.name][0].value:.2f}" for part in benchmark.parts]
    assert means == ["90.92", "80.08", "69.20", "61.38", "63.96", "77.21", "68.79"]
    entries = list(benchmark.items(SHARED))
    items = [
        ItemVerdict(id=entry.id, benchmark="sugarcrepe", part=entry.part, image="x", ok={"text_ok": 1.0},
                    ties={"text_ok": 0}, margin=0.1) for entry in entries
    ]  # fmt: skip
    comparison = compare_verdicts(items, entries, verdicts, file=file)
    # Every item of the files has its row; one row is about the item that the authors took out.
    assert (comparison.items, len(comparison.unknown), comparison.unmatched) == (7511, 1, [])
    assert len(comparison.differing) == sum(
        not row.ok["text_ok"] for row in verdicts if row.key[1] != "swap_obj"
    ) + sum(row.id.startswith("sugarcrepe/swap_obj/") for row in comparison.differing)


@pytest.mark.skipif(not OFFICIAL, reason="the official verdicts are not in ../shared/data")
def test_the_rows_of_bivlc(tmp_path: Path) -> None:
    """The table as its authors publish it, with the names of pictures that Python gave them."""
    rows = json.loads((SHARED / "bivlc" / "bivlc_test_rows.json").read_text())
    names = list(rows[0]["clip_b32"])
    table = tmp_path / "BiVLC_ViT-B-32.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerow(["image", "caption", "negative_caption", "negative_image", "type", "subtype", *names])
        for row in rows:
            texts = [row[name] for name in ("caption", "negative_caption")]
            writer.writerow(["<PIL>", *texts, "<PIL>", row["type"], row["subtype"], *row["clip_b32"].values()])
    verdicts = list(read_verdicts(table))
    assert len(verdicts) == 2933
    for verdict, mean in (("text_ok", 75.83), ("image_ok", 52.40), ("group_ok", 49.06)):
        assert round(100 * sum(row.ok[verdict] for row in verdicts) / len(verdicts), 2) == mean


def write_table(path: Path, rows: list[list[object]], header: list[str] = HEADER) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def item(number: int, texts: tuple[str, ...] = ("a cat", "a dog"), image: str = "1.jpg") -> PairItem:
    place = {"id": f"b/add_obj/{number}", "benchmark": "b", "part": "add_obj"}
    return PairItem(**place, images=(ItemImage(path=f"coco/{image}"),), texts=texts, gold=((1, 0),))  # type: ignore[arg-type]


def verdict(entry: PairItem, worth: float, margin: float = 0.0002) -> ItemVerdict:
    return ItemVerdict(id=entry.id, benchmark="b", part=entry.part, image="x", ok={"text_ok": worth},
                       ties={"text_ok": 0}, margin=margin)  # fmt: skip


def test_what_differs_lacks_and_is_not_known_is_named(tmp_path: Path) -> None:
    """Two items have the same texts: the file's name tells them apart."""
    entries = [item(0), item(1, image="2.jpg"), item(2, ("A cow. ", "a hen")), item(3, ("a", "b"))]
    items = [verdict(entry, worth) for entry, worth in zip(entries, (1, 0, 1, 1), strict=True)]
    file = write_table(
        tmp_path / "v.csv",
        [["2.jpg", "a cat", "a dog", "add", "obj", 1], ["1.jpg", "a cat", "a dog", "add", "obj", 1],
         ["1.jpg", "a cow", "A hen!", "add", "obj", "0"], ["9.jpg", "a cat", "a dog", "add", "obj", 1]],
    )  # fmt: skip
    comparison = compare_verdicts(items, entries, read_verdicts(file), file=file)
    assert [(row.id, row.here, row.there) for row in comparison.differing] == [
        ("b/add_obj/1", 0, 1),
        ("b/add_obj/2", 1, 0),
    ]
    assert (comparison.items, comparison.unmatched) == (3, ["b/add_obj/3"])
    text = "\n".join(comparison.lines())
    assert "b/add_obj/1 text_ok: 0 here, 1 there, margin +0.00020" in text
    assert "v.csv line 5 (1 | add_obj | a cat | a dog)" in text and "not in the file: b/add_obj/3" in text
    assert "3 items compared, 1 agree, 2 differ" in text and "within rounding" in text
    other = [GivenVerdict("v.jsonl line 1", (entries[0].id,), "", {"image_ok": 1.0})]
    with pytest.raises(InputError, match="none of its 1 row"):
        compare_verdicts(items, entries, other, file=file)
    large = compare_verdicts([verdict(each, 0, 0.02) for each in entries], entries, read_verdicts(file), file=file)
    assert "largest margin among them is 0.0200" in "\n".join(large.lines())


def test_rows_about_what_was_not_scored_do_not_hide_the_rest(tmp_path: Path) -> None:
    """Of SugarCrepe's 7,512 rows nearly all, where few images are there."""
    rows: list[list[object]] = [["1.jpg", "a cat", "a dog", "add", "obj", 0]]
    rows += [[f"{number}.jpg", "a cow", "a hen", "add", "obj", 1] for number in range(1500)]
    file = write_table(tmp_path / "v.csv", rows)
    lines = list(compare_verdicts([verdict(item(0), 1)], [item(0)], read_verdicts(file), file=file).lines())
    assert len(lines) == 24 and lines[21] == "no such item here: 1,480 more"
    assert "1,500 rows match no item here" in lines[22]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([["1.jpg", "a", "b", "add", "obj", "yes"]], HEADER, r"v\.csv line 2: 'yes' is not a verdict"),
        ([["a", "b", "add", "obj"]], HEADER[1:-1], r"v\.csv line 2: has no verdict \(correct"),
        ([["1.jpg", "", "b", "add", "obj", 1]], HEADER, r"v\.csv line 2: has no caption"),
        ([["1.jpg", "a", "b", "add", "obj", 1]], HEADER, r"v\.csv: none of its 1 row matches an item"),
    ],
)
def test_wrong_tables_are_named(tmp_path: Path, rows: list[list[object]], header: list[str], message: str) -> None:
    file = write_table(tmp_path / "v.csv", rows, header)
    with pytest.raises(InputError, match=message):
        compare_verdicts([verdict(item(0), 1)], [item(0)], read_verdicts(file), file=file)


def test_rows_of_json_hold_texts_or_are_named(tmp_path: Path) -> None:
    row = {"filename": None, "caption": "true", "negative_caption": "false", "type": "add", "subtype": "obj"}
    pair = PairItem(
        id="x", benchmark="sugarcrepe", part="add_obj", images=(ItemImage(path="1.jpg"),), texts=("true", "false"),
        gold=((1, 0),),
    )  # fmt: skip
    file = tmp_path / "v.jsonl"
    file.write_text(json.dumps({**row, "correct": 1}))
    comparison = compare_verdicts([verdict(pair, 1)], [pair], read_verdicts(file), file=file)
    assert comparison.items == 1 and not comparison.differing
    file.write_text(json.dumps({**row, "correct": 1, "filename": 7}))
    with pytest.raises(InputError, match="none of its 1 row"):
        compare_verdicts([verdict(pair, 1)], [pair], read_verdicts(file), file=file)
    file.write_text(json.dumps({**row, "correct": 1, "caption": 5}))
    with pytest.raises(InputError, match=r"v\.jsonl line 1: has no caption"):
        list(read_verdicts(file))


def test_a_wrong_activation_is_found_by_one_command(tmp_path: Path, capsys: Capture) -> None:
    """The same weights with QuickGELU and with GELU; the first one's verdicts are the golden file."""
    root = write_own(tmp_path / "data")
    models = {quick: write_model(tmp_path / f"quick-{quick}", quick_gelu=quick, seed=1) for quick in (True, False)}
    for folder in models.values():
        file = folder / "open_clip_model.safetensors"
        # Fresh weights are so small that any activation is nearly linear there.
        weights = {name: 5 * row if "mlp" in name else row for name, row in load_file(file).items()}
        save_file(weights, file)

    def evaluate(quick: bool, *more: str, out: str = "") -> int:
        return main([
            "evaluate", str(models[quick]), "--benchmarks", "sugarcrepe", "--root", str(root), "--allow-missing",
            "--no-cache", "--out", str(tmp_path / f"{out or quick}.json"), *more,
        ])  # fmt: skip

    assert evaluate(True) == 0
    verdicts = {row["id"]: row for row in map(json.loads, (tmp_path / "True.items.jsonl").read_text().splitlines())}
    benchmark = BENCHMARKS.load("sugarcrepe").BENCHMARK
    golden = write_table(
        tmp_path / "golden.csv",
        [
            [entry.images[0].path.split("/")[-1], *entry.texts, *entry.part.split("_"),
             int(verdicts[entry.id]["ok"]["text_ok"])]
            for entry in benchmark.items(root) if entry.id in verdicts
        ],
    )  # fmt: skip
    capsys.readouterr()
    for file in (golden, tmp_path / "True.items.jsonl"):
        assert evaluate(True, "--compare-verdicts", str(file), out="again") == 0
        assert f"{len(verdicts)} items compared, {len(verdicts)} agree, 0 differ" in capsys.readouterr().out
    assert evaluate(True, "--compare-verdicts", str(tmp_path / "True.items.jsonl")) == 2
    assert "True.items.jsonl: this command reads it and would overwrite it" in capsys.readouterr().err
    assert evaluate(False, "--compare-verdicts", str(golden)) == 1
    output = capsys.readouterr().out
    other = map(json.loads, (tmp_path / "False.items.jsonl").read_text().splitlines())
    wrong = [row["id"] for row in other if row["ok"] != verdicts[row["id"]]["ok"]]
    assert wrong and all(f"{name} text_ok: " in output for name in wrong)
    assert f"{len(wrong)} differ" in output
    both = ["evaluate", str(models[False]), str(models[True]), "--benchmarks", "sugarcrepe", "--root", str(root)]
    both += ["--allow-missing", "--no-cache", "--out", str(tmp_path / "both.json"), "--compare-verdicts", str(golden)]
    assert main(both) == 1, "the last model agrees"
    capsys.readouterr()
    assert main(["evaluate", str(models[True]), "--benchmarks", "sugarcrepe", "--root", str(root), "--out",
                 str(tmp_path / "o.json"), "--compare-verdicts", str(tmp_path / "no.csv")]) == 2  # fmt: skip
    assert "no.csv: cannot be read" in capsys.readouterr().err
    (tmp_path / "empty.jsonl").touch()
    assert main(["evaluate", "no/model", "--benchmarks", "sugarcrepe", "--root", str(root), "--out",
                 str(tmp_path / "o.json"), "--compare-verdicts", str(tmp_path / "empty.jsonl")]) == 2  # fmt: skip
    assert "empty.jsonl: contains no verdicts" in capsys.readouterr().err
