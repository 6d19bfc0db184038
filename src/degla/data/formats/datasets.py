"""Folders written by Hugging Face `datasets` with save_to_disk; images in them are used in place.

An image inside such a folder has no path of its own. Its `CaptionRecord.image` is a reference instead,
"dataset:FOLDER#COLUMN/ROW", which `images.read_image` resolves; nothing is unpacked or copied.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from degla.data.columns import Columns, Placed, captions_of_row
from degla.data.places import files_of
from degla.errors import InputError
from degla.pages.words import counted
from degla.parse import PARQUET_ENDINGS, in_one_line
from degla.remote import remembered

ENDINGS = ()
PREFIX = "dataset:"
_ROWS = 1024
_OPENING = threading.Lock()
"""The library's progress bar deletes a lock that all its bars share, so only one thread at a time may open a folder."""


def claims(path: Path) -> bool:
    """Claim folders without files of another format."""
    return path.is_dir() and not files_of(path, ".tar", *PARQUET_ENDINGS)


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """Yield one caption (or list of captions) per row; the images' bytes are not read.

    Raises:
        InputError: `datasets` is not installed, or the folder is not one of its datasets, has splits or lacks a column.
    """
    dataset = _open(str(path.absolute()))
    columns = columns.settle(dataset.column_names, where=str(path))
    for number, row in enumerate(_rows(dataset, columns, path=path)):
        yield from captions_of_row(row, columns=columns, where=f"{path} row {number}", number=number)


def _rows(dataset: Any, columns: Columns, *, path: Path) -> Iterator[dict[str, object]]:
    number = 0
    try:
        for table in (
            dataset.select_columns(columns.read_from(dataset.column_names)).with_format("arrow").iter(batch_size=_ROWS)
        ):
            images = _image_names(table.column(columns.image), path=path, column=columns.image, first=number)
            for image, row in zip(images, table.drop_columns([columns.image]).to_pylist(), strict=True):
                number += 1
                yield {**row, columns.image: image}
    except Exception as error:  # damaged bytes raise many exception types in Arrow and in the library
        raise InputError(f"{path} row {number}: the dataset is damaged: {in_one_line(error)}") from None


def read_image_bytes(reference: str) -> bytes:
    """Return the encoded image behind a "dataset:FOLDER#COLUMN/ROW" reference.

    Raises:
        InputError: the reference does not exist.
    """
    folder, _, place = reference.removeprefix(PREFIX).rpartition("#")
    column, _, row = place.rpartition("/")
    dataset = _open(folder)
    if not re.fullmatch("[0-9]{1,18}", row) or column not in dataset.column_names or int(row) >= len(dataset):
        raise InputError(f"{reference}: no such image; {folder} has {counted(len(dataset), 'row')}.")
    table = dataset.select_columns([column]).with_format("arrow")[int(row)]
    try:
        value: bytes | None = table.column(column)[0]["bytes"].as_py()
    except Exception as error:  # as in `_rows`
        raise InputError(f"{reference}: the dataset is damaged: {in_one_line(error)}") from None
    if value is None:
        raise InputError(f"{reference}: the image's bytes are missing from the dataset.")
    return value


def _image_names(images: Any, *, path: Path, column: str, first: int) -> list[object]:
    """Paths unchanged; a reference for every image whose bytes are in the dataset."""
    import pyarrow as arrow

    if not arrow.types.is_struct(images.type):
        names: list[object] = images.to_pylist()
        return names
    inside, outside = [], []
    fields = {field.name for field in images.type}
    for chunk in images.chunks:
        # Only the validity bits and the paths are read here, never the images.
        content, file = (chunk.field(name) if name in fields else arrow.nulls(len(chunk)) for name in ("bytes", "path"))
        inside.extend(content.is_valid().to_pylist())
        outside.extend(file.to_pylist())
    return [
        f"{PREFIX}{path.absolute()}#{column}/{first + offset}" if stored else file
        for offset, (stored, file) in enumerate(zip(inside, outside, strict=True))
    ]


def _open(folder: str) -> Any:
    marks = (Path(folder) / name for name in ("state.json", "dataset_dict.json"))
    mark = next((mark for mark in marks if mark.is_file()), None)
    if mark is None:
        raise InputError(
            f"{folder}: has no uncompressed .tar and no .parquet files (subfolders are not searched), and is not "
            "a folder written by datasets' save_to_disk. Give a captions file, or a folder with one of these."
        )
    return _opened(mark)


# One opened dataset per folder and process: a memory map that forked workers share and spawned ones reopen.
@remembered(8)
def _opened(mark: Path) -> Any:
    """Open the folder of a file that is written with each dataset."""
    folder = str(mark.parent)
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"{folder}: reading this folder needs the `datasets` library: pip install 'degla[datasets]'"
        ) from None
    try:
        with _OPENING:
            dataset = datasets.load_from_disk(folder)
        if not isinstance(dataset, datasets.DatasetDict):
            # Arrow trusts the offsets in its files: a damaged one would lead to reads outside the file's memory.
            dataset.data.table.validate(full=True)
    except Exception as error:  # the library raises many exception types for other folders
        raise InputError(
            f"{folder}: not a folder written by datasets' save_to_disk, or damaged ({in_one_line(error).rstrip('.')}). "
            "Give a captions file or the folder of one saved dataset, or write it again."
        ) from None
    if isinstance(dataset, datasets.DatasetDict):
        names = ", ".join(dataset)
        example = f"{folder}/{next(iter(dataset))}"
        raise InputError(f"{folder}: has several splits ({names}). Give the folder of one, for example {example}.")
    return dataset
