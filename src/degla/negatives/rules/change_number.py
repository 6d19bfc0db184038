"""Change the number of things: "two dogs" -> "three dogs", "a dog is" -> "two dogs are".

Noun and verbs agree with the new number. Captions with a pronoun that would have to change too are skipped. Numbers
are exact: "two dogs" is false of three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice, zip_longest
from random import Random
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Token, governed, shares_article, token_at
from degla.negatives.grammar.edits import agree, inflect, subjects_of_verbs, write
from degla.negatives.grammar.exclusion import is_absent
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import content_of
from degla.negatives.grammar.phrases import Caption
from degla.negatives.rule import NegativeRule, take_turns

_WORDS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_COUNTS: Final[Mapping[str, int]] = {
    "a": 1,
    "an": 1,
    **{word: count for count, word in enumerate(_WORDS, start=1)},
    **{str(count): count for count in range(1, 13)},
}
_VAGUE: Final = frozenset({"several", "many", "some", "few", "numerous", "multiple", "various"})
"""Words for more than one."""
_TWO_OR_MORE: Final = frozenset({"some", "few", "multiple", "various"})
"""Vague words that may also be said of two things."""
_OF_ONE: Final = frozenset({"his", "her", "its", "he", "she", "it", "him", "himself", "herself", "itself"})
_OF_MANY: Final = frozenset({"their", "they", "them", "themselves", "both", "each", "other"})
_BETWEEN: Final = frozenset({"-", "–", "&", "x", "×"})
"""Marks between two numbers."""
_MOUNTING: Final = frozenset({"ride", "drive", "wear", "sit", "fly", "of"})
_FARTHEST: Final = 3
"""Maximum difference between the grammar's new number and the old one."""
_MOST: Final = 6
"""The grammar's highest number; nobody counts more things in an image at a glance."""


class ChangeNumber(NegativeRule):
    """Change the number of one sort of thing.

    Source: the counting and plurality parts of VALSE (arXiv 2112.07566). Differs: agreement is kept.

    Use when: the model should learn to count, and captions say how many things there are.
    """

    kind = "number"
    """What the negatives break."""
    instruction = (
        'Change how many there are of one thing: another number, or a number in place of "a". Put the noun, and the '
        "verb where it is the subject, into the singular or plural that the number asks for."
    )
    """Instruction to a language model."""

    def applies(self, caption: Caption) -> bool:
        """Whether a phrase has a number or "a"."""
        return any(True for _ in _countable_chunks(caption))

    def propose(self, caption: Caption, rng: Random, most: int) -> list[str]:
        """Return captions with another, close number: each phrase once before any twice, settings last."""
        queues: list[Iterator[str]] = []
        chunks = list(_countable_chunks(caption))
        rng.shuffle(chunks)
        for chunk in sorted(chunks, key=_is_setting):
            word = chunk.first.lower
            old = _COUNTS.get(word)
            counts = [count for count in range(1, _MOST + 1) if count != old and abs(count - (old or 1)) <= _FARTHEST]
            if old is None:
                counts = [1] if word in _TWO_OR_MORE else [1, 2]
            numbers = [str(count) if word.isdigit() else _WORDS[count - 1] for count in counts]
            numbers = [number for number in numbers if _suiting(caption, chunk, many=_COUNTS[number] > 1) is not None]
            rng.shuffle(numbers)
            queues.append(_with_numbers(caption, chunk, numbers))
        return list(islice(take_turns(queues), most))

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Require exactly one changed number that agrees with noun and verbs and makes the caption false."""
        near = False
        for chunk in _countable_chunks(caption):
            before = len(content_of(caption.tokens[: chunk.start]))
            new = content[before] if before < len(content) else ""
            if (new not in _COUNTS and new not in _VAGUE) or len(content) != len(caption.content):
                continue
            tokens = _with_number(caption, chunk, new)
            if tokens is not None and content_of(tokens) == content:
                return _judge(chunk.first.lower, new)
            near = near or _differs_by_form(caption, content, chunk.start)
        return "agreement" if near else "not_rule"


def _differs_by_form(caption: Caption, content: tuple[str, ...], place: int) -> bool:
    """Whether the text has another number here and otherwise the caption's words in any form."""
    own = [token for token in caption.tokens if words.is_word(token.text)]
    number = caption.tokens[place]
    if content[own.index(number)] == number.lower:
        return False
    return all(
        token is number
        or new == token.content
        or (token.is_noun and words.singular(new) == token.lemma)
        or (token.is_verb and words.verb(new) in (token.lemma, words.verb(token.lower)))
        for token, new in zip(own, content, strict=True)
    )


def _judge(old: str, new: str) -> str:
    """Return why one number does not exclude the other; "" if it does. Both are in the tables."""
    before, after = _COUNTS.get(old), _COUNTS.get(new)
    if before == after:
        return "still_true" if before is None else "synonym"
    if new in ("a", "an"):
        return "still_true"  # if there are two dogs, there is a dog
    if before is not None and after is not None:
        return ""
    number, vague = (after, old) if before is None else (before, new)
    fewest = 2 if vague in _TWO_OR_MORE else 3
    return "" if number is not None and number < fewest else "still_true"


def _countable_chunks(caption: Caption) -> Iterator[Chunk]:
    """Yield phrases that begin with a number whose noun can be changed."""
    tokens, tables = caption.tokens, lexicon()
    for chunk, following in zip_longest(caption.chunks, caption.chunks[1:]):
        first, head = chunk.first, chunk.holder_noun
        if chunk.role != "thing" or chunk.holder == chunk.start or not head.is_noun or head.tag.startswith("NNP"):
            continue
        if first.lower not in _COUNTS and first.lower not in _VAGUE:
            continue
        ranged = chunk.before.text in _BETWEEN and token_at(tokens, chunk.start - 2).tag == "CD"  # "3-4 rooms"
        if ranged or chunk.before.tag in ("DT", "CD", "PRP$") or chunk.after.tag == "POS":
            continue  # "a a foggy road", "a dog's running"
        before = tokens[chunk.holder - 1]
        doubtful = before.is_noun or before.tag == "CD" or not tables.is_concrete(head.lemma)
        known = not doubtful or tables.noun_groups(head.lemma)
        if not known and words.conjugate(words.verb(head.lower), "VBG") == head.lower:
            continue  # "a man standing", "one riding": a verb that the tagger took for a noun
        if shares_article(chunk, following) or is_absent(chunk):
            continue  # "a fork and knife" has no plural; "without a fork" is also "without two forks"
        if any(token.tag == "POS" or token.lower in _WORDS for token in tokens[chunk.start + 1 : chunk.holder]):
            continue
        measured = chunk.holder != chunk.head and head.lemma not in tables.words["container"]
        if measured or tables.is_mass(head.lemma) or head.lemma in tables.words["generic"]:
            continue
        plural_only = head.lemma in tables.words["plural_only"] and head.lemma != "people"
        if plural_only or not tables.is_noun(head.lemma) or not chunk.determiner_fits:
            continue
        if head.is_many != (_COUNTS.get(first.lower, 2) > 1) and head.lemma not in tables.words["invariant"]:
            continue  # "various color"
        yield chunk


def _is_setting(chunk: Chunk) -> bool:
    """Whether the phrase is a place, is ridden or worn, or no thing: its number seldom differs from the caption's."""
    before, noun = chunk.before, chunk.holder_noun.lemma
    placed = lexicon().group_names(chunk.noun.lemma) & {"room", "place"}
    return (
        bool(placed)
        or not (lexicon().is_concrete(noun) or noun in lexicon().words["measure"])
        or (before.tag == "IN" and before.lower != "with")
        or before.lemma in _MOUNTING
    )


def _with_numbers(caption: Caption, chunk: Chunk, numbers: Sequence[str]) -> Iterator[str]:
    """Yield the caption with each number; most are never needed."""
    for number in numbers:
        tokens = _with_number(caption, chunk, number)
        if tokens is not None:
            yield write(caption, tokens)


def _with_number(caption: Caption, chunk: Chunk, number: str) -> list[Token] | None:
    """Return the tokens with another number and agreeing noun and verbs; None if a word cannot be made to agree."""
    old = chunk.first
    suiting = _suiting(caption, chunk, many=number in _VAGUE or _COUNTS[number] > 1)
    if suiting is None or number == old.lower or (number == "few" and old.lower != "few"):
        return None
    text = number
    if old.text.isupper() and (len(old.text) > 1 or caption.text.isupper()):
        text = number.upper()
    elif old.text[0].isupper():
        text = number.capitalize()
    new = replace(old, text=text, lower=number, tag="CD" if number != "a" else "DT")
    return [*suiting[: chunk.start], new, *suiting[chunk.start + 1 :]]


@lru_cache(maxsize=64)
def _suiting(caption: Caption, chunk: Chunk, *, many: bool) -> tuple[Token, ...] | None:
    """Return the tokens with noun and verbs for one or for many, whatever the number; None if a word cannot change."""
    head = chunk.holder_noun
    if many == head.is_many:
        return caption.tokens
    if any(token.lower in (_OF_ONE if many else _OF_MANY) for token in caption.tokens[chunk.end :]):
        return None  # a pronoun that would have to change with it
    if not chunk.start and any(not own for _, own in subjects_of_verbs(caption)):
        return None  # a verb whose subject the parser did not find may be this phrase's
    if head.role == "attr" and any(
        caption.tokens[at].tag in ("PRP", "NN", "NNP") and caption.tokens[at].lower != "it"
        for at in governed(caption.tokens, head.governor, "nsubj")
    ):
        return None  # "he is a member"
    tokens = agree(caption, chunk, many=many)
    if tokens is None:
        return None
    one, several = replace(head, tag="NN"), replace(head, tag="NNS")  # whatever tag "people" has
    tokens[chunk.holder] = inflect(one, like=several) if many else inflect(several, like=one)
    return tuple(tokens)
