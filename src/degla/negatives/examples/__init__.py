"""Examples: a rule's name enters, captions with the negatives that a person accepted leave.

``<rule>.yaml`` holds the examples of one rule, and can be edited by hand::

    rule: swap_nouns
    examples:
    - caption: A dog barks at a horse.
      negative: A horse barks at a dog.
      note: optional, for people

A folder of your own, as `degla examples review` writes it, takes the place of the shipped ones, rule by rule. The
shipped examples were written for degla (MIT); none comes from a data set.
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
"""Folder of the examples that come with the package."""


class ExampleEntry(Record):
    """One example as a file holds it.

    Attributes:
        caption: a true text.
        negative: what the rule makes of it.
        note: for people; no program reads it.
    """

    caption: str = Field(min_length=1)
    negative: str = Field(min_length=1)
    note: str = ""

    @field_validator("caption", "negative")
    @classmethod
    def _one_line(cls, text: str) -> str:
        if text != " ".join(text.split()):
            raise ValueError("must be one line, without spaces at its ends or two in a row")
        return text


class _ExampleFile(Record):
    rule: str
    examples: list[object]


def load_examples(rule: str, *, folder: Path | None = None) -> tuple[Example, ...]:
    """The accepted examples of a rule, in the order of the file; none where nobody has written any.

    Args:
        rule: the rule's name.
        folder: a folder of your own; a rule without a file in it keeps the shipped examples.

    Raises:
        InputError: there is no such folder, a file of it is named like no rule, or a file is wrong (the file, the
            example's number and the field are named).
    """
    file = find_examples(rule, folder=folder)
    if not file.exists():
        return ()
    return tuple(Example(entry.caption, entry.negative) for entry in read_examples(file, rule=rule))


def find_examples(rule: str, *, folder: Path | None = None) -> Path:
    """The file of a rule's examples: the folder's own where it has one, else the shipped one, which may not exist.

    Raises:
        InputError: there is no such folder, or a file of it is named like no rule.
    """
    if folder is None:
        return SHIPPED / f"{rule}.yaml"
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of examples.")
    for file in sorted(folder.glob("*.yaml")):
        if file.stem not in RULES.names():
            near = did_you_mean(file.stem, RULES.names())
            raise InputError(f"{file}: a file of examples is named like its rule, and {file.stem!r} is none.{near}")
    own = folder / f"{rule}.yaml"
    return own if own.exists() else SHIPPED / own.name


def draw_examples(examples: Sequence[Example], *, count: int, rng: Random) -> tuple[Example, ...]:
    """`count` different examples at random, in random order; all of them where there are fewer."""
    return tuple(rng.sample(examples, min(count, len(examples))))


def examples_digest(rules: Iterable[str], *, folder: Path | None = None) -> str:
    """SHA-256 (hexadecimal) of the captions and negatives of some rules; notes and comments change nothing."""
    plain = {rule: [(one.caption, one.negative) for one in load_examples(rule, folder=folder)] for rule in rules}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_examples(file: Path, *, rule: str) -> tuple[ExampleEntry, ...]:
    """Read and check one file of examples.

    Raises:
        InputError: the file cannot be read, is not YAML, holds another rule, repeats an example, or an example is
            wrong.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: must hold 'rule: {rule}' and 'examples:', a list of captions and negatives.")
    listed = validate(_ExampleFile, content, where=str(file))
    if listed.rule != rule:
        raise InputError(f"{file}: holds examples of the rule {listed.rule!r}, not of {rule!r}.")
    entries: list[ExampleEntry] = []
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(listed.examples, start=1):
        entry = validate(ExampleEntry, row, where=f"{file} example {number}")
        pair = (entry.caption, entry.negative)
        if entry.caption == entry.negative:
            raise InputError(f"{file} example {number}: field 'negative': is the caption itself.")
        if pair in seen:
            raise InputError(f"{file} example {number}: is example {seen[pair]} again; remove one of them.")
        seen[pair] = number
        entries.append(entry)
    return tuple(entries)


def write_examples(file: Path, entries: Sequence[ExampleEntry], *, rule: str) -> None:
    """Write the examples of a rule, complete or not at all; comments at the head of an existing file are kept.

    Raises:
        InputError: the file cannot be read or written.
    """
    import yaml

    rows = [entry.model_dump(exclude_defaults=True) for entry in entries]
    text = yaml.safe_dump({"rule": rule, "examples": rows}, sort_keys=False, allow_unicode=True, width=200)
    before = read_text(file).splitlines(keepends=True) if file.exists() else []
    write_text(file, "".join(takewhile(lambda line: line.startswith("#"), before)) + text)
