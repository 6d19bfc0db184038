"""One trial: damage a file, read it, report the outcome."""

from __future__ import annotations

import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from degla.errors import DeglaError
from degla.parse import with_short_words
from tests.hostile.mutations import MUTATIONS

LONGEST_MESSAGE = 1_500
SECONDS = 60


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: for the table.
        file: a good one; it is damaged in place and restored.
        read: its reader, or a verb; the value is compared with that of the good file.
        form: key of `MUTATIONS`.
        exact: no other value may come of a damaged file: what it holds cannot be seen to be wrong by a person. Else
            its content is the user's own words or pictures, and other content is another value.
        good: values of the undamaged file, where it has several.
    """

    name: str
    file: Path
    read: Callable[[], Any]
    form: str
    exact: bool = False
    good: Callable[[], list[Any]] | None = None


@dataclass
class Tally:
    """The outcomes of the trials of one kind.

    Attributes:
        refused: with one of our one-line errors.
        harmless: the value is that of the undamaged file.
        other: a different value, for content that may change.
        failed: what was done and what happened.
    """

    refused: int = 0
    harmless: int = 0
    other: int = 0
    failed: list[str] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)

    @property
    def trials(self) -> int:
        return self.refused + self.harmless + self.other + len(self.failed)


class HangError(Exception):
    """A reader took too long."""


def run_trials(kind: Kind, *, count: int, seed: int) -> Tally:
    """Damage the file `count` times, differently each time."""
    content = kind.file.read_bytes()
    expected = kind.good() if kind.good else [kind.read()]
    tally = Tally()
    try:
        for number in range(count):
            rng = Random(f"{seed} {kind.name} {number}")
            what, damaged = rng.choice(MUTATIONS[kind.form])(content, rng)
            if damaged == content:
                tally.harmless += 1
                continue
            kind.file.write_bytes(damaged)
            _judge(kind, expected, f"#{number} {what}", tally)
    finally:
        kind.file.write_bytes(content)
    return tally


def _judge(kind: Kind, expected: list[Any], what: str, tally: Tally) -> None:
    try:
        with limited():
            value = kind.read()
    except DeglaError as error:
        message = with_short_words(str(error))  # as the command line has it
        if "\n" in message or len(message) > LONGEST_MESSAGE or not message.strip():
            tally.failed.append(f"{what}: a message of {len(message)} characters: {message[:300]!r}")
        else:
            tally.refused += 1
            tally.messages[message.replace(str(kind.file), kind.file.name)] += 1
    except Exception as error:  # what a user would see as a traceback
        place = traceback.extract_tb(error.__traceback__)[-1]
        tally.failed.append(f"{what}: {type(error).__name__}: {str(error)[:200]} ({place.filename}:{place.lineno})")
    else:
        if value in expected:
            tally.harmless += 1
        elif kind.exact:
            tally.failed.append(f"{what}: read without a word, as something else")
        else:
            tally.other += 1


@contextmanager
def limited() -> Iterator[None]:
    """Raise if the block takes longer than `SECONDS`."""

    def ring(number: int, frame: object) -> None:
        raise HangError(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
