"""Rows of pairs as objects, the records that negatives files add to them, and the test for equal texts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from degla.errors import InputError
from degla.pages.words import counted
from degla.records import POSITIVE, CaptionRecord, NegativeRecord


@dataclass(frozen=True)
class PairRow:
    """One training row: a caption of an image and all its usable negatives.

    Attributes:
        caption: the true text and its image.
        negatives: false texts made from it, without repetitions of each other or the caption.
        rules: `rules[i]` is the rule that made `negatives[i]`.
        scores: `scores[i]` is its `NegativeRecord.score`; all None by default.
    """

    caption: CaptionRecord
    negatives: tuple[str, ...]
    rules: tuple[str, ...]
    scores: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.negatives) != len(self.rules):
            raise ValueError(f"{counted(len(self.negatives), 'negative')} but {counted(len(self.rules), 'rule')}")
        if not self.scores:
            object.__setattr__(self, "scores", (None,) * len(self.negatives))


def one_image_per_id(captions: Iterable[CaptionRecord]) -> Iterator[CaptionRecord]:
    """Give captions with one `image_id` the image of the first of them: rows of a Parquet file each have their own."""
    first: dict[str, str] = {}
    for caption in captions:
        image = first.setdefault(caption.image_id, caption.image)
        yield caption if image == caption.image else caption.model_copy(update={"image": image})


def hold_out(
    captions: Sequence[CaptionRecord], *, most: int, one_in: int = 5, seed: int
) -> tuple[list[CaptionRecord], list[CaptionRecord]]:
    """Split captions for training from those of one in `one_in` images, drawn, at most `most`, for evaluation.

    Captions with the same path or `image_id` are of one image.
    """
    images = [caption.image for caption in one_image_per_id(captions)]
    names = sorted(set(images))
    order = np.random.default_rng(seed).permutation(len(names))
    held_out = {names[number] for number in order[: min(most, len(names) // one_in)]}
    sides: tuple[list[CaptionRecord], list[CaptionRecord]] = ([], [])
    for caption, image in zip(captions, images, strict=True):
        sides[image in held_out].append(caption)
    return sides


def with_positives(
    captions: Iterable[CaptionRecord], positives: Iterable[NegativeRecord], *, flag: str
) -> Iterator[CaptionRecord]:
    """Append the accepted texts of a positives file to the captions' own positives.

    Args:
        captions: in any order.
        positives: records of rules for positives, in any order; all are held in memory.
        flag: names the file in messages.

    Raises:
        InputError: a record is a negative, or none belongs to a caption.
    """
    texts: dict[str, list[str]] = {}
    for row in positives:
        if row.kind != POSITIVE:
            raise InputError(
                f"{flag}: row of caption {row.caption_id!r}, rule {row.rule}: is of kind {row.kind!r}, so its text is "
                f"meant to be false. Give a file made by `degla negatives --positives`."
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
    """Yield the text of each second image, which is false for the first, as the only negative of its caption.

    Raises:
        InputError: at the end, if no caption has one.
    """
    any_partner = False
    for caption in captions:
        if caption.distractor_text is not None:
            any_partner = True
            yield NegativeRecord(
                caption_id=caption.id,
                rule="partner",
                kind="partner",
                text=caption.distractor_text,
                source="captions",
                accepted=True,
            )
    if not any_partner:
        raise InputError(f"no caption has a distractor_text, which {flag} uses as its negative.")


def negatives_of_rules(
    negatives: Iterable[NegativeRecord], rules: Sequence[str], *, flag: str
) -> Iterator[NegativeRecord]:
    """Yield only the negatives made by some rules.

    Raises:
        InputError: at the end, if a rule made none; lists those that did.
    """
    counts: Counter[str] = Counter()
    for negative in negatives:
        counts[negative.rule] += 1
        if negative.rule in rules:
            yield negative
    missing = [rule for rule in rules if not counts[rule]]
    if missing:
        listing = ", ".join(f"{rule} ({count})" for rule, count in sorted(counts.items()))
        raise InputError(f"{flag}: the file has no negatives of {', '.join(missing)}. It has: {listing}.")


_FEW: Final = 0.6
"""Share of a negative's words that also occur in its caption. At most 4 % of each part of SugarCrepe are below it, but
85 % are when captions of COCO are used as negatives of the captions before them."""
_SHORT: Final = 4
"""Captions with fewer words are not judged: one changed word weighs too much. Nor are languages without spaces."""


class ForeignCheck:
    """Checks whether most negatives share few words with their captions, as if made from others."""

    WARNING: Final = (
        "most negatives share few words with their captions, for example %s. Negatives are joined by caption id: were "
        "these made from the current version of this captions file?"
    )
    """The warning, with a place for the example."""

    def __init__(self) -> None:
        self._example, self._far, self._near = "", 0, 0

    def add(self, text: str, rule: str, *, caption_id: str, caption: str) -> None:
        """Compare a negative with its caption."""
        own, words = set(normalized_words(caption)), normalized_words(text)
        if len(own) < _SHORT or rule == "partner":  # A partner's text describes another image.
            return
        if sum(word in own for word in words) >= _FEW * len(words):
            self._near += 1
        else:
            self._far += 1
            self._example = self._example or f"{text!r} of caption {caption_id!r}, {caption!r}"

    @property
    def example(self) -> str:
        """An example if most negatives are like that, otherwise ""."""
        return self._example if self._far > self._near else ""


def seem_foreign(rows: Iterable[PairRow]) -> str:
    """Return an example if most negatives seem to be made from other captions; "" otherwise."""
    check = ForeignCheck()
    for row in rows:
        for text, rule in zip(row.negatives, row.rules, strict=True):
            check.add(text, rule, caption_id=row.caption.id, caption=row.caption.text)
    return check.example


def normalized_words(text: str) -> tuple[str, ...]:
    """Return the words of a text without case, punctuation and white space.

    Two texts with equal words say the same, so neither is a negative of the other. A text without words (only
    punctuation) is returned as its own single word.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return tuple(plain.translate(_SPACES).split()) or (plain.strip(),)


class _PunctuationToSpace(dict[int, int]):
    """A table for `str.translate` over all of Unicode, filled on demand."""

    def __missing__(self, code: int) -> int:
        self[code] = ord(" ") if unicodedata.category(chr(code)).startswith("P") else code
        return self[code]


_SPACES = _PunctuationToSpace()
