"""Optional columns of the rows that some losses read: second images, further true texts, classes, equal texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as arrow
import torch
from torch import Tensor

from degla.data.formats._json import describe
from degla.data.pairs import PairRow, image_groups, said_words
from degla.data.randomness import stream
from degla.data.units import draw_units, text_number
from degla.errors import InputError
from degla.inputs import inputs_of
from degla.parse import read_json, read_text

PositiveSource = Literal["column", "same_image"]
_TEXT = arrow.large_string()
_UNITS = arrow.large_list(
    arrow.struct([("text", _TEXT), ("foils", arrow.large_list(_TEXT)), ("kind", arrow.large_string())])
)


@dataclass(frozen=True)
class ExtraData:
    """Which optional parts a run reads, and where they come from.

    Attributes:
        reads: parts of `degla.inputs` that some loss reads.
        positives: P, further true texts drawn a caption and epoch.
        positive_source: the column `positives`, or the other captions of the same image.
        classes: names of the classes.
        class_template: how a class becomes a text, with `{}` for its name.
        where: names the captions in messages.
        flags: what the flags of the data begin with.
    """

    reads: frozenset[str] = frozenset()
    positives: int = 1
    positive_source: PositiveSource = "column"
    classes: tuple[str, ...] = ()
    class_template: str = "a photo of a {}."
    where: str = "captions"
    flags: str = "--data"

    def class_texts(self) -> list[str]:
        """The text of each class."""
        return [self.class_template.format(name) for name in self.classes]


class RowExtras:
    """The optional columns of all rows, as Arrow columns and arrays: worker processes share their memory.

    Args:
        rows: as in `PairDataset`.
        wanted: what of them is read.
        seed: of the draws among several texts.

    Raises:
        InputError: what is wanted is in no row, or a label names no class.
    """

    def __init__(self, rows: Sequence[PairRow], wanted: ExtraData, *, seed: int) -> None:
        self.wanted = wanted
        self.seed = seed
        self.images = inputs_of(wanted.reads, kind="image")
        """The inputs that are pictures, by name."""
        texts = inputs_of(wanted.reads, kind="text")
        self.texts = {name: each for name, each in texts.items() if each.shape in ("BD", "BPD", "BMD")}
        """The inputs that are texts, one or several a row."""
        self.columns: dict[str, Any] = {}
        self._most_concepts = 0
        text = arrow.large_string()
        for name, each in (self.images | self.texts).items():
            if each.part in ("unit", "concept"):
                continue
            several = name in self.texts and each.shape == "BPD"
            values = _texts(rows, wanted, each.column) if several else _values(rows, wanted, each.column)
            self.columns[name] = arrow.array(values, arrow.large_list(text) if several else text)
        if "concept" in wanted.reads:
            phrases = zip(_values(rows, wanted, "concepts"), rows, strict=True)
            lists = [list(dict.fromkeys(some)) or [row.caption.text] for some, row in phrases]
            self.columns["concept"] = arrow.array(lists, arrow.large_list(text))
            self._most_concepts = max(map(len, lists))
        if "unit" in wanted.reads:
            units = _values(rows, wanted, "units")
            self.columns["unit"] = arrow.array([[unit.model_dump() for unit in each] for each in units], _UNITS)
        for name, number in (("label", _labels), ("text_group", _text_groups)):
            if name in inputs_of(wanted.reads):
                self.columns[name] = np.array(number(rows, wanted), dtype=np.int64)

    def text_of(self, name: str, *, epoch: int, index: int) -> Sequence[str | None]:
        """The row's texts of one input: none or one, or at most P of several without replacement (in the file's order
        where there are P); all noun phrases; units as they are drawn, and None for a foil that is missing."""
        if self.texts[name].part == "unit":
            chance = stream("units", seed=self.seed, epoch=epoch, index=index)
            drawn = draw_units(self.columns["unit"][index].as_py(), self.wanted.positives, chance)
            return [text if name == "unit" else foil for text, foil in drawn]
        value = self.columns[name][index].as_py()
        if not isinstance(value, list):
            return [] if value is None else [value]
        if name == "concept":
            return value
        if len(value) == self.wanted.positives:
            return value  # All of them, in the file's order.
        count = min(self.wanted.positives, len(value))
        return stream(name + "s", seed=self.seed, epoch=epoch, index=index).sample(value, count)

    def places(self, name: str) -> int:
        """How many texts a row has in a batch, missing ones among them."""
        return {"BPD": self.wanted.positives, "BMD": self._most_concepts}.get(self.texts[name].shape, 1)

    def numbers(self, index: int, further: Mapping[str, Sequence[str | None]]) -> dict[str, Tensor | int]:
        """Number of the row's class, -1 where it has none, and those that are equal where texts are the same.

        Args:
            index: of the row.
            further: its texts by name, from `text_of`.
        """
        found: dict[str, Tensor | int] = {
            name: int(self.columns[name][index]) for name in ("label", "text_group") if name in self.columns
        }
        for name in ("unit", "concept"):
            if name in further:
                numbers = [text_number(text) for text in further[name] if text is not None]
                found[f"{name}_group"] = torch.tensor(numbers + [-1] * (self.places(name) - len(numbers)))
        return found


def _values(rows: Sequence[PairRow], wanted: ExtraData, column: str) -> list[Any]:
    """A column as the captions have it, for example one text or path a row."""
    values = [getattr(row.caption, column) for row in rows]
    if not any(values):
        raise InputError(
            f"{wanted.where}: no caption has a {column}, and a loss of this recipe reads it. Add the field {column} to "
            "as many records as you can (docs/data.md says what it holds)."
        )
    return values


def _texts(rows: Sequence[PairRow], wanted: ExtraData, column: str) -> list[list[str]]:
    """The further true texts of each row; none says what the caption, or another of them, says already."""
    lists: list[Sequence[str]] = [getattr(row.caption, column) for row in rows]
    if wanted.positive_source == "same_image":
        of_image: dict[int, list[str]] = {}
        groups = image_groups(rows)
        for group, row in zip(groups, rows, strict=True):
            of_image.setdefault(group, []).append(row.caption.text)
        lists = [of_image[group] for group in groups]
    further = []
    for row, texts in zip(rows, lists, strict=True):
        different = {said_words(text): text for text in reversed(texts)}
        different.pop(said_words(row.caption.text), None)
        further.append(list(different.values())[::-1])
    if not any(further):
        remedy = (
            f"No image has captions that differ; take them from the field {column}: {wanted.flags}.positives column."
            if wanted.positive_source == "same_image"
            else f"Add the field {column}, a list of texts that differ from the caption, to as many records as you "
            f"can; or take other captions of the same image: {wanted.flags}.positives same_image."
        )
        raise InputError(f"{wanted.where}: no caption has a further true text, and this recipe reads them. {remedy}")
    return further


def _labels(rows: Sequence[PairRow], wanted: ExtraData) -> list[int]:
    """Number of each row's class: by name, else by number."""
    classes = wanted.classes
    number_of = {name: number for number, name in enumerate(classes)}
    by_number = {str(number): number for number in range(len(classes))}
    numbers = []
    for row in rows:
        label = row.caption.label
        number = -1 if label is None else number_of.get(label, by_number.get(label))
        if number is None:
            raise InputError(
                f"{wanted.where}: caption {row.caption.id!r}: label {label!r} is none of the {len(classes)} classes "
                f"({wanted.flags}.classes), for example {', '.join(map(repr, classes[:3]))}."
            )
        numbers.append(number)
    if max(numbers) < 0:
        raise InputError(
            f"{wanted.where}: no caption has a label, and this recipe reads it. Add the field label, the name or "
            "number of the image's class, to as many records as you can."
        )
    return numbers


def _text_groups(rows: Sequence[PairRow], wanted: ExtraData) -> list[int]:
    """A number that is equal exactly where two captions are the same text."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(row.caption.text, len(numbers)) for row in rows]


def read_classes(path: Path) -> tuple[str, ...]:
    """Names of the classes, in order: one a line, or a JSON list, or a JSON object with such a list as "classes".

    Raises:
        InputError: the file cannot be read, has another form, fewer than two classes, or one of them twice.
    """
    if path.suffix.lower() == ".json":
        found = read_json(path)
        names = found.get("classes") if isinstance(found, dict) else found
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(
                f'{path}: found {describe(found)} where a list of class names (or {{"classes": [...]}}) is needed.'
            )
    else:
        names = read_text(path).splitlines()
    names = [name.strip() for name in names if name.strip()]
    if len(names) < 2:
        raise InputError(f"{path}: holds {len(names)} classes; two or more are needed, one a line.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: class {twice!r} is there twice.")
    return tuple(names)
