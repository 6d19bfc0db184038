"""Write captions and their accepted negatives in the formats that released training code reads.

DeGLA's JSON has five texts per caption, one for each rule of the paper, in fixed positions. The released loader reads
the first four unchecked: a caption with fewer makes it fail, and an empty text is trained on like a negative. NegCLIP
reads a table with a list of negatives in one cell (comma-separated, or tab-separated as its authors' own files).
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from degla.data.formats import tsv
from degla.errors import InputError
from degla.files import whole_file
from degla.negatives.files.caption_index import CaptionIndex, CaptionNegatives
from degla.pages.words import counted
from degla.records import NegativeRecord

POSITIONS: Final = ("reshuffle_order", "swap_nouns", "swap_adjectives", "replace_adjectives", "replace_nouns")
"""The rule of each text in a record of the published JSON, in the paper's order (arXiv 2504.16801)."""
TEXTS_READ: Final = 4
"""Number of texts per record that the released loader reads."""
NEIGHBOURS: Final = 3
"""Number of other rows that NegCLIP's table lists per row."""

_IMAGE_NAME: Final = "COCO_train2014_{:012d}.jpg"


@dataclass
class ExportSummary:
    """Counts of an export.

    Attributes:
        captions: captions written.
        negatives: negatives written.
        left_out: captions and negatives not written, by kind; each begins with "captions" or "negatives".
        notes: what a user of the file should know.
    """

    captions: int = 0
    negatives: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {**vars(self), "left_out": dict(sorted(self.left_out.items()))}

    @property
    def omitted(self) -> str:
        """What was left out, with the numbers; "" if nothing was."""
        kinds = ((times, what.partition("s ")) for what, times in sorted(self.left_out.items()))
        return ", ".join(f"{counted(times, noun)} {which}" for times, (noun, _, which) in kinds)

    def sentences(self) -> list[str]:
        """Return the counts and notes as sentences for a terminal."""
        written = f"{counted(self.captions, 'caption')} with {counted(self.negatives, 'negative')}"
        return [f"{written}; left out: {self.omitted or 'nothing'}.", *self.notes]


def export_degla_json(records: Iterable[NegativeRecord], captions: CaptionIndex, out: Path) -> ExportSummary:
    """Write the published JSON: ``[{"image_id": 9, "original": "...", "enhanced": ["...", ...]}, ...]``.

    Positions of rules without a negative of a caption are filled with its other accepted negatives, so that the first
    four are texts; captions with fewer are omitted.

    Args:
        records: the negatives, in any order.
        captions: the captions that they were made from; their `image_id` must be an integer.
        out: the file.

    Raises:
        InputError: no caption can be exported, a row is a true text, or `out` cannot be written.
    """
    summary = ExportSummary()
    captions.add_negatives(records, summary.left_out)
    other_names = 0
    with whole_file(out, newline="") as stream:
        for row in captions.negatives():
            texts, rest = _arrange(row.texts)
            number = _plain_integer(row.caption.image_id)
            reason = _reason(row, texts, number=number)
            if reason:
                summary.left_out[reason] += 1
                if row.texts:
                    summary.left_out["negatives of captions that are left out"] += len(row.texts)
                continue
            assert number is not None
            for rule in rest:
                extra = rule in POSITIONS
                which = "after the first of a rule" if extra else "of rules without position"
                summary.left_out[f"negatives {which}"] += 1
            other_names += Path(row.caption.image).name != _IMAGE_NAME.format(number)
            record = {"image_id": number, "original": row.caption.text, "enhanced": texts}
            stream.write(("[\n" if not summary.captions else ",\n") + json.dumps(record, ensure_ascii=False))
            summary.captions += 1
            summary.negatives += len(texts)
        _refuse_nothing(summary.captions, summary, out)
        stream.write("\n]\n")
    if other_names:
        summary.notes.append(
            f"{counted(other_names, 'caption has', 'captions have')} an image not named like "
            f"{_IMAGE_NAME.format(9)}. The file has no image names, and the released DeGLA loader expects that "
            "pattern; in degla train, set --data.image-pattern."
        )
    return summary


def _arrange(texts: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return the texts by position, and the rules of texts without a position."""
    by_position: dict[int, str] = {}
    spare: list[tuple[str, str]] = []
    for rule, text in texts:
        position = POSITIONS.index(rule) if rule in POSITIONS else -1
        if position >= 0 and position not in by_position:
            by_position[position] = text
        else:
            spare.append((rule, text))
    for position in range(len(POSITIONS)):
        if position not in by_position and spare:
            by_position[position] = spare.pop(0)[1]
    # The loader reads only the first four, so the fifth text is better used to fill a gap among them.
    for position in range(TEXTS_READ):
        if position not in by_position and TEXTS_READ in by_position:
            by_position[position] = by_position.pop(TEXTS_READ)
    return [by_position[position] for position in sorted(by_position)], [rule for rule, _ in spare]


def _reason(row: CaptionNegatives, texts: Sequence[str], *, number: int | None) -> str:
    """Return why a caption cannot be exported; "" if it can."""
    if number is None:
        return "captions whose image_id is not an integer without leading zeros"
    if not row.texts:
        return "captions without a negative"
    return f"captions with fewer than {TEXTS_READ} negatives" if len(texts) < TEXTS_READ else ""


def _plain_integer(name: str) -> int | None:
    """Return the integer that a name spells in canonical form, else None."""
    return int(name) if name.isascii() and name.isdigit() and str(int(name)) == name else None


def export_table(
    records: Iterable[NegativeRecord],
    captions: CaptionIndex,
    out: Path,
    *,
    images: Path | None = None,
    similar: Mapping[str, Sequence[str]] | None = None,
) -> ExportSummary:
    """Write NegCLIP's table: title, filepath, neg_caption (a list), neg_image (a list of row numbers).

    NegCLIP ignores the additional columns id, image_id and neg_rule (the rules behind neg_caption).

    Args:
        records: the negatives, in any order.
        captions: the captions that they were made from.
        out: the file; tab-separated if its name ends in ".tsv" or ".tab", else comma-separated.
        images: folder to prepend to image paths.
        similar: ids of captions of similar images, by caption id, for neg_image. Without it, or where none of them is
            in the table, three rows of other images are drawn at random.

    Raises:
        InputError: no caption has a negative, a row is a true text, or `out` cannot be written.
    """
    summary = ExportSummary()
    captions.add_negatives(records, summary.left_out)
    image_of: list[int] = []
    numbers: dict[str, int] = {}  # of images
    row_of: dict[str, int] = {}
    for row in captions.negatives():
        if row.texts:
            if similar is not None:
                row_of[row.id] = len(image_of)
            image_of.append(numbers.setdefault(row.caption.image_id, len(numbers)))
        else:
            summary.left_out["captions without a negative"] += 1
    _refuse_nothing(len(image_of), summary, out)
    neighbours = _neighbours(image_of)
    drawn = 0
    with whole_file(out, newline="") as stream:
        writer = csv.writer(stream, delimiter="\t" if out.suffix.lower() in tsv.ENDINGS else ",", lineterminator="\n")
        writer.writerow(["id", "image_id", "title", "filepath", "neg_caption", "neg_rule", "neg_image"])
        for row in captions.negatives():
            if not row.texts:
                continue
            caption = row.caption
            path = caption.image if images is None else str(images / caption.image)
            texts, rules = [text for _, text in row.texts], [rule for rule, _ in row.texts]
            near = [row_of[name] for name in (similar or {}).get(row.id, ()) if name in row_of]
            drawn += not near
            near = near or neighbours(summary.captions)
            writer.writerow([row.id, caption.image_id, caption.text, path, texts, rules, near])
            summary.captions += 1
            summary.negatives += len(texts)
    if len(numbers) > 1 and drawn:
        which = "" if similar is None else f"for {drawn:,} of {counted(summary.captions, 'caption')} "
        why = "--neighbours" if similar is None else "none is in the table"
        summary.notes.append(
            f"neg_image: {which}rows drawn at random from other images; NegCLIP's authors used the most similar images "
            f"({why})."
        )
    elif drawn:
        summary.notes.append("neg_image is empty because there is only one image. NegCLIP's loader fails on this.")
    return summary


def _neighbours(image_of: Sequence[int]) -> Callable[[int], list[int]]:
    """Return a function that draws numbers of rows of other images for a row; none if there is only one image."""
    random = Random(0)
    (main, times), *_ = Counter(image_of).most_common(1)
    # Of an image with most rows, drawing until another one comes would take as many draws as it has rows.
    others_of_main = [row for row, image in enumerate(image_of) if image != main] if 2 * times > len(image_of) else None

    def draw(row: int) -> list[int]:
        if others_of_main is not None and image_of[row] == main:
            return random.choices(others_of_main, k=NEIGHBOURS) if others_of_main else []
        others: list[int] = []
        while len(others) < NEIGHBOURS:
            other = random.randrange(len(image_of))
            if image_of[other] != image_of[row]:
                others.append(other)
        return others

    return draw


def _refuse_nothing(captions: int, summary: ExportSummary, out: Path) -> None:
    if not captions:
        raise InputError(f"{out}: nothing to export: {summary.omitted or 'no captions'}.")
