"""Check captions and every proposed negative, whatever proposed it, and return a verdict.

A verdict accepts, or refuses for a named reason from verdicts.toml. Candidates are not tagged again: their words are
compared with the caption's tokens and the word tables.

`implausible` means that a negative is far less likely than its caption under a language model (llm/embedded.py, or
any judge of `degla negatives judge`). Each limit in verdicts.toml lets 95 % of the rule's shipped, human-written
examples pass; bench/plausibility.py shows how many of the grammar's candidates pass it.
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
"""Every reason that a record may have, with its explanation."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check.

    Attributes:
        accepted: whether the negative passed.
        reason: a key of `REASONS` if it was refused, else "".
    """

    accepted: bool
    reason: str = ""


ACCEPTED: Final = Verdict(True)


def refused(reason: str) -> Verdict:
    """Return a refusal; `reason` must be a key of `REASONS`."""
    if reason not in REASONS:
        raise ValueError(f"{reason!r} is not a key of REASONS")
    return Verdict(False, reason)


Content = tuple[str, ...]
"""A text as returned by `words.content`; texts with equal content count as equal."""

LONGEST_CAPTION: Final = 80
"""Maximum words of a caption; CLIP's tokenizer truncates at 77 tokens anyway."""

CONTEXT: Final = 75
"""Tokens of a text that CLIP reads, excluding the start and end tokens."""
_MAY_DOUBLE: Final = frozenset({"that", "had", "very", "so", "bye", "ha", "knock", "choo", "yum"})

_FUNCTION_WORDS: Final = frozenset(
    {"a", "the", "of", "in", "on", "with", "and", "is", "are", "to", "at", "by", "for", "from", "his", "her", "its",
     "their", "it", "that", "this", "two", "an", "or", "as", "who", "while", "some", "into", "up", "has", "near",
     "over"}
)  # fmt: skip


def check_caption(text: str) -> Verdict:
    """Check whether a caption is usable at all: it has words, not too many, and they are English.

    A caption counts as English if at least half of its words are function words such as "the" or in the dictionary;
    80 % if it has five words or more and no function word.
    """
    content = [word for word in words.content(text) if word[0].isalpha()]
    if not content:
        return refused("empty_caption")
    if len(content) > LONGEST_CAPTION:
        return refused("long_caption")
    english = sum(word in _FUNCTION_WORDS or (word.isascii() and words.is_known(word)) for word in content)
    share = english / len(content)
    bare = len(content) >= 5 and _FUNCTION_WORDS.isdisjoint(content)
    if share < (0.8 if bare else 0.5):
        return refused("not_english")
    return refused("over_context") if _is_over_context(text) else ACCEPTED


def estimate_tokens(text: str) -> int:
    """Estimate the number of CLIP tokens of a text, excluding the start and end tokens.

    The estimate needs no tokenizer: a punctuation mark or digit is one token, a byte of any character but ASCII as
    well; a dictionary word one (two beyond ten letters), any other word one per three letters. It is rather high than
    low, but 10 % of the captions of Flickr8k have one to four tokens more.
    """
    return sum(_estimate(piece) for piece, _ in words.split(text))


@lru_cache(maxsize=65_536)
def _estimate(piece: str) -> int:
    letters = sum(letter.isascii() and letter.isalpha() for letter in piece)
    others = len(piece.encode()) - letters
    if letters == len(piece) and words.is_known(piece):
        return 1 + (letters > 10)
    return others + -(-letters // 3)


def _is_over_context(text: str) -> bool:
    return len(text.encode()) > CONTEXT and estimate_tokens(text) > CONTEXT  # No token has less than a byte.


def check_text(caption: Caption, negative: str, *, true: bool = False) -> Verdict:
    """Apply the checks common to all rules: length, difference from the caption, articles, numbers, banned words.

    Args:
        caption: the tagged caption.
        negative: the text to check.
        true: whether the text is meant to be true, and so may paraphrase the caption.
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
    if not true and caption.is_denied:
        return refused("still_true")  # if no dog is on the sofa, perhaps none is on the chair
    if _is_over_context(negative):
        return refused("over_context")
    if not words.articles_fit(negative) and words.articles_fit(caption.text):
        return refused("article")
    return ACCEPTED


def _flaw(caption: Caption, content: Content) -> str:
    """Return what is wrong with a negative's words, whatever the rule: banned, doubled, or wrong in number."""
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
    """Return whether a number or article disagrees with the everyday noun after it: "two dog", "a dogs"."""
    one, many = word in ("a", "one", "every", "each"), word in words.DETERMINERS_OF_MANY
    if not (one or many):
        return False
    tables, lemma = lexicon(), words.singular(noun)
    if not tables.is_listed(lemma) or tables.is_adjective(noun) or lemma in tables.words["invariant"]:
        return False
    if after and tables.is_noun(words.singular(after[0])):
        return False  # "two dog houses"
    plural = noun != lemma or lemma in tables.words["plural_only"]
    return plural if one else not plural and not tables.is_mass(lemma)


LARGEST_DROP: Final[dict[str, float]] = _TABLES["largest_drop"]
"""Mean log-likelihood per token of the caption minus that of the negative, in nats, each without context, under
SmolLM2-135M-Instruct."""

USUAL_DROP: Final = 0.75
"""The limit for custom rules: about the mean of the measured ones."""


def largest_drop(rule: str) -> float:
    """Return the limit of a rule, in nats per token."""
    return LARGEST_DROP.get(rule, USUAL_DROP)


def check_drop(rule: str, drop: float) -> Verdict:
    """Check whether a negative is likely enough compared with its caption.

    Args:
        rule: the rule that made it.
        drop: how much less likely it is than the caption, in nats per token.
    """
    return ACCEPTED if drop <= largest_drop(rule) else refused("implausible")
