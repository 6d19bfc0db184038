"""Annotation files of published benchmarks: JSON enters, rows with their keys leave, wrong files are named.

Karpathy's test split of COCO and Flickr30k is read in either published form: images with their captions leave.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

from pydantic import Field

from degla import parse
from degla.errors import InputError
from degla.evaluation.benchmark import Benchmark
from degla.records import Record, RecordType, validate

_AGAIN: Final = "Fetch the file again."


class Published(Protocol):
    """What a message says of files that lack: where to get them, and how they must lie."""

    @property
    def source(self) -> str:
        """Where a user gets the files."""

    @property
    def layout(self) -> str:
        """How they must lie, one path a line."""


def read_object(file: Path, published: Published) -> dict[str, Any]:
    """The members of a file that is one JSON object, in the file's order.

    Raises:
        InputError: the file is missing (the message says where to get it and how it must lie), is not JSON, is not an
            object or holds a key twice.
    """
    content = _read(file, published)
    if not isinstance(content, dict):
        raise InputError(f"{file}: must be one JSON object, got a {type(content).__name__}. {_AGAIN}")
    return content


def read_list(file: Path, published: Published) -> list[Any]:
    """The elements of a file that is one JSON list; raises like `read_object`."""
    content = _read(file, published)
    if not isinstance(content, list):
        raise InputError(f"{file}: must be one JSON list, got a {type(content).__name__}. {_AGAIN}")
    return content


def read_lines(file: Path, published: Published) -> Iterator[tuple[int, Any]]:
    """Line numbers, from 1, and contents of a file with one JSON value a line; raises like `read_object`."""
    for number, line in enumerate(read_annotation(file, published).split("\n"), start=1):
        if line.strip():
            yield number, parse.parse_json(line, where=f"{file} line {number}", remedy=_AGAIN, lines=False)


def published_row(kind: type[RecordType], row: object, *, where: str) -> RecordType:
    """One row of a published file, checked as by `records.validate`; raises like it."""
    return validate(kind, row, where=where, remedy=_AGAIN)


def _read(file: Path, published: Published) -> Any:
    return parse.parse_json(read_annotation(file, published), where=str(file), remedy=_AGAIN)


def read_annotation(file: Path, published: Published) -> str:
    """The whole of a text file.

    Raises:
        InputError: the file is missing (the message says where to get it and how it must lie) or not UTF-8.
    """
    layout = f"Get it from {published.source}; the files must lie so:\n{published.layout}"
    return parse.decode(parse.read_bytes(file, remedy=layout), where=str(file), remedy=_AGAIN)


Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class KarpathySplit:
    """Where a data set's split lies and what its published test split holds.

    Attributes:
        blip: name in `karpathy/` of the list of test images that BLIP made and ARO uses.
        original: name in `karpathy/` of Karpathy's own file, which holds all splits.
        prefix: put before the image paths of the first form, which are relative to the data set's folder.
        folder: where the images of the second form lie.
        images: number of test images.
        captions: number of test captions.
    """

    blip: str
    original: str
    prefix: str
    folder: str
    images: int
    captions: int


COCO = KarpathySplit("coco_karpathy_test.json", "dataset_coco.json", "coco/", "coco/val2014/", 5000, 25010)
FLICKR30K = KarpathySplit("flickr30k_test.json", "dataset_flickr30k.json", "", "flickr30k-images/", 1000, 5000)


class _BlipRow(Record, extra="ignore"):
    image: Text
    caption: Annotated[tuple[Text, ...], Field(min_length=1)]


class _Sentence(Record, extra="ignore"):
    raw: Text


class _OriginalRow(Record, extra="ignore"):
    filename: Text
    split: Text
    sentences: Annotated[tuple[_Sentence, ...], Field(min_length=1)]


def read_blip(root: Path, split: KarpathySplit, benchmark: Benchmark) -> list[tuple[str, tuple[str, ...]]]:
    """Path and captions of each test image from the list form, in its order.

    Raises:
        InputError: the file is missing or wrong.
    """
    file = root / "karpathy" / split.blip
    rows = (
        published_row(_BlipRow, row, where=f"{file} item {index}")
        for index, row in enumerate(read_list(file, benchmark))
    )
    return [(split.prefix + row.image, row.caption) for row in rows]


def read_either(root: Path, split: KarpathySplit, benchmark: Benchmark) -> list[tuple[str, tuple[str, ...]]]:
    """Path and captions of each test image from the form that is there, the list form where both are.

    Raises:
        InputError: neither file is there, or it is wrong.
    """
    if (root / "karpathy" / split.blip).exists():
        return read_blip(root, split, benchmark)
    file = root / "karpathy" / split.original
    images = read_object(file, benchmark).get("images")
    if not isinstance(images, list):
        raise InputError(f"{file}: field 'images': must be a list. Fetch the file again.")
    rows = (published_row(_OriginalRow, row, where=f"{file} image {index}") for index, row in enumerate(images))
    return [
        (split.folder + row.filename, tuple(sentence.raw for sentence in row.sentences))
        for row in rows
        if row.split == "test"
    ]


def has_split(root: Path, split: KarpathySplit, *, original: bool = True) -> bool:
    """Whether a file of the split is under the root; `original` allows Karpathy's own."""
    names = (split.blip, split.original) if original else (split.blip,)
    return any((root / "karpathy" / name).exists() for name in names)
