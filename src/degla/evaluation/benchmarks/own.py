"""Your own true and false captions: a table, or captions with the negatives that `degla negatives` made from them.

Use when: your images or captions are unlike those of published benchmarks: this score is then closest to your use. Hold
the images out of training.

Title:    Own captions
Paper:    none: your own
Licence:  your own
Source:   captions of your own, by degla negatives or by hand
Layout:   own/NAME.jsonl        {"image": "a.jpg", "caption": "true text", "negative": "false text"}
                                or a list as negatives; optional: captions (further true texts), part (NAME), id
          own/NAME.csv          the same fields as columns: image, caption, negative, part, id
          own/captions.*        held-out captions, in any format that degla negatives reads, and
          own/negatives.jsonl   the negatives it made from them: one part per rule
          own/images/*          the folder that image paths are relative to; without it, the root (images may also be
                                inside captions.parquet or captions.tar)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from degla import parse
from degla.data.formats.csv import read_rows
from degla.data.pairs import ForeignCheck, one_image_per_id
from degla.errors import InputError
from degla.evaluation.annotations import image_namer
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Entries, Metric, described, image_question
from degla.parse import PARQUET_ENDINGS
from degla.records import CaptionRecord, PairItem, Record, only_negatives, validate

log = logging.getLogger(__name__)

_FOLDER = "own"
_CAPTIONS, _NEGATIVES = "captions", "negatives"
"""Stems of the two files that are read together."""
_TABLES = (".jsonl", ".csv")
_UNREAD = (".json", ".ndjson", ".tsv", ".tab", *PARQUET_ENDINGS)
"""Other endings of tables."""


class _Row(Record):
    """One or more captions with one or more captions that are false of the image."""

    image: str = Field(min_length=1)
    caption: str = Field(min_length=1)
    negative: str = ""
    negatives: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    part: str = ""
    id: str = ""

    @field_validator("id", mode="before")
    @classmethod
    def _number_is_a_name(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _has_false(self) -> _Row:
        if not self.false or not all(text.strip() for text in self.false):
            raise ValueError("give one false caption in 'negative' or several in 'negatives', none of them empty")
        if not all(text.strip() for text in self.captions):
            raise ValueError("a text of 'captions' is empty")
        if not set(self.true).isdisjoint(self.false):
            raise ValueError("a false caption is identical to the caption")
        return self

    @property
    def true(self) -> tuple[str, ...]:
        return (self.caption, *self.captions)

    @property
    def false(self) -> tuple[str, ...]:
        return (*((self.negative,) if self.negative else ()), *self.negatives)


def items(root: Path) -> Entries:
    """Read every table under `own`, one item per true and false text; then captions and their accepted negatives."""
    folder = root / _FOLDER
    tables = sorted(
        file
        for suffix in _TABLES
        for file in folder.glob(f"*{suffix}")
        # A language model's replies lie beside the negatives, as negatives.jsonl.replies.jsonl.
        if file.name.partition(".")[0] not in (_CAPTIONS, _NEGATIVES)
    )
    unread = (file for file in sorted(folder.glob("*")) if file.suffix in _UNREAD and "." not in file.stem)
    if (other := next((file for file in unread if file.stem not in (_CAPTIONS, _NEGATIVES)), None)) is not None:
        raise InputError(f"{other}: tables are read from .jsonl and .csv only. Convert it to one, or move it away.")
    negatives = _first(folder, _NEGATIVES)
    if not tables and negatives is None:
        raise InputError(f"{folder}: no table and no negatives found. Expected layout:\n{BENCHMARK.layout}")
    for file in tables:
        yield from _table(file, image_namer(file, root=root, folder=_FOLDER))
    if negatives is not None:
        yield from _negatives(root, negatives)


def _first(folder: Path, stem: str) -> Path | None:
    # The page of degla negatives report may lie beside them.
    return next((file for file in sorted(folder.glob(f"{stem}.*")) if file.suffix != ".html"), None)


def _table(file: Path, image_name: Callable[[str], str]) -> Iterator[PairItem]:
    # An empty cell counts as missing.
    tables = (
        (where, {name: cell for name, cell in row.items() if cell}) for where, row in read_rows(file, delimiter=",")
    )
    rows: Iterable[tuple[str, object]] = parse.read_json_lines(file) if file.suffix == ".jsonl" else tables
    number = -1
    for number, (where, fields) in enumerate(rows):
        row = validate(_Row, fields, where=where)
        part, key = row.part or file.stem, row.id or f"{file.stem}-{number}"
        pairs = list(product(row.true, row.false))
        for count, (true, false) in enumerate(pairs):
            name = key if len(pairs) == 1 else f"{key}-{count}"
            yield image_question(("own", part, name), image_name(row.image), [true], [false])
    if number < 0:
        raise InputError(f"{file}: has no rows. Expected layout:\n{BENCHMARK.layout}")


def _negatives(root: Path, file: Path) -> Iterator[PairItem]:
    from degla.data.sources import read_captions, read_negatives

    beside = _first(root / _FOLDER, _CAPTIONS)
    if beside is None:
        raise InputError(f"{file}: its captions are missing. Put the file it was made from at {_FOLDER}/captions.*.")
    image_name = image_namer(beside, root=root, folder=_FOLDER)
    captions: dict[str, CaptionRecord] = {record.id: record for record in one_image_per_id(read_captions(beside))}
    counts: dict[tuple[str, str], int] = {}
    foreign = ForeignCheck()
    for record in only_negatives(read_negatives(file), remedy=f"Put a file of negatives at {file}."):
        if not record.accepted or record.text is None:
            continue
        caption = captions.get(record.caption_id)
        if caption is None:
            raise InputError(f"{file}: caption id {record.caption_id!r} is not in {beside.name}.")
        number = counts[record.rule, record.caption_id] = counts.get((record.rule, record.caption_id), -1) + 1
        place = ("own", record.rule, f"{record.caption_id}-{number}")
        foreign.add(record.text, record.rule, caption_id=record.caption_id, caption=caption.text)
        yield image_question(place, image_name(caption.image), [caption.text], [record.text])
    if foreign.example:
        log.warning(f"%s: {ForeignCheck.WARNING}", file, foreign.example)


BENCHMARK = Benchmark(
    **described("own"),
    parts=(BenchmarkPart(name="*", family="own", metrics=(Metric(chance=0.5),)),),
    items=items,
    annotations=("own/*.jsonl", "own/*.csv", "own/captions.*", "own/negatives.*"),
    averages=(Average(name="macro", of=("*",)), Average(name="micro", of=("*",), how="micro")),
    headline={"composition": "macro"},
)
