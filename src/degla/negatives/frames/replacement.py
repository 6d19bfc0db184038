"""What the replacing rules share: places of a caption, the words that may stand there, and what a text has replaced."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from degla.negatives.frames.grammar_rule import GrammarRule
from degla.negatives.grammar import words
from degla.negatives.grammar.edits import substitute, write
from degla.negatives.grammar.meaning import content_of
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.tokens import Token
from degla.negatives.llm import Slot

Place = tuple[int, int]
"""Indices of the first token of a place and of the one after its last."""

_WORD: Final = re.compile(r"[a-z]+(?:-[a-z]+)*")


@dataclass(frozen=True)
class ReplacingRule(GrammarRule):
    """A rule that puts one word in a place of the caption; a member says which places, words and forms.

    An empty place (two equal indices) is one where a word is added before the token of that index."""

    @abstractmethod
    def places(self, caption: Caption) -> Mapping[Place, Sequence[str]]:
        """The places, each with the dictionary forms that the grammar would put there (none: only a model can)."""

    @abstractmethod
    def form(self, caption: Caption, place: Place, word: str) -> str | None:
        """A lower-case word, in whatever form, in the one that its place asks for; None where it cannot stand there."""

    def accepts(self, caption: Caption, place: Place, word: str) -> bool:
        """The last word on a choice of the grammar; asked only for choices that are drawn."""
        return True

    def applies(self, caption: Caption) -> bool:
        """Whether there is a place."""
        return bool(self.places(caption))

    def propose(self, caption: Caption, rng: Random, most: int) -> list[str]:
        """Captions with one word replaced: every place once before any place twice."""
        choices = list(self.places(caption).items())
        picked = pick_spread(choices, rng, accept=lambda place, word: self.accepts(caption, place, word), most=most)
        texts = (self.put(caption, place, word) for place, word in picked)
        return list(dict.fromkeys(text for text in texts if text is not None))

    def slots(self, caption: Caption) -> tuple[Slot, ...]:
        """The places where a word may be replaced."""
        return tuple(_slot(caption, place) for place in self.places(caption))

    def fill(self, caption: Caption, slot: Slot, word: str) -> str | None:
        """The caption with a proposed word in a place, in its form; None where the word cannot stand there."""
        word = word.strip().lower()
        place = next((place for place in self.places(caption) if _slot(caption, place) == slot), None)
        if place is None or not _WORD.fullmatch(word):
            return None
        text = self.put(caption, place, word)
        return None if text is None or words.content(text) == caption.content else text

    def put(self, caption: Caption, place: Place, word: str) -> str | None:
        """The caption with a word in a place, in its form; None where the word cannot stand there."""
        form = self.form(caption, place, word)
        return None if form is None else write(caption, substitute(caption.tokens, place, form, lemma=word))


def _slot(caption: Caption, place: Place) -> Slot:
    spans = words.spans(caption.text)
    start = spans[place[0]][0] if place[0] < len(spans) else len(caption.text)
    end = spans[place[1] - 1][1]
    if place[0] == place[1]:  # nothing stands there yet
        start = end = spans[place[0] - 1][1] if place[0] else 0
    after = caption.text[end:]
    if place[0] == place[1] == 0:
        after = " " + after
    return Slot(caption.text[:start].rstrip(), after, caption.text[start:end])


@dataclass(frozen=True, slots=True)
class Replacement:
    """The one stretch of a caption that differs in a negative.

    Attributes:
        start: index of its first token; where words were only added, of the token that they come before.
        end: index after its last token; `start` where words were only added.
        words: what stands there in the negative: lower case, without punctuation.
    """

    start: int
    end: int
    words: tuple[str, ...]


def find_change(tokens: Sequence[Token], content: Sequence[str]) -> Replacement:
    """What differs between tokens and the words of a negative, as `words.content` gives them: one stretch, shortest.

    Equal texts give an empty change at the end.
    """
    places = [place for place, token in enumerate(tokens) if words.is_word(token.text)]
    old = content_of(tokens)
    shorter = min(len(old), len(content))
    first = 0
    while first < shorter and old[first] == content[first]:
        first += 1
    last = 0
    while last < shorter - first and old[-1 - last] == content[-1 - last]:
        last += 1
    stop = len(old) - last
    start = places[first] if first < len(places) else len(tokens)
    end = places[stop - 1] + 1 if stop > first else start
    return Replacement(start, end, tuple(content[first : len(content) - last]))


def pick_spread(
    choices: Sequence[tuple[Place, Sequence[str]]],
    rng: Random,
    *,
    accept: Callable[[Place, str], bool],
    most: int,
) -> list[tuple[Place, str]]:
    """Draw (place, word) pairs at random without repeats: every place once before any place twice.

    Args:
        choices: for each place the words that may stand there.
        rng: draws the places and the words.
        accept: the last word on a pair; asked only for pairs that are drawn.
        most: how many pairs to draw.
    """
    queues = [(place, rng.sample(found, len(found))) for place, found in choices if found]
    rng.shuffle(queues)
    picked: list[tuple[Place, str]] = []
    while len(picked) < most and any(found for _, found in queues):
        for place, found in queues:
            while found:
                word = found.pop()
                if accept(place, word):
                    picked.append((place, word))
                    break
    return picked[:most]
