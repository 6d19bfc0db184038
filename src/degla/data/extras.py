"""Optional columns of the rows that some losses read: second images, additional true texts, classes, equal texts, and
parts of captions: units (things and relations), drawn per epoch, and words replaced by the mask token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
import torch
from jaxtyping import Int
from torch import Tensor

from degla.data.pairs import normalized_words
from degla.data.randomness import random_for
from degla.data.table import TEXTS, ColumnFile, PairTable, numbered, write_columns
from degla.errors import InputError
from degla.inputs import Input, images_of_columns, inputs_of, numbers_of_columns
from degla.pages.words import counted
from degla.parse import describe_json, read_json, read_text
from degla.prefixes import MASKED, Tokenize

PositiveSource = Literal["column", "same_image", "both"]


@dataclass(frozen=True)
class ExtraData:
    """The optional parts that a run reads, and where they come from.

    Attributes:
        reads: parts of `degla.inputs` that some loss reads.
        positives: P, additional true texts drawn per caption and epoch.
        positive_source: the column `positives`, the other captions of the same image, or these and the column of all
            its rows.
        classes: names of the classes.
        class_template: template that turns a class into a text, with `{}` for its name.
        where: names the captions in messages.
        flags: prefix of the data flags.
    """

    reads: frozenset[str] = frozenset()
    positives: int = 1
    positive_source: PositiveSource = "column"
    classes: tuple[str, ...] = ()
    class_template: str = "a photo of a {}."
    where: str = "captions"
    flags: str = "--data"

    def class_texts(self) -> list[str]:
        """Return the text of each class."""
        return [self.class_template.replace("{}", name) for name in self.classes]


class RowExtras:
    """The optional columns of all rows.

    Args:
        file: written by `write_extras`; None if nothing that is read has a column.
        wanted: which of them are read.
        seed: of the draws among several texts.
        target: maps a text to the tokens of a decoder, if a loss reads how it reconstructs the image's captions.
    """

    def __init__(
        self, file: ColumnFile | None, wanted: ExtraData, *, seed: int, target: Callable[[str], Tensor] | None = None
    ) -> None:
        self.file, self.wanted, self.seed, self.target = file, wanted, seed, target
        self.images = images_of_columns(wanted.reads)
        """The inputs that are images, by name."""
        self.texts = _texts_read(wanted)
        """The inputs that are texts, one or several per row."""
        self.own_numbers = numbers_of_columns(wanted.reads)
        self._most_concepts = 0
        if file is not None and "concept" in file.names:
            self._most_concepts = max(
                compute.max(compute.list_value_length(each)).as_py() or 0 for each in file.chunks("concept")
            )

    def at(self, name: str, index: int) -> Any:
        """Return the value of a column."""
        assert self.file is not None, name
        return self.file.at(name, index)

    def text_of(self, name: str, *, epoch: int, index: int) -> Sequence[str | None]:
        """Return the row's texts of one input: none or one; P of several, drawn without replacement (all, in the file's
        order, if there are no more than P); all noun phrases; the units drawn, with None for a missing foil."""
        if self.texts[name].part == "unit":
            chance = random_for("units", seed=self.seed, epoch=epoch, index=index)
            drawn = draw_units(self.at("unit", index), self.wanted.positives, chance)
            return [text if name == "unit" else foil for text, foil in drawn]
        value = self.at(name, index)
        if not isinstance(value, list):
            return [] if value is None else [value]
        if name == "concept":
            return value
        if len(value) <= self.wanted.positives:
            return value  # No draw: losses may read the first text.
        return random_for(name + "s", seed=self.seed, epoch=epoch, index=index).sample(value, self.wanted.positives)

    def target_of(self, *, epoch: int, index: int) -> dict[str, Tensor]:
        """Return the decoder's tokens of one caption of the row's image, drawn from all including its own."""
        if self.target is None:
            return {}
        chance = random_for("target", seed=self.seed, epoch=epoch, index=index)
        return {"target": self.target(chance.choice(self.at("target", index)))}

    def masked_of(self, index: int, caption: Tensor, tokenize: Tokenize) -> dict[str, Tensor | int]:
        """Return the row's caption with its masked words replaced by the mask token, if a loss reads it."""
        if "masked" not in self.wanted.reads:
            return {}
        masked = mask_words(caption, self.at("masked_words", index), tokenize)
        return {"masked": masked, "masked_valid": bool((masked != caption).any())}

    def texts_per_row(self, name: str) -> int:
        """Return how many texts a row has in a batch, counting missing ones."""
        return {"BPD": self.wanted.positives, "BMD": self._most_concepts}.get(self.texts[name].shape, 1)

    def numbers(self, index: int, further: Mapping[str, Sequence[str | None]]) -> dict[str, Tensor | int]:
        """Return the number of the row's class (-1 if it has none) and group numbers, equal where texts are equal.

        Args:
            index: of the row.
            further: its texts by name, from `text_of`.
        """
        tensors: dict[str, Tensor | int] = {
            name: self.at(name, index) for name in inputs_of(self.wanted.reads) if name in ("label", "text_group")
        }
        for name, each in self.own_numbers.items():
            value = self.at(name, index)
            tensors[name] = torch.tensor(0.0 if value is None else value)
            if each.mask:
                tensors[each.mask] = value is not None
        for name in ("unit", "concept"):
            if name in further:
                numbers = [text_number(text) for text in further[name] if text is not None]
                tensors[f"{name}_group"] = torch.tensor(numbers + [-1] * (self.texts_per_row(name) - len(numbers)))
        return tensors


def _texts_read(wanted: ExtraData) -> dict[str, Input]:
    texts = inputs_of(wanted.reads, kind="text")
    return {name: each for name, each in texts.items() if each.column and each.shape in ("BD", "BPD", "BMD")}


def write_extras(path: Path, rows: PairTable, wanted: ExtraData) -> None:
    """Write the columns that are read in addition to captions and negatives as a column file, if there are any.

    Args:
        path: of the file.
        rows: the training rows.
        wanted: which columns are read.

    Raises:
        InputError: no row has a wanted column, or a label is not a class.
    """
    columns: dict[str, Iterable[Any]] = {}
    for name, each in (images_of_columns(wanted.reads) | _texts_read(wanted)).items():
        if each.part not in ("unit", "concept"):
            several = each.shape == "BPD"
            columns[name] = _further_texts(rows, wanted, each.column) if several else _of_own(rows, wanted, each)
    for name, each in numbers_of_columns(wanted.reads).items():
        columns[name] = _own_numbers(rows, wanted, each)
    if "concept" in wanted.reads:
        columns["concept"] = _concepts(rows, wanted)
    if "unit" in wanted.reads:
        columns["unit"] = _unchanged(rows, wanted, "units")
    if "reconstruction" in wanted.reads:
        columns["target"] = _targets(rows, wanted)
    if "masked" in wanted.reads:
        columns["masked_words"] = _unchanged(rows, wanted, "masked_words")
    if "label" in inputs_of(wanted.reads):
        columns["label"] = _labels(rows, wanted)
    if "text_group" in inputs_of(wanted.reads):
        texts = list(rows.chunks("text"))
        ends = np.cumsum([len(chunk) for chunk in texts])
        columns["text_group"] = map(arrow.array, np.split(numbered(texts), ends[:-1]))
    if columns:
        write_columns(path, columns)


def _unchanged(rows: PairTable, wanted: ExtraData, column: str) -> Iterator[Any]:
    """A column unchanged, for example one text or path per row."""
    there = False
    for chunk in rows.chunks(column):
        listed = arrow.types.is_large_list(chunk.type)
        there = there or bool(len(chunk.flatten()) if listed else len(chunk) - chunk.null_count)
        yield chunk
    if not there:
        raise InputError(
            f"{wanted.where}: no caption has the field {column}, but a loss of this recipe reads it. Add it to as "
            "many records as you can (docs/losses.md says what it holds and how to make it)."
        )


def _of_own(rows: PairTable, wanted: ExtraData, each: Input) -> Iterator[Any]:
    """A column unchanged; each row must have it unless the input has a mask."""
    for values, ids in zip(_unchanged(rows, wanted, each.column), rows.chunks("id"), strict=True):
        if values.null_count and not each.mask:
            raise InputError(
                f"{wanted.where}: caption {ids.filter(values.is_null())[0].as_py()!r} has no field {each.column}, but "
                "a loss of this recipe reads it for every caption. Add it, or give the loss's input a mask."
            )
        yield values


def _own_numbers(rows: PairTable, wanted: ExtraData, each: Input) -> Iterator[Any]:
    """Numbers unchanged; float32, in which a loss reads them, must hold their size, and whole ones exactly."""
    for values, ids in zip(_of_own(rows, wanted, each), rows.chunks("id"), strict=True):
        numbers = values.fill_null(0).to_numpy()
        with np.errstate(over="ignore", under="ignore"):
            read = numbers.astype(np.float32)
        whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**63)  # Larger ones are no 64-bit integers.
        odd = (read != numbers) & (~np.isfinite(read) | (read == 0) | whole)
        for place in np.flatnonzero(odd)[:1].tolist():
            raise InputError(
                f"{wanted.where}: caption {ids[place].as_py()!r}: {each.column} is {numbers[place]:.17g}, but losses "
                "read float32, which has no such number (whole ones to 16777216, others to 3e38). Scale or renumber it."
            )
        yield values


def _concepts(rows: PairTable, wanted: ExtraData) -> Iterator[Any]:
    """The distinct noun phrases of each row; its caption if it has none."""
    for phrases, captions in zip(_unchanged(rows, wanted, "concepts"), rows.chunks("text"), strict=True):
        pairs = zip(phrases.to_pylist(), captions.to_pylist(), strict=True)
        yield arrow.array([list(dict.fromkeys(some)) or [caption] for some, caption in pairs], TEXTS)


def _further_texts(rows: PairTable, wanted: ExtraData, column: str) -> Iterator[Any]:
    """The additional true texts of each row, without those that repeat the caption or each other."""
    same = wanted.positive_source == "same_image"
    own = (texts for chunk in rows.chunks(column) for texts in chunk.to_pylist())
    lists = own if wanted.positive_source == "column" else _of_same_image(rows, "" if same else column)
    any_text = False
    for captions in rows.chunks("text"):
        further = []
        for caption, texts in zip(captions.to_pylist(), islice(lists, len(captions)), strict=True):
            different: dict[tuple[str, ...], str] = {}
            for text in texts:
                different.setdefault(normalized_words(text), text)
            different.pop(normalized_words(caption), None)
            further.append(list(different.values()))
        any_text = any_text or any(further)
        yield arrow.array(further, TEXTS)
    if not any_text:
        others = f"; or use other captions of the same image: {wanted.flags}.positives same_image"
        remedy = (
            f"No image has captions that differ; use the field {column} instead: {wanted.flags}.positives column."
            if same
            else f"Add the field {column}, a list of texts that differ from the caption, to as many records as you "
            f"can; or generate them: `degla negatives {wanted.where} --positives --out FILE` and add {wanted.flags}."
            f"positives-file FILE{others if wanted.positive_source == 'column' else ''}."
        )
        raise InputError(f"{wanted.where}: no caption has additional true texts, but this recipe reads them. {remedy}")


def _targets(rows: PairTable, wanted: ExtraData) -> Iterator[Any]:
    """All captions of each row's image, and its additional true texts if a loss reads them from the column."""
    further = "positive" in wanted.reads and wanted.positive_source != "same_image"
    lists = _of_same_image(rows, "positives" if further else "")
    for captions in rows.chunks("text"):
        yield arrow.array(list(islice(lists, len(captions))), TEXTS)


def _of_same_image(rows: PairTable, column: str = "") -> Iterator[list[str]]:
    """For each row, all captions of its image, including its own, and then the texts of a column of these rows."""
    groups = rows.groups()
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(len(groups) + 1))
    for group in groups.tolist():
        members = order[starts[group] : starts[group + 1]].tolist()
        further = [text for row in members for text in rows.at(column, row)] if column else []
        yield [rows.at("text", row) for row in members] + further


def _labels(rows: PairTable, wanted: ExtraData) -> Iterator[Any]:
    """Number of each row's class: by name, else by number."""
    classes = wanted.classes
    number_of = {name: number for number, name in enumerate(classes)}
    by_number = {str(number): number for number in range(len(classes))}
    any_label = False
    for labels, ids in zip(rows.chunks("label"), rows.chunks("id"), strict=True):
        numbers = []
        for place, label in enumerate(labels.to_pylist()):
            number = -1 if label is None else number_of.get(label, by_number.get(label))
            if number is None:
                raise InputError(
                    f"{wanted.where}: caption {ids[place].as_py()!r}: label {label!r} is not one of the {len(classes)} "
                    f"classes ({wanted.flags}.classes), for example {', '.join(map(repr, classes[:3]))}."
                )
            numbers.append(number)
        any_label = any_label or max(numbers, default=-1) >= 0
        yield arrow.array(numbers, arrow.int64())
    if not any_label:
        raise InputError(
            f"{wanted.where}: no caption has a label, but this recipe reads it. Add the field label, the name or "
            "number of the image's class, to as many records as you can."
        )


def read_classes(path: Path) -> tuple[str, ...]:
    """Read the class names, in order: one per line, or a JSON list, or a JSON object with such a list as "classes".

    Raises:
        InputError: the file cannot be read, has another format, has fewer than two classes or a class twice.
    """
    if path.suffix.lower() == ".json":
        content = read_json(path)
        names = content.get("classes") if isinstance(content, dict) else content
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(
                f'{path}: expected a list of class names or {{"classes": [...]}}, found {describe_json(content)}.'
            )
    else:
        names = read_text(path).splitlines()
    names = [name.strip() for name in names if name.strip()]
    if len(names) < 2:
        raise InputError(
            f"{path}: has {counted(len(names), 'class', 'classes')}; at least two are needed, one per line."
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: class {twice!r} occurs twice.")
    return tuple(names)


Unit = Mapping[str, Any]
"""A `CaptionUnit` as a plain mapping."""


def draw_units(units: Sequence[Unit], count: int, chance: Random) -> list[tuple[str, str | None]]:
    """Draw units of a caption, each with one of its foils, as in CS-CLIP (arXiv 2602.23906).

    If any relations have a foil, only these are drawn; else things with a foil, half of which are joined to another
    thing by "and", in unit and foil alike, each in its own random order; else units without a foil. If there are too
    few, some repeat with a newly drawn foil.

    Args:
        units: of one caption.
        count: number of units to draw.
        chance: draws them.

    Returns:
        Text and foil of each; empty if the caption has no units.
    """
    foiled = [unit for unit in units if unit["foils"]]
    pool = [unit for unit in foiled if unit["kind"] == "relation"] or foiled or list(units)
    if not pool:
        return []
    chosen = chance.sample(pool, min(count, len(pool)))
    chosen += [chance.choice(chosen) for _ in range(count - len(chosen))]
    return [_with_foil(unit, units, chance) for unit in chosen]


def _with_foil(unit: Unit, units: Sequence[Unit], chance: Random) -> tuple[str, str | None]:
    text: str = unit["text"]
    foil: str | None = chance.choice(unit["foils"]) if unit["foils"] else None
    others = [other["text"] for other in units if other["kind"] == "thing" and other["text"] != text]
    if unit["kind"] == "relation" or not others or chance.random() < 0.5:
        return text, foil
    other = chance.choice(others)
    return _joined(text, other, chance), None if foil is None else _joined(foil, other, chance)


def _joined(text: str, other: str, chance: Random) -> str:
    return " and ".join(chance.sample([text, other], 2))


def text_number(text: str) -> int:
    """Return a 63-bit number that is equal for texts with the same words, in every process and epoch."""
    words = "\n".join(normalized_words(text))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


def mask_words(caption: Int[Tensor, " context"], words: Sequence[str], tokenize: Tokenize) -> Int[Tensor, " context"]:
    """Replace the first occurrence of each word by `MASKED`; words that do not occur are ignored.

    Args:
        caption: token ids, from a start token to an end token.
        words: parts of the caption, as written there.
        tokenize: the tokenizer that made the token ids.
    """
    masked, numbers = caption.clone(), caption.tolist()
    for parts in _tokens_of(words, tokenize):
        last = len(numbers) - len(parts)
        place = next((at for at in range(last + 1) if numbers[at : at + len(parts)] == parts), None)
        if parts and place is not None:
            masked[place : place + len(parts)] = MASKED
    return masked


def _tokens_of(words: Sequence[str], tokenize: Tokenize) -> Iterator[list[int]]:
    """The tokens of each word, without those of a text's start and end."""
    nothing, *rows = tokenize(["", *words]).tolist()
    end = nothing[1]
    for row in rows:
        yield row[1 : row.index(end, 1)] if end in row[1:] else []
