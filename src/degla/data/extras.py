"""Optional columns of the rows that some losses read: second images, further true texts, classes, equal texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as arrow

from degla.data.pairs import PairRow, image_groups, said_words
from degla.data.randomness import stream
from degla.errors import InputError

PositiveSource = Literal["column", "same_image"]


@dataclass(frozen=True)
class ExtraData:
    """Which optional parts a run reads, and where they come from.

    Attributes:
        partners: read second images with their texts.
        positives: P, further true texts drawn a caption and epoch; 0 reads none.
        positive_source: the column `positives`, or the other captions of the same image.
        classes: names of the classes; none reads no labels.
        class_template: how a class becomes a text, with `{}` for its name.
        text_groups: number the different texts.
        where: names the captions in messages.
    """

    partners: bool = False
    positives: int = 0
    positive_source: PositiveSource = "column"
    classes: tuple[str, ...] = ()
    class_template: str = "a photo of a {}."
    text_groups: bool = False
    where: str = "captions"

    def class_texts(self) -> list[str]:
        """The text of each class."""
        return [self.class_template.format(name) for name in self.classes]


class RowExtras:
    """The optional columns of all rows, as Arrow columns and arrays: worker processes share their memory.

    Args:
        rows: as in `PairDataset`.
        wanted: what of them is read.
        seed: of the draws of positives.

    Raises:
        InputError: what is wanted is in no row, or a label names no class.
    """

    def __init__(self, rows: Sequence[PairRow], wanted: ExtraData, *, seed: int) -> None:
        self.wanted = wanted
        self.seed = seed
        text = arrow.large_string()
        if wanted.partners:
            if not any(row.caption.partner_image for row in rows):
                raise InputError(
                    f"{wanted.where}: no caption has a partner_image, and this recipe reads a second image with the "
                    "text that is true of it. Add the fields partner_image and partner_text, in as many records as you "
                    "can."
                )
            self._partner_images = arrow.array([row.caption.partner_image for row in rows], text)
            self._partner_texts = arrow.array([row.caption.partner_text for row in rows], text)
        if wanted.positives:
            self._positives = arrow.array(_positives(rows, wanted), arrow.large_list(text))
        self._labels = np.array(_labels(rows, wanted) if wanted.classes else [], dtype=np.int64)
        numbers: dict[str, int] = {}
        texts = [numbers.setdefault(row.caption.text, len(numbers)) for row in rows] if wanted.text_groups else []
        self._text_groups = np.array(texts, dtype=np.int64)

    def partner(self, index: int) -> tuple[str, str] | None:
        """Path of the second image and its text; None where the row has none."""
        if not self.wanted.partners:
            return None
        image, text = self._partner_images[index].as_py(), self._partner_texts[index].as_py()
        return None if image is None else (image, text)

    def positives(self, epoch: int, index: int) -> list[str]:
        """At most P of the row's further true texts, without replacement."""
        if not self.wanted.positives:
            return []
        texts: list[str] = self._positives[index].as_py()
        count = min(self.wanted.positives, len(texts))
        return stream("positives", seed=self.seed, epoch=epoch, index=index).sample(texts, count)

    def label(self, index: int) -> int | None:
        """Number of the row's class, -1 where it has none; None where labels are not read."""
        return int(self._labels[index]) if self.wanted.classes else None

    def text_group(self, index: int) -> int | None:
        """A number that is equal exactly where two captions are the same text; None where it is not read."""
        return int(self._text_groups[index]) if self.wanted.text_groups else None


def _positives(rows: Sequence[PairRow], wanted: ExtraData) -> list[list[str]]:
    """The further true texts of each row; none says what the caption, or another of them, says already."""
    given: list[Sequence[str]] = [row.caption.positives for row in rows]
    if wanted.positive_source == "same_image":
        of_image: dict[int, list[str]] = {}
        groups = image_groups(rows)
        for group, row in zip(groups, rows, strict=True):
            of_image.setdefault(group, []).append(row.caption.text)
        given = [of_image[group] for group in groups]
    found = []
    for row, texts in zip(rows, given, strict=True):
        different = {said_words(text): text for text in reversed(texts)}
        different.pop(said_words(row.caption.text), None)
        found.append(list(different.values())[::-1])
    if not any(found):
        remedy = (
            "No image has captions that differ; take them from the field positives: --data.positives column."
            if wanted.positive_source == "same_image"
            else "Add the field positives, a list of texts that differ from the caption, to as many records as you "
            "can; or take other captions of the same image: --data.positives same_image."
        )
        raise InputError(f"{wanted.where}: no caption has a further true text, and this recipe reads them. {remedy}")
    return found


def _labels(rows: Sequence[PairRow], wanted: ExtraData) -> list[int]:
    """Number of each row's class: by name, else by number."""
    classes = wanted.classes
    number_of = {name: number for number, name in enumerate(classes)}
    by_number = {str(number): number for number in range(len(classes))}
    found = []
    for row in rows:
        label = row.caption.label
        number = -1 if label is None else number_of.get(label, by_number.get(label))
        if number is None:
            raise InputError(
                f"{wanted.where}: caption {row.caption.id!r}: label {label!r} is none of the {len(classes)} classes "
                f"(--data.classes), for example {', '.join(map(repr, classes[:3]))}."
            )
        found.append(number)
    if max(found) < 0:
        raise InputError(
            f"{wanted.where}: no caption has a label, and this recipe reads it. Add the field label, the name or "
            "number of the image's class, to as many records as you can."
        )
    return found
