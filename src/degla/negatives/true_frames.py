"""What rules for true texts that look changed are derived from: `TrueRule`; members lie in positives/."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol, runtime_checkable

from degla.negatives.frames import GrammarRule
from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Token
from degla.negatives.grammar.edits import write
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.usage import WordUsage
from degla.negatives.llm import Chat
from degla.negatives.rule import Example, load_rule
from degla.records import POSITIVE

_PLACES: Final = frozenset({"room", "place", "building", "weather", "time_of_day"})
_GROUNDS: Final = frozenset(
    {"grass", "snow", "sand", "water", "beach", "ocean", "sidewalk", "road", "river", "ice", "shade", "dirt", "mud"}
)  # fmt: skip


def is_place(noun: str) -> bool:
    """Whether a noun names a ground, a room or another place, where all of a scene is."""
    return noun in _GROUNDS or bool(lexicon().group_names(noun) & _PLACES)


@runtime_checkable
class ReadsSiblings(Protocol):
    """A rule that needs the other captions of the image."""

    def from_siblings(self, caption: Caption, siblings: Sequence[Caption], rng: Random, most: int) -> list[str]:
        """Texts that follow from both, in random order, at most `most`."""
        ...


@dataclass(frozen=True)
class TrueRule(GrammarRule):
    """A rule whose texts are true of every picture that the caption describes; the grammar makes them alone."""

    kind: str = POSITIVE
    against: tuple[str, ...] = ()
    """Rules for negatives that would know a contradiction of this sort: none may find the text false."""

    @abstractmethod
    def rewrites(self, caption: Caption, usage: WordUsage | None) -> Iterator[Sequence[Token]]:
        """Every rewrite as tokens; `usage` is how captions use words, where that is known."""

    def ask(self, caption: Caption, examples: Sequence[Example]) -> Chat | None:
        """None: no language model is asked."""
        return None

    def applies(self, caption: Caption) -> bool:
        """False, as no language model is asked."""
        return False

    def propose(self, caption: Caption, rng: Random, most: int, usage: WordUsage | None = None) -> list[str]:
        """Rewrites in random order, none that a rule for negatives finds false."""
        texts = list(dict.fromkeys(write(caption, tokens) for tokens in self.rewrites(caption, usage)))
        rng.shuffle(texts)
        return [text for text in texts if not self._is_contradicted(caption, text)][:most]

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Whether a text is none of the rewrites, or contradicts the caption."""
        if all(words.content(write(caption, tokens)) != content for tokens in self.rewrites(caption, None)):
            return "not_rule"
        return "contradicts" if self._is_contradicted(caption, negative) else ""

    def _is_contradicted(self, caption: Caption, text: str) -> bool:
        return any(load_rule(name).check(caption, text).accepted for name in self.against)
