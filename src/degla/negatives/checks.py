"""Checks of captions and of every proposed negative, whoever proposed it, and what they answer: a verdict.

A verdict accepts, or refuses for a named reason of verdicts.toml. No candidate is tagged again: words are compared with
the caption's own tokens and with the word tables.

`implausible` is that a negative is far less likely than its caption by a language model, which gives the likelihoods
(llm/embedded.py, or any judge of `degla negatives judge`). Each limit of verdicts.toml lets 95 % of the rule's shipped
examples pass, which a person wrote; bench/plausibility.py shows how many of the grammar's own candidates pass it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import says_the_same
from degla.negatives.grammar.phrases import Caption

_TABLES: Final = tomllib.loads(Path(__file__).with_name("verdicts.toml").read_text(encoding="utf-8"))

REASONS: Final[dict[str, str]] = _TABLES["reasons"]
"""Every reason that a record may carry, explained."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a check.

    Attributes:
        accepted: whether the negative passed.
        reason: a key of `REASONS` where it was refused, else "".
    """

    accepted: bool
    reason: str = ""


ACCEPTED: Final = Verdict(True)


def refused(reason: str) -> Verdict:
    """A refusal; `reason` must be a key of `REASONS`."""
    if reason not in REASONS:
        raise ValueError(f"{reason!r} is not a reason of REASONS")
    return Verdict(False, reason)


Content = tuple[str, ...]
"""A text as `words.content` gives it: what "equal" means for texts here."""

LONGEST_CAPTION: Final = 80
"""Words; CLIP's tokenizer cuts at 77 tokens anyway."""

CONTEXT: Final = 75
"""Tokens of a text that CLIP reads, besides the marks of start and end."""
_MAY_DOUBLE: Final = frozenset({"that", "had", "very", "so", "bye", "ha", "knock", "choo", "yum"})

_FUNCTION_WORDS: Final = frozenset(
    {"a", "the", "of", "in", "on", "with", "and", "is", "are", "to", "at", "by", "for", "from", "his", "her", "its",
     "their", "it", "that", "this", "two", "an", "or", "as", "who", "while", "some", "into", "up", "has", "near",
     "over"}
)  # fmt: skip


def check_caption(text: str) -> Verdict:
    """Whether negatives can be made from a caption at all: has words, not too many, and they are English.

    A caption is English when at least half of its words are function words such as "the" or in the dictionary; of five
    words or more without any function word, 80 %.
    """
    content = [word for word in words.content(text) if word[0].isalpha()]
    if not content:
        return refused("empty_caption")
    if len(content) > LONGEST_CAPTION:
        return refused("long_caption")
    if len(content) > _SURE and estimate_tokens(text) > CONTEXT:
        return refused("over_context")
    english = sum(word in _FUNCTION_WORDS or (word.isascii() and words.is_known(word)) for word in content)
    share = english / len(content)
    bare = len(content) >= 5 and _FUNCTION_WORDS.isdisjoint(content)
    return refused("not_english") if share < (0.8 if bare else 0.5) else ACCEPTED


def estimate_tokens(text: str) -> int:
    """About how many tokens CLIP's tokenizer makes of a text, without the marks of start and end.

    No tokenizer is needed to make negatives, so this is an estimate, meant to be high rather than low: a mark or digit
    is one token, a word of the dictionary one (two beyond ten letters), any other word one for three letters.
    """
    return sum(_estimate(piece) for piece, _ in words.split(text))


@lru_cache(maxsize=65_536)
def _estimate(piece: str) -> int:
    letters = sum(letter.isalpha() for letter in piece)
    others = len(piece) - letters
    if letters == len(piece) and words.is_known(piece):
        return 1 + (letters > 10)
    return others + -(-letters // 3)


def check_text(caption: Caption, negative: str, *, true: bool = False) -> Verdict:
    """Checks that hold for every rule: length, not what the caption says, articles, numbers, banned words.

    Args:
        caption: the tagged caption.
        negative: the text.
        true: whether the text is meant to be true, so that it may say the same in other words.
    """
    content = words.content(negative)
    if not content:
        return refused("empty")
    if len(content) > max(1.5 * len(caption.content), len(caption.content) + 3):
        return refused("too_long")
    if content == caption.content:
        return refused("same_text")
    if reason := _flaw(caption, content):
        return refused(reason)
    if not true and says_the_same(caption.content, content):
        return refused("near_paraphrase")
    if len(content) > _SURE and estimate_tokens(negative) > CONTEXT:
        return refused("over_context")
    if not words.articles_fit(negative) and words.articles_fit(caption.text):
        return refused("article")
    return ACCEPTED


_SURE: Final = 20
"""Words that are never more than the context holds."""


def _flaw(caption: Caption, content: Content) -> str:
    """What is wrong with the words of a negative, whatever the rule: banned, doubled, badly counted."""
    own = set(pairwise(caption.content))
    if not lexicon().words["banned"].isdisjoint(set(content).difference(caption.content)):
        return "banned_word"
    for place, (word, following) in enumerate(pairwise(content)):
        if (word, following) in own:
            continue
        if word == following and word not in _MAY_DOUBLE:
            return "doubled_word"
        if _miscounts(word, following, content[place + 2 : place + 3]):
            return "agreement"
    return ""


def _miscounts(word: str, noun: str, after: Content) -> bool:
    """Whether a number or article stands before an everyday noun of the other number: "two dog", "a dogs"."""
    one, many = word in ("a", "one", "every", "each"), word in words.DETERMINERS_OF_MANY
    if not (one or many):
        return False
    known, lemma = lexicon(), words.singular(noun)
    if not known.is_listed(lemma) or known.is_adjective(noun) or lemma in known.words["invariant"]:
        return False
    if after and known.is_noun(words.singular(after[0])):
        return False  # "two dog houses"
    plural = noun != lemma or lemma in known.words["plural_only"]
    return plural if one else not plural and not known.is_mass(lemma)


LARGEST_DROP: Final[dict[str, float]] = _TABLES["largest_drop"]
"""Mean log-likelihood a token of the caption less that of the negative, nats, each text alone, under
SmolLM2-135M-Instruct."""

USUAL_DROP: Final = 0.75
"""The limit of a rule of your own: the middle of the measured ones."""


def largest_drop(rule: str) -> float:
    """The limit of a rule, nats a token."""
    return LARGEST_DROP.get(rule, USUAL_DROP)


def check_drop(rule: str, drop: float) -> Verdict:
    """Whether a negative is likely enough beside its caption.

    Args:
        rule: that it was made by.
        drop: nats a token by which it is less likely than the caption.
    """
    return ACCEPTED if drop <= largest_drop(rule) else refused("implausible")
