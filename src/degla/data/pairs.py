"""Rows of pairs as objects, what files of negatives bring to them, and when two texts say the same."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from degla.errors import InputError
from degla.records import POSITIVE, CaptionRecord, NegativeRecord


@dataclass(frozen=True)
class PairRow:
    """One training row: a caption of an image and all its usable negatives.

    Attributes:
        caption: the true text and its image.
        negatives: false texts made from it; none repeats another or the caption.
        rules: `rules[i]` is the rule that made `negatives[i]`.
        scores: `scores[i]` is its `NegativeRecord.score`; None for each by default.
    """

    caption: CaptionRecord
    negatives: tuple[str, ...]
    rules: tuple[str, ...]
    scores: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.negatives) != len(self.rules):
            raise ValueError(f"{len(self.negatives)} negatives but {len(self.rules)} rules")
        if not self.scores:
            object.__setattr__(self, "scores", (None,) * len(self.negatives))


def with_positives(
    captions: Iterable[CaptionRecord], positives: Iterable[NegativeRecord], *, flag: str
) -> Iterator[CaptionRecord]:
    """The captions with the accepted texts of a file of positives after their own.

    Args:
        captions: in any order.
        positives: rows of rules for positives, in any order; all in memory.
        flag: what names the file in messages.

    Raises:
        InputError: a row is a negative, or none of them belongs to a caption.
    """
    texts: dict[str, list[str]] = {}
    for row in positives:
        if row.kind != POSITIVE:
            raise InputError(
                f"{flag}: row of caption {row.caption_id!r}, rule {row.rule}: is of kind {row.kind!r}, so its text is "
                f"meant to be false. Give a file that `degla negatives --positives` made."
            )
        if row.accepted and row.text is not None:
            texts.setdefault(row.caption_id, []).append(row.text)
    matched = 0
    for caption in captions:
        own = texts.get(caption.id)
        matched += own is not None
        yield caption if own is None else caption.model_copy(update={"positives": (*caption.positives, *own)})
    if not matched:
        raise InputError(f"{flag}: no positive belongs to any caption. Make them from these captions.")


def partner_negatives(captions: Iterable[CaptionRecord], *, flag: str) -> Iterator[NegativeRecord]:
    """The text of each second image, which is false of the first, as the one negative of its caption.

    Raises:
        InputError: at the end, no caption has one.
    """
    found = False
    for caption in captions:
        if caption.distractor_text is not None:
            found = True
            yield NegativeRecord(
                caption_id=caption.id,
                rule="partner",
                kind="partner",
                text=caption.distractor_text,
                source="captions",
                accepted=True,
            )
    if not found:
        raise InputError(f"no caption has a distractor_text, which is to be its negative ({flag}).")


def negatives_of_rules(
    negatives: Iterable[NegativeRecord], rules: Sequence[str], *, flag: str
) -> Iterator[NegativeRecord]:
    """Only the negatives that some rules made.

    Raises:
        InputError: at the end, a rule has made none; names those that have.
    """
    found: Counter[str] = Counter()
    for negative in negatives:
        found[negative.rule] += 1
        if negative.rule in rules:
            yield negative
    missing = [rule for rule in rules if not found[rule]]
    if missing:
        held = ", ".join(f"{rule} ({count})" for rule, count in sorted(found.items()))
        raise InputError(f"{flag}: there is no negative of {', '.join(missing)}. The file holds: {held}.")


_FEW: Final = 0.6
"""Share of a negative's words that its caption has, too. It is less in at most 4 % of each part of SugarCrepe, and in
85 % where captions of COCO are taken for negatives of those before them."""
_SHORT: Final = 4
"""A changed word is too large a part of captions with fewer words; so are all of languages without spaces."""


def seem_foreign(rows: Iterable[PairRow]) -> str:
    """An example where most negatives have few words of their captions, as those of other captions do; "" otherwise."""
    example, far, near = "", 0, 0
    for row in rows:
        own = set(said_words(row.caption.text))
        for text, rule in zip(row.negatives, row.rules, strict=True):
            words = said_words(text)
            if len(own) < _SHORT or rule == "partner":  # which says what another image shows
                continue
            if sum(word in own for word in words) >= _FEW * len(words):
                near += 1
            else:
                far += 1
                example = example or f"{text!r} of caption {row.caption.id!r}, {row.caption.text!r}"
    return example if far > near else ""


def said_words(text: str) -> tuple[str, ...]:
    """The words of a text as a listener hears them: without case, punctuation and white space.

    Two texts with equal words say the same thing, so neither is a negative of the other. A text without any
    word (only signs) stands for itself.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return tuple(plain.translate(_SPACES).split()) or (plain.strip(),)


class _PunctuationToSpace(dict[int, int]):
    """A table for `str.translate` over all of Unicode, filled as characters come up."""

    def __missing__(self, code: int) -> int:
        self[code] = ord(" ") if unicodedata.category(chr(code)).startswith("P") else code
        return self[code]


_SPACES = _PunctuationToSpace()
