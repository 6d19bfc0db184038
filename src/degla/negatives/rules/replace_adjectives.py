"""Replaces one adjective by one that excludes it: a colour by a colour, a material by a material, "open" by "closed".

The new adjective is of the same group and another cluster of `lexicon_data/groups.toml`, or an antonym in WordNet;
whether it describes a living thing decides between the opposites of "old".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from degla.negatives.chunks import adjectives
from degla.negatives.edits import substitute, write
from degla.negatives.lexicon import lexicon
from degla.negatives.llm import Chat
from degla.negatives.phrases import Caption
from degla.negatives.replacement import pick_spread, replaced_word
from degla.negatives.replies import proposals
from degla.negatives.rules import Example
from degla.negatives.verdicts import ACCEPTED, Verdict, refused

_SHADES: Final = frozenset({"light", "dark", "bright", "deep", "pale"})

_CHILDREN: Final = frozenset({"boy", "girl", "child", "kid", "baby", "toddler", "infant", "teenager"})
"""No opposite of "young" suits them."""


@dataclass(frozen=True)
class ReplaceAdjectives:
    """Replace one adjective.

    Source: arXiv 2504.16801, rule (d). Differs: the new word is known to exclude the old one.
    """

    kind: str = "attribute"
    """What the negatives break."""

    def ask(self, caption: Caption, examples: Sequence[Example]) -> Chat | None:
        """None: the word tables give the replacements."""
        return None

    def read(self, caption: Caption, reply: str | None, rng: Random) -> list[str]:
        """Captions with one adjective replaced, or the one in a model's reply."""
        if reply is not None:
            return proposals(reply, list, rng)
        choices = [
            (place, lexicon().adjective_choices(caption.tokens[place].lower, living=living))
            for place, living in _places(caption)
        ]
        return [
            write(caption, substitute(caption.tokens, place, word, lemma=word))
            for place, word in pick_spread(choices, rng, accept=lambda place, word: _fits(caption, place, word))
        ]

    def check(self, caption: Caption, negative: str) -> Verdict:
        """Exactly one adjective is another one, which excludes it and is not in the caption."""
        place, word = replaced_word(caption, negative)
        if place < 0 or place not in dict(_places(caption)):
            return refused("same_text" if word == "" else "not_rule")
        if not lexicon().is_adjective(word):
            return refused("unknown_word")
        if word in caption.vocabulary:
            return refused("already_in_caption")
        relation = lexicon().adjective_relation(caption.tokens[place].lower, word)
        return refused(relation) if relation else ACCEPTED


def _fits(caption: Caption, place: int, word: str) -> bool:
    """Not in the caption already, and no "dark white"."""
    shaded = place > 0 and caption.tokens[place - 1].lower in _SHADES
    return word not in caption.vocabulary and not (shaded and word in ("black", "white", "gray"))


def _places(caption: Caption) -> Iterator[tuple[int, bool]]:
    """Indices of the adjectives that can be replaced, and whether they describe a living thing."""
    tokens, known = caption.tokens, lexicon()
    inside = {place for chunk in caption.chunks for place in range(chunk.start, chunk.end)}
    for chunk in caption.chunks:
        for place in adjectives(tokens, chunk):
            names = known.is_name(tokens[place].lower, tokens[place + 1].lemma)
            shades = tokens[place].lower in _SHADES and (
                known.is_in_group(tokens[place + 1].lower, "colour")
                or tokens[place + 1].lower in ("colored", "coloured")
            )
            grown = tokens[chunk.head].lemma in _CHILDREN and known.is_in_group(tokens[place].lower, "age_living")
            if not names and not shades and not grown:
                yield place, known.is_living(tokens[chunk.head].lemma)
    for place, token in enumerate(tokens):
        if place in inside or not token.is_adjective or token.role != "acomp":
            continue
        if token.lower in known.words["pointing"] or token.lower in ("left", "right"):
            continue
        subject = next((chunk for chunk in reversed(caption.chunks) if chunk.end <= place), None)
        yield place, subject is not None and known.is_living(tokens[subject.head].lemma)


RULE = ReplaceAdjectives()
