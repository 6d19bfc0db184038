"""What the swapping rules share: the grammar lists every exchange with what speaks against it; that list decides."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from degla.negatives.frames.grammar_rule import GrammarRule
from degla.negatives.grammar import words
from degla.negatives.grammar.edits import write
from degla.negatives.grammar.meaning import content_of
from degla.negatives.grammar.orders import lifeless_actors
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.tokens import Token
from degla.negatives.verdicts import ACCEPTED, Verdict, refused

Swap = tuple[list[Token], str]
"""Changed tokens, with the reason that speaks against them ("" where none does)."""


@dataclass(frozen=True)
class ExchangingRule(GrammarRule):
    """A rule that puts two pieces of a caption in each other's place; a member says which."""

    @abstractmethod
    def exchanges(self, caption: Caption) -> Iterator[Swap]:
        """Every exchange of two pieces, also those that something speaks against."""

    def applies(self, caption: Caption) -> bool:
        """Whether there are two things to exchange, or to take from."""
        return sum(chunk.role == "thing" for chunk in caption.chunks) > 1

    def propose(self, caption: Caption, rng: Random, most: int) -> list[str]:
        """The exchanges that nothing speaks against, those first whose verbs have somebody to do what they say."""
        free = [tokens for tokens, reason in _listed(self, caption) if not reason]
        rng.shuffle(free)
        free.sort(key=lifeless_actors)
        return list(dict.fromkeys(write(caption, tokens) for tokens in free))[:most]

    def check(self, caption: Caption, negative: str) -> Verdict:
        """Whether a text is one of the exchanges, and what speaks against it."""
        content = words.content(negative)
        if content == caption.content:
            return refused("same_text")
        reasons = [reason for tokens, reason in _listed(self, caption) if content_of(tokens) == content]
        if not reasons:
            return refused("not_rule")
        return ACCEPTED if "" in reasons else refused(reasons[0])


@lru_cache(maxsize=64)
def _listed(rule: ExchangingRule, caption: Caption) -> tuple[Swap, ...]:
    """A rule's exchanges in a caption, kept because `check` asks for them once more for every candidate."""
    return tuple(rule.exchanges(caption))
