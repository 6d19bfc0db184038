"""SHELF - rules: a tagged caption enters, proposed negatives and a verdict on each leave.

One file is one rule; the file's name is the rule's name. A file holds

* a module docstring whose first line says what the rule changes (`degla ls` prints it),
* one frozen dataclass that keeps the contract `NegativeRule` below; its fields are the rule's settings,
* ``RULE``, an instance of it with the default settings.

Nothing else has to be touched to add a rule: `degla.shelf.RULES` finds the file, `load_rule` gives its ``RULE``, and
the contract test runs over everything that lies here. A rule promises that it never returns its caption and that
whatever it proposes itself passes its own `check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol, cast, runtime_checkable

from degla.negatives.phrases import Caption
from degla.negatives.verdicts import Verdict
from degla.shelf import RULES


@dataclass(frozen=True)
class Example:
    """A hand-written caption with a negative that a rule would make of it."""

    caption: str
    negative: str


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


Chat = tuple[Message, ...]
"""A request to a language model."""


@runtime_checkable
class NegativeRule(Protocol):
    """How negatives of one sort are made and verified."""

    @property
    def kind(self) -> str:
        """What a negative breaks: "order", "object", "attribute", "relation", ..."""
        ...

    def ask(self, caption: Caption, examples: Sequence[Example]) -> Chat | None:
        """The request to a language model; None where the grammar alone makes the negatives."""
        ...

    def read(self, caption: Caption, reply: str | None, rng: Random) -> list[str]:
        """Proposed negatives, best first: those of the grammar, or the one in a language model's reply."""
        ...

    def check(self, caption: Caption, negative: str) -> Verdict:
        """Whether a text is what the rule promises, and why not."""
        ...


def load_rule(name: str) -> NegativeRule:
    """The rule of that name with its default settings.

    Raises:
        InputError: there is no such rule; the message lists those that exist.
    """
    return cast(NegativeRule, RULES.load(name).RULE)
