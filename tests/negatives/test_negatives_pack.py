"""Packed negatives equal the originals: every field, order and batches; the run's manifest is included."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from degla.cli import main
from degla.data.dataset import ImageTransform, PairDataset, RandomCrop
from degla.data.joining import join
from degla.data.loader import EpochSampler, make_loader
from degla.data.plan import BatchPlan
from degla.data.sources import read_captions, read_negatives
from degla.errors import InputError
from degla.negatives.files.pack import (
    MANIFEST_KEY,
    OUTCOMES_KEY,
    PACKED_KEY,
    _schema,
    pack,
    read_manifest,
    read_outcomes,
)
from degla.parse import NewerFormError
from degla.records import CaptionRecord, NegativeRecord, write_jsonl

MANIFEST = {"captions": 6, "rules": ["swap_nouns", "add_object"], "seed": 3, "model": {"name": "openai:x"}, "date": "d"}
TEXTS = ("A dog on a sofa.", "Ein müder Hund", 'A "cat", here', "A\ttab", "An owl 🦉", "A pig")


def rows() -> list[NegativeRecord]:
    records = []
    for number in range(6):
        for draw in range(4):
            accepted = (number + draw) % 3 != 0
            records.append(
                NegativeRecord(
                    caption_id=f"c{number}",
                    rule=("swap_nouns", "add_object")[draw % 2],
                    kind="object",
                    text=f"{TEXTS[number]} not {draw}" if draw != 3 or accepted else None,
                    source=("rules", "openai:x")[draw % 2],
                    accepted=accepted,
                    reason="" if accepted else "synonym",
                    draw=draw,
                    form=("grammar", "write")[draw % 2],
                    score=None if draw % 2 == 0 else -1.0 / 3 - number * 1e-17,
                )
            )
    return records


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "n.jsonl", rows())
    captions = [
        CaptionRecord(id=f"c{number}", image=f"{number}.png", text=text, image_id=f"i{number}")
        for number, text in enumerate(TEXTS)
    ]
    write_jsonl(tmp_path / "captions.jsonl", captions)
    (tmp_path / "n.jsonl.manifest.json").write_text(json.dumps(MANIFEST))
    reply = {"caption_id": "c0", "rule": "add_object", "draw": 1, "form": "write", "outcome": "answered", "attempts": 2}
    (tmp_path / "n.jsonl.replies.jsonl").write_text(json.dumps(reply) + "\n")
    return tmp_path / "n.jsonl"


def test_every_row_comes_back_and_the_run_with_it(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = source.with_name("n.parquet")
    assert main(["negatives", "pack", str(source), "--out", str(out), "--all", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows"] == 24 and summary["left_out"] == {} and summary["size"] == out.stat().st_size
    assert list(read_negatives(out)) == rows()
    assert read_manifest(out) == MANIFEST
    outcomes = read_outcomes(out)
    assert outcomes is not None and outcomes.attempts == 2 and outcomes.by_outcome() == {"answered": 1}
    # Packed again from the packed file, nothing is lost.
    again = source.with_name("again.parquet")
    assert main(["negatives", "pack", str(out), "--out", str(again), "--all"]) == 0
    assert list(read_negatives(again)) == rows() and read_manifest(again) == MANIFEST
    assert read_outcomes(again) == outcomes


def test_accepted_rows_only_by_default(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = source.with_name("n.parquet")
    assert main(["negatives", "pack", str(source), "--out", str(out)]) == 0
    assert "; omitted: 6 refused rows, 2 rows without text (--all keeps them)." in capsys.readouterr().err
    assert list(read_negatives(out)) == [row for row in rows() if row.accepted]


def test_a_newer_packed_file_is_refused_and_one_without_a_number_is_read(source: Path) -> None:
    out = source.with_name("n.parquet")
    pack(read_negatives(source), out, source=source)
    table, accepted = pyarrow.parquet.read_table(out), list(read_negatives(out))
    about = json.loads(table.schema.metadata[PACKED_KEY])
    assert about.pop("schema_version") == 1 and accepted
    for content in (about, about | {"schema_version": 2, "degla": "7.0"}):
        metadata = {**table.schema.metadata, PACKED_KEY: json.dumps(content).encode()}
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), out)
        if content is about:
            assert list(read_negatives(out)) == accepted
    message = r"n\.parquet: 'degla\.packed' in .*: field 'schema_version' is 2, .* \(degla 7\.0\): update degla\.$"
    with pytest.raises(NewerFormError, match=message):
        list(read_negatives(out))


def test_columns_and_layout(source: Path) -> None:
    assert set(_schema().names) == set(NegativeRecord.model_fields)
    out = source.with_name("n.parquet")
    pack(read_negatives(source), out, source=source)
    file = pyarrow.parquet.ParquetFile(out)
    assert {MANIFEST_KEY, PACKED_KEY} <= set(file.schema_arrow.metadata)
    assert {str(file.schema_arrow.field(name).type) for name in ("rule", "kind", "source", "form", "reason")} == {
        "dictionary<values=string, indices=int32, ordered=0>"
    }
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_rows_are_cut_into_groups(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degla.negatives.files.pack._GROUP", 10)
    out = source.with_name("n.parquet")
    pack(read_negatives(source), out, source=source, refused=True)
    metadata = pyarrow.parquet.ParquetFile(out).metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [10, 10, 4]
    assert list(read_negatives(out)) == rows()


def test_training_sees_the_same_batches(source: Path) -> None:
    folder = source.parent
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    out = source.with_name("n.parquet")
    pack(read_negatives(source), out, source=source)

    def tokenize(texts: list[str]) -> torch.Tensor:
        tokens = torch.zeros(len(texts), 12, dtype=torch.long)
        for row, text in enumerate(texts):
            numbers = [998, *(sum(map(ord, word)) % 997 + 1 for word in text.split()[:10]), 999]
            tokens[row, : len(numbers)] = torch.tensor(numbers)
        return tokens

    def batches(path: Path) -> list:
        pairs = join(read_captions(folder / "captions.jsonl"), read_negatives(path))
        model = ImageTransform(size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        dataset = PairDataset(
            pairs,
            folder=folder,
            transform=RandomCrop(model, scale=(0.5, 1.0)),
            tokenize=tokenize,
            negatives_per_caption=2,
            seed=0,
        )
        return [
            batch
            for epoch in (0, 1)
            for batch in make_loader(dataset, EpochSampler(BatchPlan(dataset.groups, batch_size=3), epoch))
        ]

    first, second = batches(source), batches(out)
    assert len(first) == len(second) == 4
    assert any(batch.valid.any() for batch in first)
    for one, other in zip(first, second, strict=True):
        assert one.ids == other.ids
        for name, value in one.tensors().items():
            assert torch.equal(value, other.tensors()[name]), name


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("n.arrow", "must end in .parquet"),
        ("n.jsonl/x.parquet", "cannot be written"),
    ],
)
def test_wrong_out(source: Path, out: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["negatives", "pack", str(source), "--out", str(source.parent / out)]) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_pack_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "n.jsonl", tmp_path / "n.parquet"
    write_jsonl(source, [row for row in rows() if not row.accepted])
    out.write_text("old")
    assert main(["negatives", "pack", str(source), "--out", str(out)]) == 2
    assert "nothing to pack, only 6 refused rows, 2 rows without text (--all packs them)" in capsys.readouterr().err
    assert out.read_text() == "old" and {path.name for path in tmp_path.iterdir()} == {"n.jsonl", "n.parquet"}
    (tmp_path / "n.jsonl.manifest.json").write_text("[")
    assert main(["negatives", "pack", str(source), "--out", str(out), "--all"]) == 2
    assert "n.jsonl.manifest.json line 1: not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [{"rules": 5}, {"rules": [["a"]]}])
def test_a_manifest_that_names_no_rules_is_refused(source: Path, damage: dict[str, object]) -> None:
    beside = source.with_name(source.name + ".manifest.json")
    beside.write_text(json.dumps({**MANIFEST, **damage}))
    with pytest.raises(InputError, match=r"manifest\.json: field 'rules' of the manifest .*Delete this manifest"):
        read_manifest(source)


def test_counts_of_a_packed_file_that_are_none_are_refused(tmp_path: Path) -> None:
    table = pyarrow.table({"rule": ["a"]}).replace_schema_metadata({OUTCOMES_KEY: b'{"outcomes": [["a"]]}'})
    pyarrow.parquet.write_table(table, tmp_path / "packed.parquet")
    with pytest.raises(
        InputError, match=r"packed\.parquet: 'degla\.outcomes' in the schema's metadata has no valid counts"
    ):
        read_outcomes(tmp_path / "packed.parquet")
