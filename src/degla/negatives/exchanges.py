"""What the swapping rules share: the grammar lists every exchange with what speaks against it; that list decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from degla.negatives import words
from degla.negatives.edits import write
from degla.negatives.meaning import content_of
from degla.negatives.phrases import Caption
from degla.negatives.replies import proposals
from degla.negatives.tokens import Token
from degla.negatives.verdicts import ACCEPTED, Verdict, refused

Exchanges = Callable[[Caption], Sequence[tuple[list[Token], str]]]
"""Every exchange in a caption as changed tokens, with the reason that speaks against it ("" where none does)."""


def read_exchange(caption: Caption, reply: str | None, rng: Random, *, exchanges: Exchanges) -> list[str]:
    """The exchanges that nothing speaks against, in random order, or the one in a model's reply."""
    return proposals(
        reply, lambda: [write(caption, tokens) for tokens, reason in exchanges(caption) if not reason], rng
    )


def check_exchange(caption: Caption, negative: str, *, exchanges: Exchanges) -> Verdict:
    """Whether a text is one of the exchanges, and what speaks against it."""
    content = words.content(negative)
    if content == caption.content:
        return refused("same_text")
    reasons = [reason for tokens, reason in exchanges(caption) if content_of(tokens) == content]
    if not reasons:
        return refused("not_rule")
    return ACCEPTED if "" in reasons else refused(reasons[0])
