"""Shuffle the words of captions in four ways, as COCO-Order and Flickr30k-Order do.

The four shuffles draw from two random streams that continue from caption to caption, so a shuffle depends on the seed,
on all captions before it and on the versions of the tagger and of numpy. The streams start like the official ones, but
there importing spaCy draws from Python's global stream, and here it does not: published numbers are reproduced within
the spread of seeds, not shuffle by shuffle.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Final, TypeVar

import numpy as np

from degla.tagger import load_tagger

_NOUNS: Final = frozenset({"NN", "NNS", "NNP", "NNPS"})
_ADJECTIVES: Final = frozenset({"JJ", "JJR", "JJS"})
_LARGEST_WORDS: Final = 30
_REMOVED: Final = re.compile(r"[.!\"()*#:;~]")
Element = TypeVar("Element")


@dataclass(frozen=True)
class TaggedCaption:
    """Words of a caption with their Penn Treebank tags, one each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


Tagger = Callable[[tuple[str, ...]], Sequence[TaggedCaption]]
"""Returns words and tags of every caption, in the order of the captions."""


def prepare(caption: str) -> str:
    """Return the text that is scored: lower case, without . ! " ( ) * # : ; ~, single spaces, at most 30 words."""
    spaced = re.sub(r"\s{2,}", " ", _REMOVED.sub(" ", caption.lower()))
    return " ".join(spaced.rstrip("\n").strip(" ").split(" ")[:_LARGEST_WORDS])


def perturb(captions: Sequence[str], *, seed: int, tagger: Tagger | None = None) -> Iterator[tuple[str, str, str, str]]:
    """Shuffle every caption in four ways, each prepared for scoring.

    The ways are: nouns among themselves and then adjectives among themselves; all other words; words inside groups of
    three; the groups of three. A shuffle may leave a caption unchanged.

    Args:
        captions: as written.
        seed: of both random streams; the published number is from seed 1.
        tagger: finds nouns and adjectives; None: spaCy's small English model.

    Raises:
        InputError: spaCy's model is not installed.
    """
    numpy_stream, python_stream = np.random.RandomState(seed), random.Random(seed)
    for caption, tagged in zip(captions, (tagger or tag)(tuple(captions)), strict=True):
        nouns = [place for place, name in enumerate(tagged.tags) if name in _NOUNS]
        adjectives = [place for place, name in enumerate(tagged.tags) if name in _ADJECTIVES]
        others = [place for place, name in enumerate(tagged.tags) if name not in _NOUNS | _ADJECTIVES]
        content = _shuffle_places(_shuffle_places(tagged.words, nouns, numpy_stream), adjectives, numpy_stream)
        rest = _shuffle_places(tagged.words, others, numpy_stream)
        inside = _threes(split_words(caption))
        for group in inside:
            python_stream.shuffle(group)
        groups = _threes(split_words(caption))
        python_stream.shuffle(groups)
        shuffled = (content, rest, chain.from_iterable(inside), chain.from_iterable(groups))
        first, second, third, fourth = (prepare(" ".join(words)) for words in shuffled)
        yield first, second, third, fourth


def _shuffle_places(words: Sequence[str], places: Sequence[int], stream: np.random.RandomState) -> list[str]:
    shuffled = list(words)
    for place, source in zip(places, stream.permutation(len(places)), strict=True):
        shuffled[place] = words[places[source]]
    return shuffled


def _threes(words: Sequence[Element]) -> list[list[Element]]:
    return [list(words[start : start + 3]) for start in range(0, len(words), 3)]


_OPENING_QUOTE = re.compile(r'(?:(?<=^)|(?<=[\s(\[{<]))"')
_SENTENCE_END = re.compile(r"(?<=[^.])\.(?=[\])}>\"'\s]*$)|(?<=\w\w\w)\.(?=\s+[A-Z])")
_ALONE = re.compile(r"``|''|\.{2,}|--|[;@#$%&?!*()\[\]{}<>«»“”‘’„]|[:,](?!\d)")
_CLITIC = re.compile(r"(?i)(?<=[^'\s])(?:'(?:s|m|d|ll|re|ve)?|n't)$")
_JOINED_WORDS = {"cannot": 3, "gimme": 3, "gonna": 3, "gotta": 3, "lemme": 3, "wanna": 3}


def split_words(text: str) -> list[str]:
    """Split into words and punctuation by the Penn Treebank conventions, like NLTK's word tokenizer.

    Clitics and punctuation are separate tokens, a full stop only at the end of a sentence; an opening double quote
    becomes two backticks, a closing one two apostrophes.
    """
    marked = _OPENING_QUOTE.sub(" `` ", text.strip())
    marked = _SENTENCE_END.sub(" . ", marked).replace('"', " '' ")
    pieces: list[str] = []
    for word in _ALONE.sub(r" \g<0> ", marked).split():
        clitic = None if word == "''" else _CLITIC.search(word)
        stem = word[: clitic.start()] if clitic else word
        cut = _JOINED_WORDS.get(stem.lower(), len(stem))
        pieces += [piece for piece in (stem[:cut], stem[cut:], word[len(stem) :]) if piece]
    return pieces


@lru_cache(maxsize=2)
def tag(captions: tuple[str, ...]) -> tuple[TaggedCaption, ...]:
    """Tag captions with spaCy; the last results are cached, since several seeds use the same captions.

    Raises:
        InputError: the model is not installed.
    """
    # Only the tagger is needed for tags.
    documents = load_tagger(exclude=("ner", "lemmatizer", "parser")).pipe(captions, batch_size=256)
    return tuple(
        TaggedCaption(tuple(word.text for word in document), tuple(word.tag_ for word in document))
        for document in documents
    )
