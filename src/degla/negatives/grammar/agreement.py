"""Which verbs suit the number of a noun phrase, and the verb in the other number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import number
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.tokens import Token

_MANY: Final = {"is": "are", "was": "were", "has": "have", "does": "do"}
_ONE: Final = {many: one for one, many in _MANY.items()}


def agreeing_verbs(caption: Caption, head: int) -> list[int]:
    """Indices of the finite verbs whose subject is the noun at `head`, or that say that there is such a thing."""
    tokens = caption.tokens
    found = []
    for place, token in enumerate(tokens):
        if token.tag not in ("VBZ", "VBP") and token.lower not in ("was", "were"):
            continue
        main = token.governor if token.role in ("aux", "auxpass") else place
        own = _subjects(tokens, main)
        while not own and _is_joined(tokens, main):
            main = tokens[main].governor  # "a child holds a spoon and looks up"
            own = _subjects(tokens, main)
        if any(tokens[index].tag in ("WDT", "WP") for index in own):
            own = [tokens[main].governor]
        elif any(tokens[index].role == "expl" for index in own):
            own = [index for index, one in enumerate(tokens) if one.governor == main and one.role in ("attr", "dobj")]
        if head in own:
            found.append(place)
    return found


def _subjects(tokens: Sequence[Token], verb: int) -> list[int]:
    return [index for index, one in enumerate(tokens) if one.governor == verb and one.role in _SUBJECTS]


def _is_joined(tokens: Sequence[Token], verb: int) -> bool:
    """Whether "and" or the like joins a verb to one before it."""
    first = tokens[verb].governor
    joined = tokens[verb].role == "conj" and 0 <= first < verb and tokens[first].is_verb
    return joined and any(token.tag == "CC" for token in tokens[first:verb])


def disagrees(caption: Caption) -> bool:
    """Whether a verb of the caption is in another number than its subject, so that no change makes it English."""
    listed = {token.governor for token in caption.tokens if token.role == "conj"}
    for chunk in caption.chunks:
        count = number(caption.tokens, chunk)
        if count == "any" or chunk.head in listed:
            continue
        for place in agreeing_verbs(caption, chunk.head):
            verb = caption.tokens[place]
            if (verb.tag == "VBZ" or verb.lower == "was") != (count == "one"):
                return True
    return False


_SUBJECTS: Final = ("nsubj", "nsubjpass", "expl")


def in_number(verb: Token, *, many: bool) -> Token | None:
    """A finite verb with a subject of one or of many; None where it cannot be changed ("'s")."""
    if verb.lower.startswith(("'", "’")):
        return None
    if verb.lower in (_ONE if many else _MANY) or verb.lower in ("did", "had"):
        return verb
    form = (_MANY if many else _ONE).get(verb.lower)
    if form is None:
        if (verb.tag == "VBP") == many or verb.tag not in ("VBZ", "VBP"):
            return verb
        form = verb.lemma if many else words.conjugate(verb.lemma, "VBZ")
    form = form.upper() if verb.text.isupper() and len(verb.text) > 1 else form
    return replace(verb, text=form, lower=form.lower(), tag="VBP" if many else "VBZ")
