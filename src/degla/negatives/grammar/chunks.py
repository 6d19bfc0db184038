"""Noun phrases found from tags alone, so that a negative, whose words keep their tags, is cut the same way.

A measure or container joins the phrase that it measures: "a group of people" and "a bowl of soup" are one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.tokens import Token
from degla.negatives.grammar.words import DETERMINERS_OF_MANY, DETERMINERS_OF_ONE, is_known

NounRole = Literal["thing", "frame", "where", "pronoun"]
Number = Literal["one", "many", "any"]

_DETERMINERS: Final = frozenset({"DT", "PDT", "PRP$", "WP$"})
_NOUNS: Final = frozenset({"NN", "NNS", "NNP", "NNPS"})
_ADJECTIVES: Final = frozenset({"JJ", "JJR", "JJS"})
_PRONOUNS: Final = frozenset({"PRP", "WP", "EX"})


@dataclass(frozen=True, slots=True)
class Chunk:
    """A noun phrase.

    Attributes:
        start: index of its first token.
        end: index after its last token, which is its head noun.
        core: start of the part that holds the head: after "a bowl of" in "a bowl of hot soup", else `start`.
        role: "thing", or what is not to be changed: a frame of the picture, a place word, a pronoun.
    """

    start: int
    end: int
    core: int
    role: NounRole

    @property
    def head(self) -> int:
        """Index of the head noun."""
        return self.end - 1


def find_chunks(tokens: Sequence[Token]) -> tuple[Chunk, ...]:
    """The noun phrases of a tagged text, in order."""
    chunks: list[Chunk] = []
    place = 0
    while place < len(tokens):
        end = _end(tokens, place)
        if end <= place:
            place += 1
            continue
        chunk = Chunk(place, end, place, _role(tokens, end))
        if chunks and _is_measured(tokens, chunks[-1], chunk):
            last = chunks.pop()
            chunk = Chunk(last.start, end, place, chunk.role)
        chunks.append(chunk)
        place = end
    return tuple(chunks)


def _end(tokens: Sequence[Token], start: int) -> int:
    """Index after the head noun of the phrase that starts here; `start` where none does."""
    if tokens[start].tag in _PRONOUNS:
        return start + 1
    words = lexicon().words
    head = -1
    for place in range(start, len(tokens)):
        token = tokens[place]
        following = tokens[place + 1] if place + 1 < len(tokens) else None
        if token.tag in _DETERMINERS:
            if (
                place > start
                and tokens[place - 1].tag != "PDT"
                and tokens[place - 1].lower not in ("all", "both", "half")
            ):
                break
        elif token.tag in _NOUNS:
            if head >= 0 and token.lower in words["where"] and following is not None and following.lower == "of":
                break
            head = place
        elif token.tag == "POS" and head >= 0 and following is not None and following.tag in _NOUNS | _ADJECTIVES:
            head = -1
        elif head >= 0:
            if not _modifies_later(tokens, place):
                break
        elif token.tag == "CD" or token.tag in _ADJECTIVES:
            continue
        elif token.tag in ("VBN", "VBG"):
            if following is None or following.tag not in _NOUNS | _ADJECTIVES:
                break
            if place == start and token.role not in ("amod", "compound"):
                break
        elif token.tag == "RB" and place > start:
            if following is None or following.tag not in _ADJECTIVES | {"VBN"}:
                break
        elif token.tag == "CC" or token.text == ",":
            if (
                place == start
                or following is None
                or not (tokens[place - 1].tag in _ADJECTIVES and following.tag in _ADJECTIVES | {"VBN"})
            ):
                break
        else:
            break
    return head + 1 if head >= start else start


def _modifies_later(tokens: Sequence[Token], place: int) -> bool:
    """Whether a participle after a noun belongs to a noun to come, as in "a stone covered walkway"."""
    token = tokens[place]
    following = tokens[place + 1] if place + 1 < len(tokens) else None
    return (
        token.tag in ("VBN", "VBG")
        and token.role in ("amod", "acl", "nmod", "compound")
        and following is not None
        and following.tag in _NOUNS | _ADJECTIVES
        and token.governor > place
    )


def _role(tokens: Sequence[Token], end: int) -> NounRole:
    head = tokens[end - 1]
    words = lexicon().words
    if head.tag in _PRONOUNS:
        return "pronoun"
    following = tokens[end].lower if end < len(tokens) else ""
    if head.lemma in words["frame"] or head.lower in words["frame"]:
        return "frame"
    place_word = head.lemma in words["where"] or head.lower in words["where"]
    return "where" if place_word and (following == "of" or head.lower != "top") else "thing"


def _is_measured(tokens: Sequence[Token], measure: Chunk, chunk: Chunk) -> bool:
    """Whether "measure of chunk" is one phrase."""
    words = lexicon().words
    lemma = tokens[measure.head].lemma
    return (
        chunk.start == measure.end + 1
        and tokens[measure.end].lower == "of"
        and chunk.role in ("thing", "pronoun")
        and measure.role == "thing"
        and (lemma in words["measure"] or tokens[measure.head].lower in words["measure"] or lemma in words["container"])
    )


def number(tokens: Sequence[Token], chunk: Chunk) -> Number:
    """Whether a phrase counts as one or many for a verb; "any" where both are said ("a group of people is/are")."""
    head = tokens[chunk.head]
    if chunk.core != chunk.start:
        holder = tokens[chunk.core - 2]
        if holder.lemma not in lexicon().words["container"]:
            return "any"
        head = holder
    if head.lower in lexicon().words["invariant"]:
        return "any"
    if head.tag in _PRONOUNS:
        return (
            "any"
            if head.lower in ("you", "who", "which", "that", "there")
            else ("many" if head.lower in ("they", "we", "i", "them", "us") else "one")
        )
    return "many" if head.tag in ("NNS", "NNPS") or head.lower == "people" else "one"


def determiner(tokens: Sequence[Token], chunk: Chunk) -> Token | None:
    """The article, possessive or number that a phrase's core begins with."""
    first = tokens[chunk.core]
    return first if first.tag in _DETERMINERS | {"CD"} and chunk.core < chunk.head else None


def determiner_fits(tokens: Sequence[Token], chunk: Chunk) -> bool:
    """Whether "a", "two", "these" ... suits the number of the head noun."""
    first = determiner(tokens, chunk)
    head = tokens[chunk.head]
    if first is None or head.tag in _PRONOUNS or head.lower in lexicon().words["invariant"]:
        return True
    many = head.tag in ("NNS", "NNPS") or head.lower == "people"
    if first.lower in DETERMINERS_OF_ONE:
        following = tokens[chunk.core + 1]
        return not many or following.lower in ("few", "couple", "dozen", "many")
    return many or first.lower not in DETERMINERS_OF_MANY


def nouns(tokens: Sequence[Token], chunk: Chunk) -> list[tuple[int, int]]:
    """Spans (start, end) of the nouns of a phrase that can be changed: the head, and the container before "of".

    A noun before the head belongs to it: "birthday cupcake" is one span, and so is "hot dog".
    """
    if chunk.role != "thing" or tokens[chunk.head].lemma in lexicon().words["generic"]:
        return []
    spans = [_span(tokens, chunk.core, chunk.head)]
    if chunk.core != chunk.start:
        holder = chunk.core - 2
        if tokens[holder].lemma in lexicon().words["container"]:
            spans.append(_span(tokens, chunk.start, holder))
    return spans


def _span(tokens: Sequence[Token], first: int, head: int) -> tuple[int, int]:
    start = head
    while start - 1 >= first and _belongs(tokens[start - 1]) and tokens[start].tag != "POS":
        start -= 1
    if start == head and start - 1 >= first and tokens[start - 1].is_adjective:
        start -= lexicon().is_name(tokens[start - 1].lower, tokens[head].lemma)
    return start, head + 1


def _belongs(token: Token) -> bool:
    """Whether a word makes a compound with the noun behind it: "tennis racket", "mixing equipment"."""
    return token.is_noun or (token.tag == "VBG" and token.role == "compound")


def adjectives(tokens: Sequence[Token], chunk: Chunk) -> list[int]:
    """Indices of the describing adjectives of a phrase that can be changed, before its head noun."""
    if chunk.role != "thing":
        return []
    known = lexicon()
    start, _ = _span(tokens, chunk.core, chunk.head)
    person = known.is_person(tokens[chunk.head].lemma)
    return [
        place
        for place in range(chunk.core, start)
        if _describes(tokens, place)
        and not (place and _joins(tokens[place - 1]))
        and not (person and known.is_in_group(tokens[place].lower, "colour"))
    ]


def _joins(before: Token) -> bool:
    """Whether the word before an adjective makes one word with it: "lap top", "middle aged", "paper" in a name."""
    if before.is_noun or before.lower in lexicon().words["where"]:
        return True
    return before.is_adjective and not lexicon().is_attribute(before.lower) and not is_known(before.lower)


def _describes(tokens: Sequence[Token], place: int) -> bool:
    """Whether the word is an adjective of the head noun, and none that counts, points or belongs to a participle."""
    token, following = tokens[place], tokens[place + 1]
    attribute = lexicon().is_attribute
    return (
        (token.is_adjective or (token.tag in ("VBN", "VBG") and attribute(token.lower)))
        and token.lower not in lexicon().words["pointing"]
        and following.tag != "POS"
        and not (following.tag in ("VBN", "VBG") and not attribute(following.lower))
    )
