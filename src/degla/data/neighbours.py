"""Similar images: hard images added to a batch, and second images of captions with their own true text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import pyarrow as arrow
from PIL import Image
from pydantic import Field

from degla.data.formats.csv import list_in_cell, read_rows
from degla.data.randomness import random_for
from degla.data.table import NUMBERS, ROWS, ColumnFile, IdIndex, PairTable, RowIndex, id_hashes, write_columns
from degla.errors import InputError
from degla.pages.words import counted
from degla.records import CaptionRecord, NegativeRecord, Record, read_jsonl


class NeighbourRecord(Record):
    """Captions of images similar to a caption's image, most similar first.

    Attributes:
        caption_id: `CaptionRecord.id`.
        neighbours: ids of captions of other images.
    """

    caption_id: str = Field(min_length=1)
    neighbours: tuple[str, ...]


def read_neighbours(path: Path) -> Iterator[NeighbourRecord]:
    """Read the neighbours in a file of `degla neighbours`, or in the column "neg_image" of NegCLIP's table.

    Raises:
        InputError: the file cannot be read, or a record is invalid.
    """
    delimiter = {".csv": ",", ".tsv": "\t", ".tab": "\t"}.get(path.suffix.lower())
    return read_jsonl(NeighbourRecord, path) if delimiter is None else _of_table(path, delimiter=delimiter)


def _of_table(path: Path, *, delimiter: str) -> Iterator[NeighbourRecord]:
    """Rows are numbered from 0; their captions are named as in `formats.csv.read_negatives`."""
    rows = [
        (where, row.get("id") or str(number), row.get(_ROW_NUMBERS))
        for number, (where, row) in enumerate(read_rows(path, delimiter=delimiter))
    ]
    for where, name, cell in rows:
        if cell is None:
            raise InputError(f"{path}: has no column {_ROW_NUMBERS!r}, the row numbers of similar images.")
        numbers = list_in_cell(cell, column=_ROW_NUMBERS, where=where, kind=int)
        if odd := next((number for number in numbers if not 0 <= number < len(rows)), None):
            raise InputError(f"{where}: {_ROW_NUMBERS!r} has row {odd}, but the table has {counted(len(rows), 'row')}.")
        yield NeighbourRecord(caption_id=name, neighbours=tuple(rows[number][1] for number in numbers))


_ROW_NUMBERS = "neg_image"


class Neighbours:
    """The neighbours of each training row, by row number.

    Args:
        file: the column `neighbours` of `write_neighbours`.
        per_row: neighbours drawn per row.
        seed: of the draws.
    """

    def __init__(self, file: ColumnFile, *, per_row: int, seed: int) -> None:
        self.file, self.per_row, self.seed = file, per_row, seed

    def draw(self, epoch: int, index: int) -> list[int]:
        """Draw the `per_row` rows that accompany row `index` in an epoch; rows repeat only if there are fewer."""
        near: list[int] = self.file.at("neighbours", index)
        rng = random_for("neighbours", seed=self.seed, epoch=epoch, index=index)
        # Always the same number, so that all processes have batches of equal size.
        return rng.sample(near, self.per_row) if len(near) >= self.per_row else rng.choices(near, k=self.per_row)


def write_neighbours(path: Path, rows: PairTable, records: Iterable[NeighbourRecord], *, where: str) -> None:
    """Write the row numbers of each training row's neighbours as a column file.

    Args:
        path: of the file.
        rows: the training rows.
        records: for all rows; records and neighbours that are not among the rows are ignored.
        where: names the records in messages.

    Raises:
        InputError: a row has no neighbour among the rows.
    """
    index = IdIndex([id_hashes(chunk.to_pylist()) for chunk in rows.chunks("id")])
    near_rows: dict[int, RowIndex] = {}
    for record in records:
        own, *near = index.rows([record.caption_id, *record.neighbours]).tolist()
        if own >= 0:
            near_rows[own] = np.array([row for row in near if row >= 0], dtype=np.int64)

    def chunks() -> Iterator[Any]:
        for start in range(0, len(rows), ROWS):
            lists = [near_rows.get(row, ()) for row in range(start, min(start + ROWS, len(rows)))]
            lonely = next((start + place for place, near in enumerate(lists) if not len(near)), None)
            if lonely is not None:
                raise InputError(
                    f"{where}: caption {rows.at('id', lonely)!r} has no neighbour among the training captions. "
                    "Make the file from these, without those whose image cannot be used: degla neighbours CAPTIONS "
                    "--images FOLDER --model MODEL --out FILE."
                )
            yield arrow.array(lists, NUMBERS)

    write_columns(path, {"neighbours": chunks()})


def image_name(caption_id: str) -> str:
    """Return the name of a caption's drawn image without its ending: the id, percent-encoded if it has slashes.

    So is an id that would be taken for an encoded one. A name too long for a file ends in a digest of the id.
    """
    encoded = quote(caption_id, safe="")
    name = encoded if any(each in caption_id.upper() for each in ("/", "\0", "%2F", "%00")) else caption_id
    if len(name.encode()) <= _LONGEST:
        return name
    return f"{encoded[: _LONGEST - 17]}-{hashlib.sha256(caption_id.encode()).hexdigest()[:16]}"


_LONGEST: Final = 240
"""Most bytes of an image's name, which with an ending and that of an unfinished file may have 255."""


ImageOf = Callable[[CaptionRecord], str | None]
"""Returns the second image of a caption, or None."""

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
"""Name endings of drawn images."""
TEXT: Final = "degla:text"
"""Name of the text chunk of a PNG file with the text that it was drawn from."""


def similar_images(
    captions: Sequence[CaptionRecord],
    neighbours: Iterable[NeighbourRecord],
    contradicted: Callable[[str, str], bool] = lambda caption_id, image: False,
) -> ImageOf:
    """Use the image of each caption's nearest neighbour that its text fits, like the distractors of CoN-CLIP.

    Args:
        captions: the captions.
        neighbours: similar images of their images.
        contradicted: whether the text of a caption, by its id, is false of an image.
    """
    images = {caption.id: caption.image for caption in captions}
    nearest: dict[str, str | None] = {}
    for record in neighbours:
        near = (images[name] for name in record.neighbours if name in images)
        nearest[record.caption_id] = next((image for image in near if not contradicted(record.caption_id, image)), None)
    return lambda caption: nearest.get(caption.id)


def drawn_images(folder: Path, texts: Mapping[str, str]) -> ImageOf:
    """Use the images named after the captions' ids (`image_name`), drawn from the negatives by a text-to-image model.

    An image that `draw_images` drew from another text than the one in `texts` is not used.
    """
    images: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir(), reverse=True):
        if path.suffix.lower() in SUFFIXES:
            images.setdefault(path.stem, []).append(path)

    def image_of(caption: CaptionRecord) -> str | None:
        fitting = (None, texts.get(caption.id))
        named = images.get(image_name(caption.id), ())
        return next((str(path.resolve()) for path in named if drawn_text(path) in fitting), None)

    return image_of


def drawn_text(path: Path) -> str | None:
    """Return the text that `draw_images` drew an image from; None for any other file."""
    try:
        with Image.open(path) as picture:
            text = picture.info.get(TEXT)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return text if isinstance(text, str) else None


def texts_of_rule(negatives: Iterable[NegativeRecord], rule: str) -> dict[str, str]:
    """Return the first accepted negative of a rule for each caption that has one, by caption id."""
    texts: dict[str, str] = {}
    for negative in negatives:
        if negative.accepted and negative.rule == rule and negative.text:
            texts.setdefault(negative.caption_id, negative.text)
    return texts


def with_partners(
    captions: Sequence[CaptionRecord], texts: Mapping[str, str], image_of: ImageOf, *, rule: str
) -> Iterator[CaptionRecord]:
    """Yield all captions; add image and negative as partner to those with a second image and an accepted negative.

    Args:
        captions: all captions.
        texts: their negatives, from `texts_of_rule`.
        image_of: returns their second images.
        rule: for the message.

    Raises:
        InputError: at the end, if no caption has both a second image and a negative of the rule.
    """
    count = images = 0
    for caption in captions:
        image, text = image_of(caption), texts.get(caption.id)
        images += image is not None
        if image is not None and text is not None:
            count += 1
            yield caption.model_copy(update={"distractor_image": image, "distractor_text": text})
        else:
            yield caption
    if not count:
        raise InputError(
            f"no caption has both a second image that can fit its text ({images} have one) and an accepted negative of "
            f"the rule {rule} ({len(texts)} have one). Provide images and negatives of that rule for these captions."
        )
