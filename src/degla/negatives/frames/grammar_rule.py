"""The frame that all rules of the shelf share: asking a language model, and reading its reply or the grammar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from degla.negatives.example import Example
from degla.negatives.grammar.phrases import Caption
from degla.negatives.llm import Chat
from degla.negatives.prompts import build_chat
from degla.negatives.replies import MOST_CANDIDATES, read_reply
from degla.negatives.verdicts import Verdict


@dataclass(frozen=True)
class GrammarRule(ABC):
    """A `NegativeRule` whose grammar can propose without a language model; a member of the shelf says the rest."""

    kind: str = ""
    """What the negatives break: "order", "object", "attribute", "relation", "negation" or "number"."""
    instruction: str = ""
    """What a language model is told to change, in one or two sentences."""

    def ask(self, caption: Caption, examples: Sequence[Example]) -> Chat | None:
        """The request to a language model; None where the caption has nothing that the rule could change."""
        return build_chat(self.instruction, examples, caption) if self.applies(caption) else None

    def read(self, caption: Caption, reply: str | None, rng: Random, *, most: int = MOST_CANDIDATES) -> list[str]:
        """At most `most` candidates of the grammar, each passing `check`; or the one text in a model's reply."""
        if reply is None:
            return self.propose(caption, rng, most)
        text = read_reply(reply)
        return [text] if text else []

    @abstractmethod
    def applies(self, caption: Caption) -> bool:
        """Whether a language model could find something to change: what must be there at the least."""

    @abstractmethod
    def propose(self, caption: Caption, rng: Random, most: int) -> list[str]:
        """The grammar's candidates in random order, without repeats, at most `most`."""

    @abstractmethod
    def check(self, caption: Caption, negative: str) -> Verdict:
        """Whether a text is what the rule promises, and why not."""
