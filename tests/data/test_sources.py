"""Every format gives the same records, and every invalid file a message that says where, what and what to do."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from degla.cli import main
from degla.data.columns import Columns
from degla.data.formats import datasets as dataset_folders
from degla.data.pack import Packing
from degla.data.pack import pack as write_shards
from degla.data.pairs import PairRow
from degla.data.sources import FORMATS, read_captions, read_negatives
from degla.errors import InputError
from degla.records import CaptionRecord, NegativeRecord, PairItem, validate, write_jsonl
from tests.official import SHARED
from tests.tiny import write_pairs

RECORDS = [
    CaptionRecord(id="11", image="000000000009.jpg", text='A dog, on a "sofa".', image_id="9"),
    CaptionRecord(id="12", image="000000000009.jpg", text="Ein Hund auf einem Sofa – müde", image_id="9"),
    CaptionRecord(id="13", image="000000000025.jpg", text="A giraffe eats leaves.", image_id="25"),
]
COCO = {
    "info": {"year": 2014},
    "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 25, "file_name": "000000000025.jpg"}],
    "annotations": [
        {"id": 11, "image_id": 9, "caption": ' A dog, on a "sofa".\n'},
        {"id": 12, "image_id": 9, "caption": "Ein Hund auf einem Sofa – müde"},
        {"id": 13, "image_id": 25, "caption": "A giraffe eats leaves."},
    ],
}
DEGLA = [
    {"image_id": 9, "original": "A dog on a sofa. ", "enhanced": ["A sofa on a dog.", "A cat on a sofa."]},
    {"image_id": 25, "original": "A giraffe eats.", "enhanced": ["A zebra eats.", "  "]},
    {"image_id": 9, "original": "A tired dog.", "enhanced": ["A lively dog."]},
]


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_table(path: Path, rows: list[dict[str, object]], delimiter: str) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_rows() -> list[dict[str, object]]:
    return [{**record.model_dump(), "width": 640} for record in RECORDS]


def make(name: str, folder: Path) -> Path:
    if name == "coco":
        return write_json(folder / "captions.json", COCO)
    if name == "json":
        return write_json(folder / "captions.json", as_rows())
    if name == "jsonl":
        write_jsonl(folder / "captions.jsonl", RECORDS)
        return folder / "captions.jsonl"
    if name == "csv":
        return write_table(folder / "captions.csv", as_rows(), ",")
    if name == "tsv":
        return write_table(folder / "captions.tsv", as_rows(), "\t")
    if name == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(as_rows()), folder / "captions.parquet")
        return folder / "captions.parquet"
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(as_rows()).save_to_disk(str(folder / "captions"))
    return folder / "captions"


@pytest.mark.parametrize("chosen", ["auto", "named"])
@pytest.mark.parametrize("name", ["coco", "json", "jsonl", "csv", "tsv", "parquet", "datasets"])
def test_every_format_gives_the_same_records(
    name: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("parquet", "datasets"):
        monkeypatch.setattr(f"degla.data.formats.{name}._ROWS", 1)  # Several batches.
    path = make(name, tmp_path)
    assert list(read_captions(path, format="auto" if chosen == "auto" else name)) == RECORDS


def test_the_shelf_is_what_is_tested() -> None:
    assert FORMATS.names() == [
        "coco", "cs_clip", "csv", "datasets", "degla", "json", "jsonl", "karpathy", "parquet", "tsv", "webdataset",
    ]  # fmt: skip
    for name in FORMATS.names():
        assert FORMATS.summary(name).endswith("."), name


@pytest.mark.parametrize("name", ["jsonl", "csv", "tsv", "parquet", "datasets"])
def test_named_columns_and_numbered_captions(name: str, tmp_path: Path) -> None:
    rows = [{"filepath": "a.jpg", "title": " A dog. "}, {"filepath": "b.jpg", "title": "A cat."}]
    path = tmp_path / f"captions.{name}"
    if name == "jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif name == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif name == "datasets":
        pytest.importorskip("datasets").Dataset.from_list(rows).save_to_disk(str(path))
    else:
        write_table(path, rows, "," if name == "csv" else "\t")
        path.write_bytes(path.read_bytes().replace(b"\n", b"\n\n"))  # Blank lines are ignored.
    columns = Columns(image="filepath", text="title")
    assert list(read_captions(path, columns=columns)) == [
        CaptionRecord(id="0", image="a.jpg", text="A dog.", image_id="a.jpg"),
        CaptionRecord(id="1", image="b.jpg", text="A cat.", image_id="b.jpg"),
    ]


@pytest.mark.parametrize("name", ["jsonl", "csv", "tsv", "parquet", "datasets"])
def test_a_list_of_captions_becomes_one_record_each(name: str, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": 7, "image": "a.jpg", "text": ["A dog.", "A pet."]}]
    path = tmp_path / f"captions.{name}"
    if name == "jsonl":
        path.write_text(json.dumps(rows[0]), encoding="utf-8")
    elif name in ("csv", "tsv"):
        write_table(path, rows, "," if name == "csv" else "\t")
    elif name == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        pytest.importorskip("datasets").Dataset.from_list(rows).save_to_disk(str(path))
    records = [(record.id, record.text, record.image_id) for record in read_captions(path)]
    assert records == [("7-0", "A dog.", "a.jpg"), ("7-1", "A pet.", "a.jpg")]


def test_lists_in_the_cells_of_a_table(tmp_path: Path) -> None:
    cells = [
        (json.dumps(["A dog \U0001f600", "A pet."]), "['A hound.']"),
        ("[A dog] by [1]", ""),
        ('["Stop"] says a sign [1]', "[]"),
    ]
    rows: list[dict[str, object]] = [{"image": "a.jpg", "text": text, "positives": more} for text, more in cells]
    path = write_table(tmp_path / "captions.csv", rows, ",")
    records = read_captions(path, columns=Columns(optional=("positives",)))
    assert [(record.text, record.positives) for record in records] == [
        ("A dog \U0001f600", ("A hound.",)), ("A pet.", ("A hound.",)), ("[A dog] by [1]", ()),
        ('["Stop"] says a sign [1]', ()),
    ]  # fmt: skip
    path = write_table(tmp_path / "others.csv", [{"image": "a.jpg", "text": "A dog.", "label": "['dog']"}], ",")
    (record,) = read_captions(path, columns=Columns(optional=("label",)))
    assert record.label == "['dog']", "no field of several values"


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("statistics", [True, False])
def test_parquet_with_paths_of_images_instead_of_their_bytes(statistics: bool, group: int, tmp_path: Path) -> None:
    """As `datasets` writes a column of images that are files."""
    options: dict[str, Any] = {"row_group_size": group, "write_statistics": statistics}
    paths = [{"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]
    for images in (paths, [{"path": "a.jpg"}, {"path": "b.jpg"}]):
        table = pyarrow.table({"image": images, "text": ["A dog.", "A cat."]})
        if "bytes" in images[0]:
            kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
            table = table.set_column(0, "image", pyarrow.array(images, kind))
        pyarrow.parquet.write_table(table, tmp_path / "captions.parquet", **options)
        assert [record.image for record in read_captions(tmp_path / "captions.parquet")] == ["a.jpg", "b.jpg"]
    table = table.set_column(0, "image", pyarrow.array([paths[0], {"bytes": b"x", "path": "b.jpg"}], kind))
    pyarrow.parquet.write_table(table, tmp_path / "captions.parquet", **options)
    assert [record.image for record in read_captions(tmp_path / "captions.parquet")] == [
        "captions.parquet#image/0", "captions.parquet#image/1",
    ]  # fmt: skip


def test_parquet_files_have_the_columns_of_the_first(tmp_path: Path) -> None:
    """A file without ids would number its rows beside the ids of others."""
    rows = [{"image": "a.jpg", "text": "A dog."}, {"image": "b.jpg", "text": "A cat.", "id": "7"}]
    for first, message in ((0, "1.parquet: has a field 'id', but the first record has none"), (1, "has no field 'id'")):
        for number, each in enumerate((rows[first], rows[1 - first])):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([each]), tmp_path / f"{number}.parquet")
        with pytest.raises(InputError, match=message):
            list(read_captions(tmp_path))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:1] * 2), tmp_path / "1.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:1] * 3), tmp_path / "0.parquet")
    assert [record.id for record in read_captions(tmp_path)] == ["0", "1", "2", "3", "4"]


def test_a_line_with_only_a_byte_order_mark_is_blank(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c.jsonl", RECORDS)
    (tmp_path / "c.jsonl").write_bytes(b"\xef\xbb\xbf\r\n" + (tmp_path / "c.jsonl").read_bytes())
    assert list(read_captions(tmp_path / "c.jsonl")) == RECORDS


def test_published_file_holds_captions_and_negatives(tmp_path: Path) -> None:
    path = write_json(tmp_path / "degla.json", DEGLA)
    captions = list(read_captions(path))
    assert [(record.id, record.text) for record in captions] == [
        ("9-0", "A dog on a sofa."),
        ("25-0", "A giraffe eats."),
        ("9-1", "A tired dog."),
    ]
    assert captions[0].image == "COCO_train2014_000000000009.jpg"
    assert captions[0].image_id == captions[2].image_id == "9"
    negatives = list(read_negatives(path))
    assert [(record.caption_id, record.text, record.accepted) for record in negatives] == [
        ("9-0", "A sofa on a dog.", True),
        ("9-0", "A cat on a sofa.", True),
        ("25-0", "A zebra eats.", True),
        ("25-0", None, False),
        ("9-1", "A lively dog.", True),
    ]
    assert {record.rule for record in negatives} == {"published"}
    renamed = read_captions(path, columns=Columns(image_pattern="train2017/{image_id:06d}.png"))
    assert next(renamed).image == "train2017/000009.png"
    with pytest.raises(InputError, match=r"image-pattern '\{image\}' cannot be filled in"):
        list(read_captions(path, columns=Columns(image_pattern="{image}")))


def test_negatives_as_jsonl_and_parquet(tmp_path: Path) -> None:
    records = [
        NegativeRecord(caption_id="1", rule="swap_nouns", kind="order", text="A b.", source="rules", accepted=True),
        NegativeRecord(
            caption_id="2", rule="swap_nouns", kind="order", text=None, source="rules", accepted=False, reason="few"
        ),
    ]
    write_jsonl(tmp_path / "negatives.jsonl", records)
    table = pyarrow.Table.from_pylist([record.model_dump() for record in records])
    pyarrow.parquet.write_table(table, tmp_path / "negatives.parquet")
    assert list(read_negatives(tmp_path / "negatives.jsonl")) == records
    assert list(read_negatives(tmp_path / "negatives.parquet")) == records
    pyarrow.parquet.write_table(table.drop_columns(["rule"]), tmp_path / "wrong.parquet")
    with pytest.raises(InputError, match=r"wrong\.parquet row 0: field 'rule': Field required"):
        list(read_negatives(tmp_path / "wrong.parquet"))


def karpathy(*images: dict[str, object]) -> str:
    return json.dumps({"images": [{"filename": "b.jpg", "split": "test", **image} for image in images], "dataset": "x"})


def test_karpathys_json_is_read_by_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dataset_coco.json"
    path.write_text(
        karpathy(
            {
                "filepath": "val2014",
                "cocoid": 7,
                "imgid": 0,
                "split": "restval",
                "sentences": [{"raw": " A dog. ", "sentid": 40, "tokens": []}, {"raw": "A cat.", "sentid": 41}],
            },
            {"imgid": 0, "sentences": [{"raw": "A cow.", "sentid": 0}]},
            {"filename": "c.jpg", "split": "train", "sentences": [{"raw": "A sow."}, {"raw": "A pig."}]},
        )
    )
    every = list(read_captions(path, columns=Columns(split=("all",))))
    assert [(row.id, row.image, row.image_id, row.text) for row in every] == [
        ("40", "val2014/b.jpg", "7", "A dog."), ("41", "val2014/b.jpg", "7", "A cat."),
        ("0", "b.jpg", "b.jpg", "A cow."), ("2-0", "c.jpg", "c.jpg", "A sow."),
        ("2-1", "c.jpg", "c.jpg", "A pig."),
    ]  # fmt: skip
    some = read_captions(path, columns=Columns(split=("train", "restval")))
    assert list(some) == [row for row in every if row.id != "0"], "without the test images"
    command = ["prepare", "split", str(path), "--out", str(tmp_path / "halves"), "--split", "restval", "test"]
    assert main(command) == 2 and "has captions of fewer than five images" in capsys.readouterr().err
    sizes = r"Its splits \(images\): restval \(1\), test \(1\), train \(1\)"
    alone = r"has no split 'all'.* --split all alone .*reads all"
    for split, message in (((), "name the splits to read"), (("dev",), "has no split 'dev'"), (("all", "test"), alone)):
        with pytest.raises(InputError, match=rf"dataset_coco\.json: (?=.*{sizes}){message}"):
            list(read_captions(path, columns=Columns(split=split)))


def test_karpathys_images_have_one_kind_of_number_in_a_file(tmp_path: Path) -> None:
    """`imgid` counts images from 0, and COCO's ids may be as small."""
    path, sentences = tmp_path / "k.json", [{"raw": "A dog."}]
    for numbers, names in (
        (({"cocoid": 1, "imgid": 0}, {"imgid": 1}), ["1", "1.jpg"]),
        (({"imgid": 0}, {"imgid": 1}), ["0", "1"]),
        (({"imgid": 0}, {"cocoid": 0}), ["0.jpg", "0"]),
    ):
        images = [{**each, "filename": f"{n}.jpg", "sentences": sentences} for n, each in enumerate(numbers)]
        path.write_text(karpathy(*images))
        assert [row.image_id for row in read_captions(path, columns=Columns(split=("test",)))] == names


def test_a_damaged_image_of_a_split_that_is_not_read_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    path.write_text(karpathy({"sentences": [{"raw": "A dog."}]}, {"split": "val", "sentences": None, "cocoid": "x"}))
    assert [row.text for row in read_captions(path, columns=Columns(split=("test",)))] == ["A dog."]
    for split in (("val",), ("all",)):
        with pytest.raises(InputError, match=r"k\.json images\[1\]: field "):
            list(read_captions(path, columns=Columns(split=split)))


def test_karpathys_json_is_known_by_a_first_image_of_many_sentences(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    sentences = [{"tokens": ["a", "dog"], "raw": f"A dog of {n}."} for n in range(3_000)]
    path.write_text(json.dumps({"images": [{"sentences": sentences, "split": "test", "filename": "b.jpg"}]}))
    assert len(list(read_captions(path, columns=Columns(split=("test",))))) == 3_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (karpathy({"sentences": [{}]}), r"images\[0\]: field 'sentences\.0\.raw': Field required"),
        (karpathy({"sentences": [{"raw": " "}]}), r"images\[0\]: field 'raw' \(caption id '0-0'\) has no text"),
        (karpathy({"sentences": [{"raw": "x", "sentid": "1"}]}), r"field 'sentences\.0\.sentid'"),
        ('{"images": {"filename": 0, "sentences": 0}}', "the list 'images' is missing"),
        ('{"images": [["filename", "sentences"]]}', r"images\[0\]: must be one JSON object, got a list.* Needed: "),
        (karpathy({"split": "test"}, {"split": 1, "sentences": []}), r"images\[0\]: field 'sentences': Field required"),
        (karpathy({"sentences": []}, {"split": None, "sentences": []}), r"images\[1\]: field 'split'"),
        ('{"images": [{"filename": "b.jpg", "sentences": []}]}', r"images\[0\]: field 'split': Field required"),
        (
            karpathy(*({"split": f"a\n{n}", "sentences": []} for n in range(999))),
            r"images\): a 0 \(1\), a 1 \(1\), [^\n]{99,300}\.\.\.\. --",
        ),
    ],
)
def test_damaged_files_of_karpathy_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(InputError, match=message):
        list(read_captions(tmp_path / "c.json", columns=Columns(split=("test",))))


@pytest.mark.parametrize("name", ["c.jsonl", "c.json"])
def test_splits_of_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    coco = '{"images": [{"id": 1, "file_name": "sentences"}], "annotations": []}'
    (tmp_path / name).write_text(coco if name == "c.json" else lines(row()))
    with pytest.raises(InputError, match=r"--split .* applies only to Karpathy's json"):
        list(read_captions(tmp_path / name, columns=Columns(split=("all",))))


def test_captions_given_as_negatives_are_reported(tmp_path: Path) -> None:
    rows = [{"id": "1", "image": "1.jpg", "text": "a cat", "image_id": "1"}]
    (tmp_path / "captions.jsonl").write_text(json.dumps(rows[0]))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "captions.parquet")
    for name, place in (("captions.jsonl", "line 1"), ("captions.parquet", "row 0")):
        with pytest.raises(
            InputError, match=rf"{name} {place}: a caption, not a negative; this seems to be a captions"
        ):
            list(read_negatives(tmp_path / name))
    (tmp_path / "both.jsonl").write_text(json.dumps({"caption_id": "1", "image": "1.jpg"}))
    with pytest.raises(InputError, match="line 1: field 'image': Extra inputs are not permitted"):
        list(read_negatives(tmp_path / "both.jsonl"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"path": "x.jpg", "crp": [0, 0, 1, 1]}, r"field 'images\.0\.crp': .* Did you mean 'crop'\?"),
        ({}, r"field 'images\.0\.path': Field required .* Fields: path; optional: crop\."),
    ],
)
def test_fields_of_a_record_inside_a_record_are_reported(image: dict[str, object], message: str) -> None:
    item = {"id": "a/b/c", "benchmark": "a", "part": "b", "images": [image], "texts": ["t"], "gold": [[1]]}
    with pytest.raises(InputError, match=message):
        validate(PairItem, item, where="f line 1")


def row(**changes: object) -> dict[str, object]:
    return {"id": "1", "image": "a.jpg", "text": "A dog.", "image_id": "1", **changes}


def lines(*rows: object) -> str:
    return "\n".join(json.dumps(entry) for entry in rows)


WRONG = {
    "wrong type": ("c.jsonl", lines(row(), row(id="2", text=5)), "c.jsonl line 2: field 'text': Input should be a"),
    "wrong id": ("c.jsonl", lines(row(), row(id=1.5)), "c.jsonl line 2: field 'id': Input should be a valid string"),
    "null id": ("c.jsonl", lines(row(id=None)), "c.jsonl line 1: field 'id' is empty, but an id is needed"),
    "blank text": ("c.jsonl", lines(row(text=" \n")), "c.jsonl line 1: field 'text' (caption id '1') has no text"),
    "missing": (
        "c.jsonl",
        lines({"id": "1", "image": "a.jpg", "texts": "A dog."}),
        "no field 'text' for the text. Did you mean 'texts'? Found: id, image, texts. Set the field with --text-column",
    ),
    "white space": ("c.csv", "image, caption\na.jpg, A dog.\n", "Found: image, ' caption'. Set the field with --text"),
    "missing later": (
        "c.jsonl",
        lines(row(), {"image": "a", "text": "b"}),
        "c.jsonl line 2: has no field 'id' for the id. Found: image, text. Set the field with --id-column (training: "
        "--data.id-column), or add it to every record.",
    ),
    "id later": (
        "c.jsonl",
        lines({"image": "a", "text": "b"}, row(id="0")),
        "c.jsonl line 2: has a field 'id', but the first record has none. Add it to all or none.",
    ),
    "text later": ("c.json", json.dumps([{"image": "a", "caption": "b"}, {"image": "a", "caption": "b", "text": "c"}]),
                   "c.json record 1: has a field 'text', but the first record has none"),
    "twice": (
        "c.jsonl",
        lines(row(), row(id="2"), row(text="A cat.")),
        "c.jsonl line 3: caption id '1' was already used at {folder}/c.jsonl line 1",
    ),
    "empty": ("c.jsonl", "\n", "c.jsonl: the file has no captions"),
    "not json": ("c.jsonl", lines(row()) + "\n{'id'", "c.jsonl line 2: not JSON"),
    "cut off": (
        "c.jsonl",
        lines(row()) + '\n{"id": "2',
        "c.jsonl line 2: not JSON: Unterminated string starting at column 8. Correct the line",
    ),
    "no end": (
        "c.jsonl",
        '{"id": "2"\n',
        "c.jsonl line 1: not JSON: Expecting ',' delimiter at column 11. Correct the line",
    ),
    "two pictures": (
        "c.jsonl",
        lines(row(image=["a.jpg", "b.jpg"])),
        "c.jsonl line 1: field 'image' is a list, but a record has one image. Write one record per image",
    ),
    "a list": (
        "c.jsonl",
        "[1]",
        'c.jsonl line 1: expected an object, found a list of 1 entry. Write each record as {"image": "1.jpg", "text": '
        '"A dog on a sofa."}. If the file is one list of records, name it .json.',
    ),
    "json empty": ("c.json", "", "c.json: the file is empty"),
    "json broken": ("c.json", '{"images": [}', "c.json line 1: not JSON: Expecting value at column 13"),
    "jsonl as json": ("c.json", lines(row(), row(id="2")), "c.json line 2: not JSON: Extra data"),
    "coco lacks annotations": (
        "c.json",
        json.dumps({"images": [], "sentences": []}),
        "the list 'annotations' is missing: found an object with the keys 'images', 'sentences'. Needed: {",
    ),
    "coco of instances": (
        "c.json",
        json.dumps({"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 1, "image_id": 1, "bbox": []}]}),
        "annotations[0]: no field 'caption': found an object with the keys 'id', 'image_id', 'bbox'. Needed: {",
    ),
    "coco unknown image": (
        "c.json",
        json.dumps({"images": [], "annotations": [{"id": 1, "image_id": 4, "caption": "A dog."}]}),
        "c.json annotations[0]: field 'image_id': no entry of 'images' has the id 4",
    ),
    "coco wrong id": (
        "c.json",
        json.dumps({"images": [{"id": "x", "file_name": "a"}], "annotations": []}),
        "c.json images[0]: field 'id' must be a whole number, found the text 'x'",
    ),
    "coco wrong caption": (
        "c.json",
        json.dumps({"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 1, "image_id": 1, "caption": 3}]}),
        "c.json annotations[0]: field 'text': Input should be a valid string (got 3)",
    ),
    "coco empty": ("c.json", json.dumps({"images": [], "annotations": []}), "c.json: the file has no captions"),
    "degla without captions": (
        "c.json",
        json.dumps([{"image_id": 1, "original": "A"}]),
        "c.json record 0: found an object with the keys 'image_id', 'original'",
    ),
    "json of numbers": ("c.json", "[1]", "c.json record 0: expected an object, found the number 1"),
    "json without text": ("c.json", json.dumps([{"image": "a.jpg"}]), "c.json record 0: has no field 'text'"),
    "degla wrong type": (
        "c.json",
        json.dumps([{"image_id": 1, "original": "A", "enhanced": ["b", 7]}]),
        "c.json record 0: field 'enhanced.1': Input should be a valid string (got 7)",
    ),
    "csv cells": ("c.csv", "image,text\na.jpg,A dog, a cat\n", "c.csv line 2: has 3 cells, but the header has 2"),
    "csv header": ("c.csv", "picture,text\na,b\n", "c.csv line 1 (comma-separated header): has no field 'image'"),
    "texts alone": ("c.csv", "id,caption\n1,a\n", "For texts without images: degla negatives --image-column caption."),
    "csv without header": ("c.csv", "\nimage,text\na.jpg,b\n", "c.csv line 1: is blank, but must be the header"),
    "csv blank": ("c.csv", "image,text\na.jpg,\n", "c.csv line 2: field 'text' (caption id '0') has no text"),
    "csv quotes": ("c.csv", 'image,text\na.jpg,"A dog\n', "not comma-separated values"),
    "tsv quotes": ("c.tsv", 'image\ttext\na.jpg\t"A dog" said\n', "and double the quotes inside it."),
    "semicolons": ("c.csv", "image;text\na.jpg;A dog\n", "line 1: the header has only one cell, 'image;text'. Cells"),
    "semicolons and commas": ("c.csv", "image;text\na.jpg;A dog, a cat\n", "line 1: the header has only one cell"),
    "numpy": ("c.csv", "image,text\na.jpg,\"['A'\n 'B']\"\n", "line 3: column 'text' holds texts without commas"),
    "parquet": ("c.parquet", "no", "c.parquet: not a valid Parquet file"),
    "parquet again": ("c.parquet", "no", ". Download or generate it again."),
    "unknown": ("c.txt", "A dog.", "cannot detect the format of its captions. Set the format (--format"),
    "image": ("x.PNG", "pixels", "x.PNG: cannot detect the format of its captions. Set the format (--format"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_say_where_and_what(case: str, tmp_path: Path) -> None:
    name, content, message = WRONG[case]
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        list(read_captions(tmp_path / name))
    assert message.replace("{folder}", str(tmp_path)) in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_negatives_files_are_recognised_by_their_ending(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("A dog.")
    with pytest.raises(
        InputError, match=r"n\.txt: cannot detect the format of its negatives\. Rename it to end in \.jsonl,"
    ):
        read_negatives(tmp_path / "n.txt")


def test_an_object_is_no_file_of_negatives_and_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO's files have gigabytes of memory as Python objects."""
    monkeypatch.setattr("degla.data.sources.read_json", lambda *_, **__: pytest.fail("the whole file was parsed"))
    with pytest.raises(InputError, match=r"n\.json: cannot detect the format of its negatives\."):
        read_negatives(write_json(tmp_path / "n.json", COCO))


def test_cs_clips_file_holds_captions_with_units_and_negatives(tmp_path: Path) -> None:
    swap = {"change_type": "swap", "swap_subject": "a pony", "swap_object": "a boy"}
    rows: list[dict[str, object]] = [
        {
            "sample_id": "9",
            "original_caption": "a man riding a horse",
            "image_path": "COCO/1.jpg",
            "entities": ["a horse", "a man", "grass"],
            "negative_entities": {
                "a horse": [{"negative": "a cow", "change_type": "object_change"}, {"negative": "A horse"}],
                "a man": ["a woman", ""],
            },
            "relations": [
                {
                    "subject": "a man",
                    "relation_type": "action_riding",
                    "object": "a horse",
                    "negatives": [
                        {"relation_type": "spatial_standing_next_to", "change_type": "antonym"},
                        {"change_type": "subject_object_swap"},
                        swap,
                    ],
                },
                {"subject": "a man", "relation_type": "on", "object": None, "negatives": [{"object": "a cow"}]},
            ],
            "swap_negatives": [{"negative": " a horse riding a man "}],
        },
        {"sample_id": "9", "original_caption": "a woman, a manor, a man", "image_path": "COCO/1.jpg", "relations": None,
         "entities": ["man", " "], "negative_entities": {"man": ["boy"], " ": ["x"]}},
    ]  # fmt: skip
    path = tmp_path / "cs.json"
    path.write_text(json.dumps(rows))
    first, second = read_captions(path, columns=Columns(optional=("units",)))
    assert (first.id, first.image, first.text) == ("0", "COCO/1.jpg", "a man riding a horse")
    assert [(unit.text, unit.foils) for unit in second.units] == [("man", ("boy",))]
    assert first.image_id == second.image_id and second.id == "1"
    assert [(unit.text, unit.kind, unit.foils) for unit in first.units] == [
        ("a man riding a horse", "relation",
         ("a man standing next to a horse", "a horse riding a man", "a pony riding a boy")),
        ("a horse", "thing", ("a cow",)),
        ("a man", "thing", ("a woman",)),
    ]  # fmt: skip
    assert next(read_captions(path)).units == ()
    with pytest.raises(InputError, match="its format has fixed fields, so 'file' cannot be the image"):
        list(read_captions(path, columns=Columns(image="file")))
    assert [(row.caption_id, row.text, row.draw) for row in read_negatives(path)] == [
        ("0", "a horse riding a man", 0), ("0", "a man riding a cow", 1), ("0", "a woman riding a horse", 2),
        ("1", "a woman, a manor, a boy", 0),
    ]  # fmt: skip
    path.write_text(json.dumps([*rows, {"image_path": "2.jpg"}]))
    with pytest.raises(InputError, match=r"cs\.json record 2: found .* Needed: .*original_caption"):
        list(read_captions(path))
    path.write_text(json.dumps([{**rows[0], "entities": [{"a": 1}]}]))
    with pytest.raises(InputError, match=r"cs\.json record 0: field 'entities\.0'"):
        list(read_negatives(path))


def test_an_original_caption_alone_is_not_cs_clips(tmp_path: Path) -> None:
    """Captions that were written anew often stand beside the original."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps([{"image": "a.jpg", "image_path": "b", "caption": "new", "original_caption": "old"}]))
    assert [(row.image, row.text) for row in read_captions(path)] == [("a.jpg", "new")]


def test_structure_clips_file_holds_captions_and_negatives(tmp_path: Path) -> None:
    rows = [
        {
            "image_path": "a.jpg",
            "true_caption": "a dog on a cat",
            "false_caption": "a cat on a dog",
            "true_triples": [],
        },
        {"image_path": "b.jpg", "true_caption": "a red car", "false_caption": ["a blue car", " "]},
    ]
    path = write_json(tmp_path / "train.json", rows)
    captions = list(read_captions(path))
    assert [(each.id, each.image, each.text) for each in captions] == [
        ("0", "a.jpg", "a dog on a cat"), ("1", "b.jpg", "a red car")]  # fmt: skip
    assert [(each.caption_id, each.text, each.draw, each.accepted) for each in read_negatives(path)] == [
        ("0", "a cat on a dog", 0, True), ("1", "a blue car", 0, True), ("1", None, 1, False)]  # fmt: skip
    named = next(read_captions(path, columns=Columns(text="false_caption")))
    assert (named.image, named.text) == ("a.jpg", "a cat on a dog"), "the user's own choice of a field counts"
    path = write_json(tmp_path / "ids.json", [{**rows[0], "id": 7}, {**rows[0], "id": "x", "text": "other"}])
    assert [each.caption_id for each in read_negatives(path)] == [each.id for each in read_captions(path)] == ["7", "x"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": "a.jpg", "text": "a dog"}], "record 0: a text or a list of texts 'false_caption' is needed"),
        ([{"false_caption": ["a dog", 3]}], "record 0: a text or a list of texts 'false_caption' is needed"),
        (["a dog"], "found the text 'a dog'. Negatives of degla are JSON lines, in a file that ends in .jsonl."),
        ([{"false_caption": "a dog", "id": 1.5}], "record 0: field 'id' must be a text or a whole number, found the"),
        ([], "the file has no negatives"),
    ],
)
def test_other_lists_are_no_negatives(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        list(read_negatives(write_json(tmp_path / "n.json", rows)))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["coco.npy", "cc_neg.pt", "captions.PKL"])
@pytest.mark.parametrize("read", [read_captions, read_negatives])
def test_pickles_are_refused_with_the_way_to_convert_them(read: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        InputError, match=rf"{name}: can hold a pickle.*Convert it, where.*\"false_caption\": "
    ) as caught:
        read(tmp_path / name)
    (tmp_path / "converted.json").write_text(str(caught.value).partition("negatives: ")[2].replace(", ...]", "]"))
    assert [each.text for each in read_negatives(tmp_path / "converted.json")] == ["A cat."]
    assert [each.text for each in read_captions(tmp_path / "converted.json")] == ["A dog."]


def test_compressed_files_are_reported(tmp_path: Path) -> None:
    for pack in (gzip, bz2, lzma):
        (tmp_path / "c.jsonl").write_bytes(pack.compress(lines(row()).encode()))
        with pytest.raises(InputError, match=r"c\.jsonl: is compressed \((gzip|bzip2|xz)\)\. Unpack it first"):
            read_captions(tmp_path / "c.jsonl")


@pytest.mark.parametrize("name", ["c.xlsx", "c.csv", "c.xls"])
def test_a_workbook_is_to_be_saved_as_csv(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as book:
        book.writestr("xl/workbook.xml", "<workbook/>")
    if name == "c.xls":
        (tmp_path / name).write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504))
    with pytest.raises(InputError, match=rf"{name}: is .*[Ss]ave its table as CSV in UTF-8\.$"):
        read_captions(tmp_path / name)


def test_wrong_shape_for_the_named_format(tmp_path: Path) -> None:
    path = write_json(tmp_path / "c.json", [])
    with pytest.raises(InputError, match=r"found an empty list, but COCO captions are an object\. Needed: \{"):
        list(read_captions(path, format="coco"))
    path = write_json(tmp_path / "d.json", {"image_id": 1})
    with pytest.raises(InputError, match=r"an object with the keys 'image_id', but a list is needed\. Needed: \["):
        list(read_captions(path, format="degla"))
    with pytest.raises(InputError, match=r"unknown file format 'cocoo'\. Did you mean 'coco'\?"):
        read_captions(path, format="cocoo")
    with pytest.raises(InputError, match="no such file or folder"):
        read_captions(tmp_path / "nothing.json")
    with pytest.raises(InputError, match="is a folder, but format 'csv' is read from a file"):
        read_captions(tmp_path, format="csv")
    (tmp_path / "latin.jsonl").write_bytes('{"text": "müde"}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.jsonl line 1: not UTF-8 text"):
        list(read_captions(tmp_path / "latin.jsonl"))
    (tmp_path / "negatives.jsonl").write_text("\n")
    with pytest.raises(InputError, match="the file has no negatives"):
        list(read_negatives(tmp_path / "negatives.jsonl"))


def test_fields_named_for_a_format_that_has_its_own_are_refused(tmp_path: Path) -> None:
    published = write_json(tmp_path / "d.json", [{"image_id": 9, "original": "A dog.", "enhanced": []}])
    for path in (make("coco", tmp_path), published):
        with pytest.raises(
            InputError, match=r"fixed fields, so 'cocoid' cannot be the image_id\. Omit --image-id-column"
        ):
            list(read_captions(path, columns=Columns(image_id="cocoid")))


def test_dataset_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list([row()])
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(
        InputError, match=r"several splits \(train, test\)\. Give the folder of one, for example .*splits/train"
    ):
        list(read_captions(tmp_path / "splits"))
    assert len(list(read_captions(tmp_path / "splits" / "train"))) == 1
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "state.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match="damaged: not a folder written by datasets' save_to_disk"):
        list(read_captions(tmp_path / "damaged"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    dataset_folders._opened.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'degla\[datasets\]'"):
        list(read_captions(tmp_path / "splits" / "train"))
    with pytest.raises(InputError, match=r"other: has no uncompressed \.tar.* not a folder written by datasets'"):
        list(read_captions(tmp_path / "other"))


def test_threads_open_a_dataset_folder_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a bar of the library may find its lock deleted by another thread's, and the image counts as damaged."""
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([row()]).save_to_disk(str(tmp_path / "saved"))
    both, met, load = threading.Barrier(2), list[int](), datasets.load_from_disk

    def watched(folder: str) -> Any:
        with suppress(threading.BrokenBarrierError):
            met.append(both.wait(0.05))
        return load(folder)

    monkeypatch.setattr(datasets, "load_from_disk", watched)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: len(list(read_captions(tmp_path / "saved"))), range(2)))
    assert found == [1, 1] and met == []


def test_archives_of_pack_name_the_captions_file(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", images=2)
    rows = [PairRow(caption=record, negatives=(), rules=()) for record in read_captions(pairs["captions"])]
    write_shards(rows, folder=pairs["images"], out=tmp_path / "packed", packing=Packing())
    with pytest.raises(InputError, match=r"written by degla pack.* Give that: \S*packed/captions\.jsonl\."):
        list(read_captions(tmp_path / "packed"))


def test_a_json_file_that_is_none_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_text("<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"coco\.json line 1: not JSON"):
        read_captions(tmp_path / "coco.json")
    (tmp_path / "n.jsonl").write_text("[]\n")
    with pytest.raises(InputError, match=r"n\.jsonl line 1: must be one JSON object, got an empty list"):
        list(read_negatives(tmp_path / "n.jsonl"))


def test_a_dataset_folder_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for text, hours in (("A dog.", 2), ("A cat.", 1)):
        folder = tmp_path / "saved"
        shutil.rmtree(folder, ignore_errors=True)
        datasets.Dataset.from_list([row(text=text)]).save_to_disk(str(folder))
        then = time.time() - 3600 * hours
        os.utime(folder / "state.json", (then, then))
        assert [record.text for _ in range(2) for record in read_captions(folder)] == [text, text]


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    path = make("coco", tmp_path)
    code = (
        "import sys; from pathlib import Path; from degla.data.sources import read_captions;"
        "import degla.data.pairs, degla.data.plan, degla.data.images, degla.data.images;"
        f"list(read_captions(Path({str(path)!r}))); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_coco_file(data_root: Path) -> None:
    records = list(read_captions(data_root / "coco" / "annotations" / "captions_val2017.json"))
    official = data_root == SHARED
    assert len(records) == (425 if official else 31)
    assert len({record.image_id for record in records}) == (85 if official else 6)
    assert all((data_root / "coco" / "val2017" / record.image).is_file() for record in records)
    assert all(record.text == record.text.strip() for record in records)


@pytest.mark.parametrize("name", ["n.csv", "n.tsv"])
def test_negatives_in_the_form_of_negclip(name: str, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"title": "A dog.", "filepath": "a.jpg", "neg_caption": ["A cat.", "It's a pig."], "neg_image": [1]},
        {"title": "A cow.", "filepath": "b.jpg", "neg_caption": ["  "], "neg_image": [0]},
    ]
    path = write_table(tmp_path / name, rows, "," if name == "n.csv" else "\t")
    assert [(row.caption_id, row.text, row.accepted, row.rule, row.draw) for row in read_negatives(path)] == [
        ("0", "A cat.", True, "published", 0),
        ("0", "It's a pig.", True, "published", 1),
        ("1", None, False, "published", 0),
    ]
    assert [row.id for row in read_captions(path, columns=Columns(image="filepath", text="title"))] == ["0", "1"]
    path = write_table(path, [{"id": f"c{row['title']}", **row} for row in rows], "," if name == "n.csv" else "\t")
    captions = read_captions(path, columns=Columns(image="filepath", text="title"))
    assert {row.caption_id for row in read_negatives(path)} == {row.id for row in captions} == {"cA dog.", "cA cow."}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title,neg_captoin\nA,[]\n", "has no column 'neg_caption'. Did you mean 'neg_captoin'?"),
        ("neg_caption\nA cat.\n", "line 2: column 'neg_caption' must be a Python list of texts, found 'A cat.'"),
        ("neg_caption\n[3]\n", "must be a Python list of texts"),
        ("neg_caption\n__import__('os').getcwd()\n", "must be a Python list of texts"),
        ("neg_caption,neg_rule\n['a'],\"['b', 'c']\"\n", "1 text in 'neg_caption' but 2 names in 'neg_rule'"),
    ],
)
def test_wrong_tables_of_negclip(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text(content)
    with pytest.raises(InputError) as caught:
        list(read_negatives(tmp_path / "n.csv"))
    assert message in str(caught.value)


def test_an_id_that_comes_twice_far_apart_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degla.data.sources._RECENT", 8)
    captions = [CaptionRecord(id=f"c{number}", image="a.jpg", text="A dog.", image_id="a") for number in range(50)]
    write_jsonl(tmp_path / "c.jsonl", captions)
    assert list(read_captions(tmp_path / "c.jsonl")) == captions
    for first, second in ((0, 49), (31, 33), (5, 6)):
        twice = [*captions[:second], captions[first], *captions[second + 1 :]]
        write_jsonl(tmp_path / "c.jsonl", twice)
        with pytest.raises(
            InputError, match=rf"line {second + 1}: caption id 'c{first}' was already used at .*line {first + 1}\."
        ):
            list(read_captions(tmp_path / "c.jsonl"))
    # Different ids with equal hashes are not duplicates.
    monkeypatch.setattr("degla.data.sources.hash", lambda name: 1, raising=False)
    write_jsonl(tmp_path / "c.jsonl", captions)
    assert list(read_captions(tmp_path / "c.jsonl")) == captions


def test_negatives_may_name_their_caption_by_a_whole_number(tmp_path: Path) -> None:
    row = {"caption_id": 7, "rule": "r", "kind": "k", "text": "A b.", "source": "s", "accepted": True}
    (tmp_path / "negatives.jsonl").write_text(json.dumps(row) + "\n")
    assert [one.caption_id for one in read_negatives(tmp_path / "negatives.jsonl")] == ["7"]
