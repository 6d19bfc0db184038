"""Add an adjective that another caption of the same image gives the same thing: "a dog" -> "a brown dog".

Both captions must name exactly one such thing, in the singular, and this one without an adjective; no caption of the
image may give it an adjective that excludes the new one. Captions of one image are found only within a batch of 256.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from degla.negatives.grammar.chunks import Chunk
from degla.negatives.grammar.edits import insert, write
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.words import ARTICLES
from degla.negatives.rule import SiblingRule


class SiblingAttribute(SiblingRule):
    """Add a property from another caption.

    Source: none; the counterpart of the rule add_attribute.

    Use when: negatives add words, so that the model does not learn that a longer text means false.
    """

    def from_siblings(self, caption: Caption, siblings: Sequence[Caption], rng: Random, most: int) -> list[str]:
        """Return the caption with one adjective from another caption of its image."""
        texts = []
        for lemma, chunk in _single_things(caption).items():
            if chunk.head != chunk.start + 1 or chunk.first.lower not in ARTICLES:
                continue
            if chunk.before.lower == "as":
                continue  # "dressed as a ninja": it is the child that is young
            if any(_names_several(sibling, lemma) for sibling in siblings):
                continue
            adjectives = [_adjectives_of(sibling, lemma) for sibling in siblings]
            everything = {word for words in adjectives for word in words}
            texts += [
                write(caption, insert(caption, caption.tokens, chunk.head, words, tag="JJ"))
                for words in adjectives
                if len(words) == 1 and words[0] not in caption.vocabulary and _is_undisputed(words[0], everything)
            ]
        texts = list(dict.fromkeys(texts))
        rng.shuffle(texts)
        return texts[:most]


def _is_undisputed(word: str, others: set[str]) -> bool:
    """Whether a word is a property that none of the others excludes."""
    return lexicon().is_attribute(word) and all(lexicon().adjective_relation(word, other) for other in others)


def _adjectives_of(caption: Caption, lemma: str) -> list[str]:
    """Return a caption's adjectives for the only such thing that it names."""
    chunk = _single_things(caption).get(lemma)
    return [] if chunk is None else [caption.tokens[place].lower for place in chunk.adjectives()]


def _names_several(caption: Caption, lemma: str) -> bool:
    """Whether a caption names more than one such thing, so the reference would be ambiguous."""
    nouns = [token for token in caption.tokens if token.is_noun and token.lemma == lemma]
    return len(nouns) > 1 or any(token.is_many for token in nouns)


def _single_things(caption: Caption) -> dict[str, Chunk]:
    """Return the singular things that the caption names once, by noun; compounds are excluded."""
    counts = Counter(chunk.noun.lemma for chunk in caption.chunks)
    return {
        chunk.noun.lemma: chunk
        for chunk in caption.chunks
        if counts[chunk.noun.lemma] == 1
        and chunk.role == "thing"
        and chunk.core == chunk.start
        and not chunk.noun.is_many
        and sum(token.is_noun for token in chunk.tokens) == 1
    }
