"""Examples of each rule: captions with negatives that a person accepted.

``<rule>.yaml`` holds the examples of one rule and can be edited by hand::

    rule: swap_nouns
    examples:
    - caption: A dog barks at a horse.
      negative: A horse barks at a dog.
      note: optional, for people

Your own folder, as written by `degla examples review`, replaces the shipped examples rule by rule. The shipped examples
were written for degla (MIT); none comes from a data set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Final

from pydantic import Field, field_validator

from degla.errors import InputError
from degla.files import write_text
from degla.negatives.rule import Example
from degla.parse import read_text, read_yaml
from degla.records import Record, validate
from degla.shelf import RULES, did_you_mean

SHIPPED: Final = Path(__file__).parent
"""Folder of the examples shipped with the package."""


class ExampleEntry(Record):
    """One example in a file.

    Attributes:
        caption: a true text.
        negative: a negative that the rule makes from it.
        note: a note for people, not used by any program.
    """

    caption: str = Field(min_length=1)
    negative: str = Field(min_length=1)
    note: str = ""

    @field_validator("caption", "negative")
    @classmethod
    def _one_line(cls, text: str) -> str:
        if text != " ".join(text.split()):
            raise ValueError("must be one line, without leading, trailing or repeated spaces")
        return text


class _ExampleFile(Record):
    rule: str
    examples: list[object]


def load_examples(rule: str, *, folder: Path | None = None) -> tuple[Example, ...]:
    """Load the accepted examples of a rule, in the order of the file; none if there is no file.

    Args:
        rule: the rule's name.
        folder: your own folder; a rule without a file in it keeps the shipped examples.

    Raises:
        InputError: the folder does not exist, a file in it is not named RULE.yaml, or a file is invalid (the
            message names the file, the example's number and the field).
    """
    file = _find_examples(rule, folder=folder)
    if not file.exists():
        return ()
    return tuple(Example(entry.caption, entry.negative) for entry in read_examples(file, rule=rule))


def _find_examples(rule: str, *, folder: Path | None) -> Path:
    """Return the file of a rule's examples: the folder's file if it exists, else the shipped one, which may not exist.

    Raises:
        InputError: the folder does not exist, or a file in it is not named RULE.yaml.
    """
    if folder is None:
        return SHIPPED / f"{rule}.yaml"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of examples.")
    for file in sorted(folder.glob("*.y*ml")):
        if file.stem not in RULES.names():
            near = did_you_mean(file.stem, RULES.names())
            raise InputError(f"{file}: {file.stem!r} is not a rule. Name a file of examples after its rule.{near}")
        if file.suffix != ".yaml":
            raise InputError(f"{file}: would not be read. Rename it to {file.stem}.yaml.")
    own = folder / f"{rule}.yaml"
    return own if own.exists() else SHIPPED / own.name


def draw_examples(examples: Sequence[Example], *, count: int, rng: Random) -> tuple[Example, ...]:
    """Draw `count` different examples in random order; all of them if there are fewer."""
    return tuple(rng.sample(examples, min(count, len(examples))))


def examples_digest(rules: Iterable[str], *, folder: Path | None = None) -> str:
    """Return the SHA-256 (hexadecimal) of the examples of some rules, ignoring notes and comments."""
    plain = {rule: [(one.caption, one.negative) for one in load_examples(rule, folder=folder)] for rule in rules}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_examples(file: Path, *, rule: str) -> tuple[ExampleEntry, ...]:
    """Read and check one file of examples.

    Raises:
        InputError: the file cannot be read, is not YAML, is for another rule, repeats an example, or has an invalid
            example.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: must have 'rule: {rule}' and 'examples:', a list of captions and negatives.")
    document = validate(_ExampleFile, content, where=str(file))
    if document.rule != rule:
        raise InputError(f"{file}: has examples of the rule {document.rule!r}, not of {rule!r}.")
    entries: list[ExampleEntry] = []
    numbers: dict[tuple[str, str], int] = {}
    for number, row in enumerate(document.examples, start=1):
        entry = validate(ExampleEntry, row, where=f"{file} example {number}")
        pair = (entry.caption, entry.negative)
        if entry.caption == entry.negative:
            raise InputError(f"{file} example {number}: field 'negative': must differ from the caption.")
        if pair in numbers:
            raise InputError(f"{file} example {number}: repeats example {numbers[pair]}. Remove one of them.")
        numbers[pair] = number
        entries.append(entry)
    return tuple(entries)


def write_examples(file: Path, entries: Sequence[ExampleEntry], *, rule: str) -> None:
    """Write the examples of a rule atomically; comments at the top of an existing file are kept.

    Raises:
        InputError: the file cannot be read or written.
    """
    import yaml

    rows = [entry.model_dump(exclude_defaults=True) for entry in entries]
    text = yaml.safe_dump({"rule": rule, "examples": rows}, sort_keys=False, allow_unicode=True, width=200)
    before = read_text(file).splitlines(keepends=True) if file.exists() else []
    write_text(file, "".join(takewhile(lambda line: line.startswith("#"), before)) + text)
