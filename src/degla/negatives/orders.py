"""Other orders of a caption's phrases: which phrases can be moved, and whether an order still reads as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from degla.negatives.chunks import Chunk, determiner_fits, find_chunks
from degla.negatives.meaning import disagreements, meaning
from degla.negatives.phrases import Caption
from degla.negatives.tokens import Token
from degla.negatives.verdicts import ACCEPTED, Verdict, refused


def movable(caption: Caption) -> list[tuple[int, int]]:
    """Spans of phrases that can change places: things, with what "of" ties to them.

    None with "his" or "it" inside: a pronoun must not come before what it stands for.
    """
    spans: list[tuple[int, int]] = []
    for chunk in caption.chunks:
        tied = chunk.start > 0 and caption.tokens[chunk.start - 1].lower == "of"
        if tied and spans and spans[-1][1] == chunk.start - 1:
            spans[-1] = (spans[-1][0], chunk.end)
        elif chunk.role == "thing":
            spans.append((chunk.start, chunk.end))
    return [
        (start, end)
        for start, end in spans
        if all(token.tag not in ("PRP$", "PRP") for token in caption.tokens[start:end])
    ]


def judge_order(caption: Caption, tokens: Sequence[Token]) -> Verdict:
    """Whether the caption's own tokens in another order say something else, with numbers and verbs that suit."""
    chunks = find_chunks(tokens)
    if meaning(tokens, chunks) == meaning(caption.tokens, caption.chunks):
        return refused("same_meaning")
    if loose_ends(tokens, chunks) > loose_ends(caption.tokens, caption.chunks):
        return refused("agreement")
    misfits = sum(not determiner_fits(tokens, chunk) for chunk in chunks)
    if misfits > sum(not determiner_fits(caption.tokens, chunk) for chunk in caption.chunks):
        return refused("agreement")
    if disagreements(tokens, chunks) > disagreements(caption.tokens, caption.chunks):
        return refused("agreement")
    return ACCEPTED


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
