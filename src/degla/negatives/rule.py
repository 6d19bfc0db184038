"""What every rule for negatives promises: `NegativeRule`, and `FillingRule` where single words change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol, cast, runtime_checkable

from degla.negatives.grammar.phrases import Caption
from degla.negatives.llm import Chat, Slot
from degla.negatives.replies import MOST_CANDIDATES
from degla.negatives.verdicts import Verdict
from degla.shelf import POSITIVES, RULES


@dataclass(frozen=True)
class Example:
    """A caption with a negative that a rule makes of it, accepted by a person; negatives/examples holds them."""

    caption: str
    negative: str


@runtime_checkable
class FillingRule(Protocol):
    """A rule that replaces or adds single words, so that a language model can propose the words."""

    def slots(self, caption: Caption) -> tuple[Slot, ...]:
        """The places where a word may be replaced or added; none where the grammar finds no place."""
        ...

    def fill(self, caption: Caption, slot: Slot, word: str) -> str | None:
        """The caption with a proposed word in a place, inflected to fit; None where the word cannot stand there.

        What it returns may still be refused by `check`.
        """
        ...


@runtime_checkable
class NegativeRule(Protocol):
    """How negatives of one sort are made and verified."""

    @property
    def kind(self) -> str:
        """What a negative breaks: "order", "object", "attribute", "relation", "negation" or "number"; "positive" where
        the rule makes true texts."""
        ...

    def ask(self, caption: Caption, examples: Sequence[Example]) -> Chat | None:
        """The request to a language model; None where a model is of no use for this caption.

        Fixed instruction first, then the examples as turns of user and assistant, then the caption, so that a server's
        prefix cache serves it (`frames.GrammarRule`).
        """
        ...

    def read(self, caption: Caption, reply: str | None, rng: Random, *, most: int = MOST_CANDIDATES) -> list[str]:
        """Proposed negatives: those of the grammar in random order, or the one in a language model's reply.

        Args:
            caption: the tagged caption.
            reply: a language model's answer to `ask`; None for the grammar's own candidates.
            rng: draws among the grammar's candidates and decides their order.
            most: candidates of the grammar at most.
        """
        ...

    def check(self, caption: Caption, negative: str) -> Verdict:
        """Whether a text is what the rule promises, and why not."""
        ...


def load_rule(name: str) -> NegativeRule:
    """The rule of that name with its default settings, for negatives or for positives.

    Raises:
        InputError: there is no such rule; the message lists those that exist.
    """
    shelf = POSITIVES if name in POSITIVES.names() else RULES
    return cast(NegativeRule, shelf.load(name).RULE)
