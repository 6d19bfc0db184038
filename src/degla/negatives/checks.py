"""Checks that every proposed negative passes, whoever proposed it: the text, the rule's promise, what is taken already.

No candidate is tagged again: words are compared with the caption's own tokens and with the word tables.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from degla.negatives import words
from degla.negatives.phrases import Caption
from degla.negatives.verdicts import ACCEPTED, Verdict, refused

if TYPE_CHECKING:
    from degla.negatives.rules import NegativeRule

Content = tuple[str, ...]
"""A text as `words.content` gives it: what "equal" means for texts here."""

LONGEST_CAPTION: Final = 80
"""Words; CLIP's tokenizer cuts at 77 tokens anyway."""

_ENGLISH_SHARE: Final = 0.5
_CASELESS_ENGLISH: Final = frozenset(
    {
        "a",
        "the",
        "of",
        "in",
        "on",
        "with",
        "and",
        "is",
        "are",
        "to",
        "at",
        "by",
        "for",
        "from",
        "his",
        "her",
        "its",
        "their",
        "it",
        "that",
        "this",
        "two",
        "an",
        "or",
        "as",
        "who",
        "while",
        "some",
        "into",
        "up",
        "has",
        "near",
        "over",
    }
)


def check_caption(text: str) -> Verdict:
    """Whether negatives can be made from a caption at all: has words, not too many, and they are English.

    A caption is English when at least half of its words are in the dictionary, or, with four words or more, one of
    them is a function word such as "the" and 40 % are in the dictionary.
    """
    content = [word for word in words.content(text) if word[0].isalpha()]
    if not content:
        return refused("empty_caption")
    if len(content) > LONGEST_CAPTION:
        return refused("long_caption")
    known = sum(word in _CASELESS_ENGLISH or (word.isascii() and words.is_known(word)) for word in content)
    share = known / len(content)
    functions = sum(word in _CASELESS_ENGLISH for word in content)
    if share < _ENGLISH_SHARE or (len(content) >= 5 and not functions and share < 0.8):
        return refused("not_english")
    return ACCEPTED


def check_text(caption: Caption, negative: str) -> Verdict:
    """Checks that hold for every rule: not empty, not too long, not the caption's own text, articles right."""
    content = words.content(negative)
    if not content:
        return refused("empty")
    if len(content) > max(1.5 * len(caption.content), len(caption.content) + 3):
        return refused("too_long")
    if content == caption.content:
        return refused("same_text")
    if not words.articles_fit(negative) and words.articles_fit(caption.text):
        return refused("article")
    return ACCEPTED


def judge(
    rule: NegativeRule,
    caption: Caption,
    negative: str,
    *,
    taken: Collection[Content] = (),
    siblings: Collection[Content] = (),
) -> Verdict:
    """Every check in order, the first refusal wins.

    Args:
        rule: the rule that the negative is made by.
        caption: the tagged caption.
        negative: the proposed text.
        taken: contents of the caption's accepted negatives.
        siblings: contents of the other captions of the same image.
    """
    verdict = check_text(caption, negative)
    if verdict.accepted:
        verdict = rule.check(caption, negative)
    if not verdict.accepted:
        return verdict
    content = words.content(negative)
    if content in taken:
        return refused("duplicate")
    return refused("duplicate_caption") if content in siblings else ACCEPTED
