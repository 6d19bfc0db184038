"""Other orders of a caption's phrases: which phrases can be moved, and whether an order still reads as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from degla.negatives.grammar.chunks import Chunk, determiner_fits, find_chunks
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import POSTURES, Meaning, meaning_and_disagreements
from degla.negatives.grammar.objections import judge_moves
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.suitability import misfit
from degla.negatives.grammar.ties import ties
from degla.negatives.grammar.tokens import Token
from degla.negatives.verdicts import ACCEPTED, Verdict, refused


def movable(caption: Caption) -> list[tuple[int, int]]:
    """Spans of phrases that can change places: things, with what "of" ties to them.

    None with "his" or "it" inside, as a pronoun must not come before what it stands for, and none that must stay.
    """
    spans: list[tuple[int, int]] = []
    tied_down = ties(caption)
    wrong = {chunk.start for chunk in caption.chunks if not determiner_fits(caption.tokens, chunk)}
    for chunk in caption.chunks:
        tied = chunk.start > 0 and caption.tokens[chunk.start - 1].lower == "of"
        if tied and spans and spans[-1][1] == chunk.start - 1:
            spans[-1] = (spans[-1][0], chunk.end)
        elif chunk.role == "thing":
            spans.append((chunk.start, chunk.end))
    return [
        (start, end)
        for start, end in spans
        if start not in wrong
        and not tied_down[start].stays
        and all(token.tag not in ("PRP$", "PRP") for token in caption.tokens[start:end])
    ]


def judge_order(caption: Caption, tokens: Sequence[Token]) -> Verdict:
    """Whether the caption's own tokens in another order say something else, with numbers and verbs that suit."""
    own, new = _own_state(caption), _state(tokens, find_chunks(tokens))
    if new.meaning == own.meaning:
        return refused("same_meaning")
    if any(bad > before for bad, before in zip(new.flaws, own.flaws, strict=True)):
        return refused("agreement")
    reason = judge_moves(caption, tokens) or misfit(caption, tokens)
    return refused(reason) if reason else ACCEPTED


@dataclass(frozen=True)
class _State:
    """What a text says, and how many loose ends, determiners and verbs in it do not suit."""

    meaning: Meaning
    flaws: tuple[int, int, int]


def _state(tokens: Sequence[Token], chunks: Sequence[Chunk]) -> _State:
    said, verbs = meaning_and_disagreements(tokens, chunks)
    misfits = sum(not determiner_fits(tokens, chunk) for chunk in chunks)
    return _State(said, (loose_ends(tokens, chunks), misfits, verbs))


@lru_cache(maxsize=64)
def _own_state(caption: Caption) -> _State:
    """A caption's state, kept because every order is compared with it."""
    return _state(caption.tokens, caption.chunks)


def loose_ends(tokens: Sequence[Token], chunks: Sequence[Chunk]) -> int:
    """Articles that begin no phrase, phrases with nothing between them, prepositions with nothing after them."""
    starts = {place for chunk in chunks for place in (chunk.start, chunk.core)}
    articles = sum(token.lower in ("a", "an", "the") and place not in starts for place, token in enumerate(tokens))
    touching = sum(one.end == other.start for one, other in pairwise(chunks))
    prepositions = sum(
        token.tag == "IN" and (place + 1 == len(tokens) or tokens[place + 1].tag in (".", ",", "CC"))
        for place, token in enumerate(tokens)
    )
    return articles + touching + prepositions


def lifeless_actors(tokens: Sequence[Token]) -> int:
    """How many verbs of doing something come right behind a thing: "a sofa eating" is one, "a dog eating" is none.

    Candidates with few are proposed first: a picture could show them.
    """
    found = 0
    for before, token in pairwise(token for token in tokens if token.lower not in ("is", "are", "was", "were")):
        doing = token.tag in ("VBG", "VBZ", "VBP") and token.lemma not in POSTURES and token.lemma not in ("have", "do")
        found += doing and before.is_noun and not lexicon().is_living(before.lemma)
    return found
