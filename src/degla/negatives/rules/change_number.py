"""Changes how many things there are: "two dogs" -> "three dogs", "a dog is" -> "two dogs are".

Noun and verbs take the new number. A caption with a pronoun that would have to change with it is left alone. Numbers
mean exactly that many: "two dogs" is false of three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from degla.negatives.frames.grammar_rule import GrammarRule
from degla.negatives.grammar import words
from degla.negatives.grammar.agreement import agreeing_verbs, in_number
from degla.negatives.grammar.chunks import Chunk, determiner_fits
from degla.negatives.grammar.edits import inflect, write
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import content_of
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.ties import shares_article
from degla.negatives.grammar.tokens import Token
from degla.negatives.verdicts import ACCEPTED, Verdict, refused

_WORDS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_COUNTS: Final[Mapping[str, int]] = {
    "a": 1,
    "an": 1,
    "the": 0,
    **{word: count for count, word in enumerate(_WORDS, start=1)},
    **{str(count): count for count in range(1, 13)},
}
_VAGUE: Final = frozenset({"several", "many", "some", "few", "numerous", "multiple", "various"})
"""Words for more than one."""
_TWO_OR_MORE: Final = frozenset({"some", "few", "multiple", "various"})
"""Of these, the ones that two things may be called too."""
_OF_ONE: Final = frozenset({"his", "her", "its", "he", "she", "it", "him", "himself", "herself", "itself"})
_OF_MANY: Final = frozenset({"their", "they", "them", "themselves", "both", "each", "other"})
_MOUNTING: Final = frozenset({"ride", "drive", "wear", "sit", "fly", "of"})
_FARTHEST: Final = 3
"""How far the grammar's new number may be from the old one."""
_MOST: Final = 6
"""The grammar's highest number; nobody counts more things in a picture at a glance."""


@dataclass(frozen=True)
class ChangeNumber(GrammarRule):
    """Change the number of one sort of thing.

    Source: the counting and plurality parts of VALSE (arXiv 2112.07566). Differs: agreement is kept.

    Use when: numbers are to be told apart, and captions say how many things there are.
    """

    kind: str = "number"
    """What the negatives break."""
    instruction: str = (
        'Change how many there are of one thing: another number, or a number in place of "a". Put the noun, and the '
        "verb where it is the subject, into the singular or plural that the number asks for."
    )
    """What a language model is told to change."""

    def applies(self, caption: Caption) -> bool:
        """Whether a phrase has a number or "a"."""
        return any(True for _ in _counted(caption))

    def propose(self, caption: Caption, rng: Random, most: int) -> list[str]:
        """Captions with another number, near the old one: each phrase once before any twice, places and mounts last."""
        queues: list[list[str]] = []
        counted = list(_counted(caption))
        rng.shuffle(counted)
        for chunk, place, noun in sorted(counted, key=lambda one: _is_setting(caption, one[0])):
            old = _count(caption.tokens[place])
            counts = [count for count in range(1, _MOST + 1) if count != old and abs(count - (old or 1)) <= _FARTHEST]
            if old is None:
                counts = [1] if caption.tokens[place].lower in _TWO_OR_MORE else [1, 2]
            texts = [
                write(caption, tokens)
                for count in counts
                if (tokens := _changed(caption, chunk, place, noun, _written(caption.tokens[place], count))) is not None
            ]
            rng.shuffle(texts)
            queues.append(texts)
        found = [queue[turn] for turn in range(_MOST) for queue in queues if turn < len(queue)]
        return found[:most]

    def check(self, caption: Caption, negative: str) -> Verdict:
        """Exactly one number is another one, noun and verbs suit it, and the old one is not true as well."""
        content = words.content(negative)
        if content == caption.content:
            return refused("same_text")
        near = False
        for chunk, place, noun in _counted(caption):
            before = sum(words.is_word(token.text) for token in caption.tokens[:place])
            new = content[before] if before < len(content) else ""
            if (new not in _COUNTS and new not in _VAGUE) or len(content) != len(caption.content):
                continue
            tokens = _changed(caption, chunk, place, noun, new)
            if tokens is not None and content_of(tokens) == content:
                return _judge(caption.tokens[place].lower, new)
            near = near or _differs_by_form(caption, content, place)
        return refused("agreement" if near else "not_rule")


def _differs_by_form(caption: Caption, content: tuple[str, ...], place: int) -> bool:
    """Whether the text has another number here and elsewhere the caption's words in any form."""
    own = [token for token in caption.tokens if words.is_word(token.text)]
    number = caption.tokens[place]
    if content[own.index(number)] == number.lower:
        return False
    return all(
        token is number
        or new in (token.lower, "a" if token.lower == "an" else token.lower)
        or (token.is_noun and words.singular(new) == token.lemma)
        or (token.is_verb and words.verb(new) in (token.lemma, words.verb(token.lower)))
        for token, new in zip(own, content, strict=True)
    )


def _judge(old: str, new: str) -> Verdict:
    """Whether one number excludes the other; both are in the tables."""
    before, after = _COUNTS.get(old), _COUNTS.get(new)
    if before == after:
        return refused("synonym" if before is not None else "still_true")
    if before is None or after is None:
        known = after if before is None else before
        vague = old if before is None else new
        fewest = 2 if vague in _TWO_OR_MORE else 3
        return ACCEPTED if known is not None and 0 < known < fewest and new != "a" else refused("still_true")
    if new in ("a", "an"):
        return refused("still_true")  # where there are two dogs, there is a dog
    return ACCEPTED


def _counted(caption: Caption) -> Iterator[tuple[Chunk, int, int]]:
    """Phrases that say how many, with the indices of the number and of the noun that it counts."""
    tokens = caption.tokens
    known = lexicon()
    for chunk, following in zip(caption.chunks, (*caption.chunks[1:], None), strict=True):
        first = tokens[chunk.start]
        noun = chunk.head if chunk.core == chunk.start else chunk.core - 2
        head = tokens[noun]
        if chunk.role != "thing" or noun == chunk.start or not head.is_noun or head.tag.startswith("NNP"):
            continue
        if (first.lower not in _COUNTS and first.lower not in _VAGUE) or first.lower == "the":
            continue
        if chunk.start and tokens[chunk.start - 1].tag in ("DT", "CD", "PRP$"):
            continue  # "a a foggy road"
        if shares_article(tokens, chunk, following):
            continue  # "a fork and knife" has no plural
        if any(token.tag == "POS" or token.lower in _WORDS for token in tokens[chunk.start + 1 : noun]):
            continue
        measured = chunk.core != chunk.start and head.lemma not in known.words["container"]
        if (
            measured
            or known.is_mass(head.lemma)
            or head.lemma in known.words["generic"]
            or not determiner_fits(tokens, chunk)
        ):
            continue
        if (head.lemma in known.words["plural_only"] and head.lemma != "people") or not known.is_noun(head.lemma):
            continue
        many = head.tag in ("NNS", "NNPS") or head.lower == "people"
        if many != (_COUNTS.get(first.lower, 2) > 1) and head.lemma not in known.words["invariant"]:
            continue  # "various color"
        yield chunk, chunk.start, noun


def _is_setting(caption: Caption, chunk: Chunk) -> bool:
    """Whether the phrase is where something is, or what is ridden or worn: seldom more or fewer than said."""
    before = caption.tokens[chunk.start - 1] if chunk.start else None
    if any(group.name in ("room", "place") for group in lexicon().noun_groups(caption.tokens[chunk.head].lemma)):
        return True
    return before is not None and ((before.tag == "IN" and before.lower != "with") or before.lemma in _MOUNTING)


def _count(token: Token) -> int | None:
    return _COUNTS.get(token.lower)


def _written(old: Token, count: int) -> str:
    """A number as a digit where the old one is a digit, else as a word."""
    return str(count) if old.lower.isdigit() else _WORDS[count - 1]


def _changed(caption: Caption, chunk: Chunk, place: int, noun: int, number: str) -> list[Token] | None:
    """The tokens with another number, the noun and its verbs suiting it; None where a word cannot be made to suit."""
    tokens = list(caption.tokens)
    old, head = tokens[place], tokens[noun]
    many = number in _VAGUE or _COUNTS[number] > 1
    was_many = head.tag in ("NNS", "NNPS") or head.lower == "people"
    if number == old.lower or (number == "few" and old.lower != "few"):
        return None
    text = number
    if old.text.isupper() and (len(old.text) > 1 or caption.text.isupper()):
        text = number.upper()
    elif old.text[0].isupper():
        text = number.capitalize()
    tokens[place] = replace(old, text=text, lower=number, tag="CD" if number != "a" else "DT")
    if many == was_many:
        return tokens
    if _has_pronoun(caption, chunk, many=many):
        return None
    if head.lower == "people":
        tokens[noun] = replace(head, text="person", lower="person", tag="NN")
    else:
        tokens[noun] = inflect(head, like=replace(head, tag="NNS" if many else "NN"))
    for verb in {*agreeing_verbs(caption, noun), *agreeing_verbs(caption, chunk.head)}:
        changed = in_number(tokens[verb], many=many)
        if changed is None:
            return None
        tokens[verb] = changed
    return tokens


def _has_pronoun(caption: Caption, chunk: Chunk, *, many: bool) -> bool:
    """Whether a pronoun may stand for the phrase, so that it would have to change its number too."""
    forms = _OF_ONE if many else _OF_MANY
    return any(token.lower in forms for token in caption.tokens[chunk.end :])


RULE = ChangeNumber()
