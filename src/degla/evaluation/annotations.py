"""Read annotation files of published benchmarks (CSV, JSON, JSONL, Parquet or Arrow) into validated rows.

Errors name what is missing or wrong and where to get it. Karpathy's test split of COCO and Flickr30k is read in either
published form, as images with their captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, TypeVar

from pydantic import Field

from degla import parse
from degla.data.formats.csv import read_rows
from degla.errors import InputError
from degla.evaluation import archives
from degla.evaluation.benchmark import Benchmark
from degla.records import Record, RecordType, validate

Kind = TypeVar("Kind", dict[str, Any], list[Any])
_AGAIN: Final = "Fetch the file again."
_PICKLED: Final = (".pt", ".pth", ".pkl", ".pickle")


class Published(Protocol):
    """What a message says about missing files: where to get them, and their layout."""

    @property
    def source(self) -> str:
        """Where a user gets the files."""

    @property
    def layout(self) -> str:
        """The expected layout, one path per line."""


def where_to_get(published: Published) -> str:
    """The end of a message about missing files."""
    return f"Get it from {published.source}. Expected layout:\n{published.layout}"


def read_object(file: Path, published: Published) -> dict[str, Any]:
    """Return the members of a file that is one JSON object, in the file's order.

    Raises:
        InputError: the file is missing (the message says where to get it and the expected layout), is not JSON, is not
            an object or contains a key twice.
    """
    return _read(file, published, dict, "object")


def read_list(file: Path, published: Published) -> list[Any]:
    """Return the elements of a file that is one JSON list; raises like `read_object`."""
    return _read(file, published, list, "list")


def _read(file: Path, published: Published, kind: type[Kind], name: str) -> Kind:
    content = parse.parse_json(read_annotation(file, published), where=str(file), remedy=_AGAIN)
    if not isinstance(content, kind):
        raise InputError(f"{file}: must be one JSON {name}, got a {type(content).__name__}. {_AGAIN}")
    return content


def published_row(kind: type[RecordType], row: object, *, where: str) -> RecordType:
    """Validate one row of a published file with `records.validate`; raises like it."""
    return validate(kind, row, where=where, remedy=_AGAIN)


def read_annotation(file: Path, published: Published) -> str:
    """Return the whole content of a text file.

    Raises:
        InputError: the file is missing (the message says where to get it and the expected layout) or not UTF-8.
    """
    return parse.decode(parse.read_bytes(file, remedy=where_to_get(published)), where=str(file), remedy=_AGAIN)


def read_records(kind: type[RecordType], file: Path, published: Published) -> Iterator[tuple[str, RecordType]]:
    """Yield every row of a table, validated, with its location: ("cc_neg.jsonl line 3", row).

    Args:
        kind: type of a row.
        file: its extension determines its format. In Parquet and Arrow, the cell of an image column is the image's name
            (`archives`).
        published: where to get the file.

    Raises:
        InputError: the file is missing, empty or of another format, or a row is wrong; names file, row and field.
    """
    empty = True
    for where, row in read_table(file, published):
        empty = False
        yield where, published_row(kind, row, where=where)
    if empty:
        raise InputError(f"{file}: has no rows. Get it again from {published.source}.")


def read_table(file: Path, published: Published) -> Iterator[tuple[str, Any]]:
    """Yield every row unvalidated, with its location; arguments and errors as for `read_records`."""
    form = file.suffix.lower()
    if form in _PICKLED:
        raise InputError(
            f"{file}: is a pickle, which can run arbitrary code when opened, so degla does not read it. Convert it to "
            f"JSON lines, one row per line:\n{published.layout}"
        )
    parse.check_regular(file, remedy=where_to_get(published))
    if form == ".csv":
        yield from read_rows(file, delimiter=",")
    elif form == ".jsonl":
        yield from parse.read_json_lines(file, remedy=_AGAIN)
    elif form == ".json":
        for number, row in enumerate(read_list(file, published)):
            yield f"{file} item {number}", row
    elif form in archives.SUFFIXES:
        yield from archives.read_rows(file)
    else:
        raise InputError(f"{file}: must end in .csv, .json, .jsonl, {' or '.join(archives.SUFFIXES)}.")


def find_files(root: Path, patterns: Sequence[str], published: Published) -> list[Path]:
    """Return the files that match the first pattern with any match, sorted by name.

    Raises:
        InputError: no pattern matches a file.
    """
    for pattern in patterns:
        files = sorted(root.glob(pattern))
        if files:
            return files
    raise InputError(f"{root}: has no {' or '.join(patterns)}. {where_to_get(published)}")


Text = Annotated[str, Field(min_length=1)]


def image_namer(captions: Path, *, root: Path, folder: str) -> Callable[[str], str]:
    """Return a function that names an image of a captions file relative to `root`, given the name in the file.

    Paths are relative to `root` / `folder` / "images", or without that folder to `root`. Images inside a Parquet file
    or an archive are looked for beside the captions first, and rows of a `datasets` folder have no path.

    Args:
        captions: a file or a folder, as for `read_captions`.
        root: folder that the benchmarks' files are in.
        folder: the benchmark's folder in it.
    """
    from degla.data.containers import parsed_cell, parsed_place
    from degla.data.formats.datasets import PREFIX
    from degla.data.places import base_of

    start = f"{folder}/images/" if (root / folder / "images").is_dir() else ""
    base = base_of(captions)

    def name(image: str) -> str:
        if image.startswith(PREFIX):
            return image
        file = (parsed_cell(image) or parsed_place(image))[0]
        inside = file != Path(image) and (base / file).is_file()
        return (base.relative_to(root) / image).as_posix() if inside else start + image

    return name


@dataclass(frozen=True)
class KarpathySplit:
    """Files of a data set's Karpathy split, and the size of its published test split.

    Attributes:
        blip: name in `karpathy/` of the list of test images that BLIP published and ARO uses.
        original: name in `karpathy/` of Karpathy's own file, which has all splits.
        prefix: prepended to the image paths of the first form, which are relative to the data set's folder.
        folder: folder of the images in the second form.
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
    """Return path and captions of each test image from the list form, in its order.

    Raises:
        InputError: the file is missing or wrong.
    """
    rows = read_records(_BlipRow, root / "karpathy" / split.blip, benchmark)
    return [(split.prefix + row.image, row.caption) for _, row in rows]


def read_either(root: Path, split: KarpathySplit, benchmark: Benchmark) -> list[tuple[str, tuple[str, ...]]]:
    """Return path and captions of each test image from the form that exists, from the list form if both do.

    Raises:
        InputError: neither file exists, or it is wrong.
    """
    if (root / "karpathy" / split.blip).exists():
        return read_blip(root, split, benchmark)
    file = root / "karpathy" / split.original
    images = read_object(file, benchmark).get("images")
    if not isinstance(images, list):
        raise InputError(f"{file}: field 'images': must be a list. {_AGAIN}")
    rows = (published_row(_OriginalRow, row, where=f"{file} image {index}") for index, row in enumerate(images))
    return [
        (split.folder + row.filename, tuple(sentence.raw for sentence in row.sentences))
        for row in rows
        if row.split == "test"
    ]


def has_split(root: Path, split: KarpathySplit, *, original: bool = True) -> bool:
    """Whether a file of the split exists under the root; `original` also allows Karpathy's own file."""
    names = (split.blip, split.original) if original else (split.blip,)
    return any((root / "karpathy" / name).exists() for name in names)
