"""Captions are joined with their accepted negatives, and dropped ones are counted."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from degla.cli import main
from degla.data.joining import TABLE_NAME, join, join_and_report
from degla.data.pairs import PairRow, hold_out, normalized_words
from degla.data.table import PairTable
from degla.errors import InputError
from degla.evaluation.benchmarks.own import items as read_own
from degla.evaluation.results import load_result
from degla.records import CaptionRecord, NegativeRecord, PairItem, read_jsonl, write_jsonl


def caption(id: str, text: str = "A dog on a sofa.", image: str = "a.jpg") -> CaptionRecord:
    return CaptionRecord(id=id, image=image, text=text, image_id=image)


def negative(caption_id: str, text: str | None, *, rule: str = "swap_nouns", accepted: bool = True) -> NegativeRecord:
    return NegativeRecord(
        caption_id=caption_id, rule=rule, kind="order", text=text, source="rules", accepted=accepted, reason=""
    )


def test_join_keeps_the_captions_order_and_counts_what_it_drops(tmp_path: Path) -> None:
    captions = [caption("1"), caption("2", "A cat."), caption("3", "A bird.", image="b.jpg")]
    negatives = [
        negative("3", "A fish.", rule="replace_nouns"),
        negative("1", "A sofa on a dog."),
        negative("1", "a  SOFA on a dog", rule="reshuffle_order"),
        negative("1", "A dog, on a sofa"),
        negative("1", "A cat on a sofa.", accepted=False),
        negative("1", None),
        negative("1", None, accepted=False),
        negative("1", "A cat on a sofa.", rule="replace_nouns"),
        negative("9", "A cow."),
    ]
    report = join_and_report(captions, negatives, folder=tmp_path)
    rows = PairTable(tmp_path / TABLE_NAME)
    assert list(tmp_path.iterdir()) == [tmp_path / TABLE_NAME]
    assert list(rows) == [
        PairRow(captions[0], ("A sofa on a dog.", "A cat on a sofa."), ("swap_nouns", "replace_nouns")),
        PairRow(captions[1], (), ()),
        PairRow(captions[2], ("A fish.",), ("replace_nouns",)),
    ]
    assert (report.rows, report.images, report.negatives) == (3, 2, 3)
    assert dict(report.per_row) == {0: 1, 1: 1, 2: 1}
    assert dict(report.dropped) == {
        "equal to their caption": 1,
        "not accepted by the checks": 1,
        "of captions that are not in the captions file": 1,
        "equal to an earlier negative": 1,
        "without text (nothing to change)": 2,
    }
    assert "3 pairs of 2 images with 3 negatives" in report.summary()
    assert rows.groups().tolist() == [0, 0, 1]
    assert rows.rules == ("replace_nouns", "swap_nouns")


def test_join_without_negatives() -> None:
    assert list(join([caption("1")], None)) == [PairRow(caption("1"), (), ())]


def test_nothing_matches_shows_ids_of_both_sides() -> None:
    with pytest.raises(
        InputError, match=r"in the captions file: '1', '2'; in the negatives file: '1-0', '2-0'"
    ) as caught:
        join([caption("1"), caption("2")], [negative("1-0", "A"), negative("1-0", "B"), negative("2-0", "C")])
    assert "same columns" in str(caught.value)


def test_empty_data_and_too_large_k(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the captions file is empty"):
        join([], [negative("1", "A")])
    with pytest.raises(InputError, match=r"the negatives file is empty\. Make negatives with `degla negatives`"):
        join([caption("1")], [])
    with pytest.raises(InputError, match=r"no negative can be used: 1 equal to their caption, 1 not accepted"):
        join([caption("1")], [negative("1", "A dog on a sofa"), negative("1", "B", accepted=False)])
    report = join_and_report([caption("1")], [negative("1", "A"), negative("1", "B")], folder=tmp_path)
    report.require(2, flag="--data.K")
    with pytest.raises(InputError, match=r"3 negatives .* no caption has more than 2 .* Set --data\.K to 2 or less"):
        report.require(3, flag="--data.K")


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("A dog.", "a dog", True),
        ("A red-haired man", "A red haired man!", True),
        ("A dog bites a man", "A man bites a dog", False),
        ("The dog's ball", "The dogs ball", False),
        ("ＡＢＣ", "abc", True),
        ("कि", "का", False),
        ("?", "!", False),
    ],
)
def test_normalized_words(one: str, other: str, equal: bool) -> None:
    assert (normalized_words(one) == normalized_words(other)) is equal


def test_negatives_of_another_version_of_the_captions_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Removing a caption shifts the numbers of all later ones."""
    texts = ["a red dog sleeps on the sofa", "two old men play chess", "a train leaves an empty station"]
    negatives = [negative(str(number), f"{text} no more") for number, text in enumerate(texts)]
    captions = [caption(str(number), text) for number, text in enumerate(texts)]
    moved = [caption(str(number), text) for number, text in enumerate(texts[1:])]
    join(captions, [*negatives, negative("0", "nobody knows what happened here")])
    join(moved, [record.model_copy(update={"rule": "partner"}) for record in negatives])
    join([caption("0", "three men"), caption("1", "ein Hund")], negatives)
    assert "WARNING" not in caplog.text
    join([captions[0], *moved[1:]], [*negatives, negative("1", "nobody knows what happened here")])
    assert "few words with their captions" in caplog.text, "the first caption is as it was"
    caplog.clear()
    join(moved, negatives)
    message = "few words with their captions, for example 'a red dog sleeps on the sofa no more' of caption '0'"
    assert message in caplog.text


def test_rows_of_parquet_with_one_picture_are_one_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [f"picture {n // 3}".encode() for n in range(30)]
    table = pyarrow.table({"image": pictures, "text": [f"dog {n}" for n in range(30)]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    words = ["prepare", "split", str(tmp_path / "c.parquet"), "--out"]
    assert main([*words, str(tmp_path / "halves")]) == 0
    assert "20 rows show the picture of an earlier row" in (message := capsys.readouterr().err)
    assert "6 captions of 2 images held out, 24 for training" in message
    for file in ("train", "held_out"):
        for row in read_jsonl(CaptionRecord, tmp_path / "halves" / f"{file}.jsonl"):
            assert row.image == row.image_id == f"c.parquet#image/{int(row.id) // 3 * 3}"
    # A row without its picture is skipped by training, if at all.
    pyarrow.parquet.write_table(
        table.set_column(0, "image", pyarrow.array([None, *pictures[1:]])), tmp_path / "c.parquet"
    )
    assert main([*words, str(tmp_path / "incomplete")]) == 0
    assert "19 rows show the picture of an earlier row" in capsys.readouterr().err
    named = table.append_column("image_id", pyarrow.array([f"{n % 10}" for n in range(30)]))
    pyarrow.parquet.write_table(named, tmp_path / "c.parquet")
    assert main([*words, str(tmp_path / "named")]) == 0
    assert "picture" not in capsys.readouterr().err, "image ids decide where there are any"


def test_held_out_captions_are_those_of_whole_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [CaptionRecord(id=str(n), image=f"{n}.jpg", image_id=f"{n // 2}", text=f"dog {n}") for n in range(40)]
    write_jsonl(tmp_path / "captions.jsonl", rows)
    sides = []
    for name, seed in (("first", "0"), ("same", "0"), ("other", "1")):
        out = tmp_path / name
        assert main(["prepare", "split", str(tmp_path / "captions.jsonl"), "--out", str(out), "--seed", seed]) == 0
        sides.append([list(read_jsonl(CaptionRecord, out / file)) for file in ("train.jsonl", "held_out.jsonl")])
    told = (
        "8 captions of 4 images held out, 32 for training; image paths are unchanged: pass the same --data.images to "
        f"degla train, or, if none was needed, --data.images {tmp_path}"
    )
    assert f"{told}: " in capsys.readouterr().err
    train, held_out = sides[0]
    assert sides[0] == sides[1] != sides[2] and sorted(map(str, train + held_out)) == sorted(map(str, rows))
    assert not {row.image_id for row in train} & {row.image_id for row in held_out}  # Rows of Parquet have own paths.
    same = [row.model_copy(update={"image": f"{n // 2}.jpg", "image_id": row.id}) for n, row in enumerate(rows)]
    train, held_out = hold_out(same, most=20, seed=0)
    assert len(held_out) == 8 and not {row.image for row in train} & {row.image for row in held_out}
    more = ["prepare", "split", str(tmp_path / "captions.jsonl"), "--out", str(tmp_path / "more"), "--held-out", "19"]
    assert main(more) == 0 and "38 captions of 19 images held out, 2 for training" in capsys.readouterr().err


def test_split_says_which_images_are_not_there(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "degla")
    Path("photos").mkdir()
    Path("other").mkdir()
    for n in range(1, 10):
        Image.new("RGB", (8, 8)).save(f"photos/{n}.png")
    rows = ({"id": str(n), "image": f"{n}.png", "text": f"a dog {n}"} for n in range(10))
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["prepare", "split", "c.jsonl", "--out", "data", "--images"]
    assert main([*command, "other"]) == 2 and not Path("data").exists()
    wrong = capsys.readouterr().err
    assert wrong.startswith("degla: 10 of 10 images cannot be used.\nother/0.png: the image of caption '0' is missing.")
    for n in range(4):
        Path(f"other/{n}.png").touch()
    assert main([*command, "other"]) == 2 and not Path("data").exists(), "more than half are missing"
    wrong = capsys.readouterr().err
    assert wrong.startswith("degla: 6 of 10 images cannot be used.\nother/4.png: ")
    assert wrong.endswith("\n... and 1 more.\nCheck --images, or remove their rows.\n")
    assert main([*command, "photos"]) == 0
    told = capsys.readouterr().err
    assert told.startswith("1 of 10 images cannot be used.\nphotos/0.png: the image of caption '0' ")
    assert "; 1 of 10 images cannot be used; image paths are unchanged: " in told.splitlines()[-1]
    assert "negatives" not in caplog.text, "the report of joining is of training"


@pytest.mark.parametrize("inside", [False, True], ids=["files", "parquet"])
def test_split_with_images_writes_the_folders_of_both_benchmarks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    """Only the negatives of `own` are left to make; then both are read without a copy of an image."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    pictures = [Image.new("RGB", (8, 8), (8 * n, 90, 90)) for n in range(10)]
    rows = [{"image": f"{n // 2}.png", "image_id": f"{n // 2}", "text": f"a dog on a sofa {n}"} for n in range(20)]
    if inside:
        contents = io.BytesIO(), *(io.BytesIO() for _ in pictures[1:])
        for picture, content in zip(pictures, contents, strict=True):
            picture.save(content, format="png")
        table = [row | {"image": contents[n // 2].getvalue()} for n, row in enumerate(rows)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), "photos/c.parquet")
    else:
        for n, picture in enumerate(pictures):
            picture.save(f"photos/{n}.png")
        Path("photos/c.jsonl").write_text(
            "".join(json.dumps(row | {"id": str(n)}) + "\n" for n, row in enumerate(rows))
        )
    captions = "photos/c.parquet" if inside else "photos/c.jsonl"
    assert main(["prepare", "split", captions, "--images", "photos", "--out", "data"]) == 0
    assert "image paths are unchanged: pass --data.images photos: data" in capsys.readouterr().err
    held_out = list(read_jsonl(CaptionRecord, Path("data/held_out.jsonl")))
    write_jsonl(
        Path("data/own/negatives.jsonl"),
        [
            NegativeRecord(caption_id=row.id, rule="swap_nouns", kind="order", source="rules", accepted=True,
                           text=row.text.replace("a dog on a sofa", "a sofa on a dog"))
            for row in held_out
        ],
    )  # fmt: skip
    words = ["--benchmarks", "own", "retrieval", "--root", "data", "--out", "floor.json"]
    assert main(["evaluate", "random", *words]) == 0, capsys.readouterr().err
    own, retrieval = load_result(Path("floor.json")).benchmarks
    assert own.parts[0].scored == 4 and retrieval.parts[0].scored == 2
    assert len({item.images[0].path for item in read_own(Path("data")) if isinstance(item, PairItem)}) == 2
