"""Joins captions with their accepted negatives: one row a caption, and an account of what was left out."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from degla.errors import InputError
from degla.records import POSITIVE, CaptionRecord, NegativeRecord

_log = logging.getLogger(__name__)

_EXAMPLES = 3  # ids shown in a message
_BOTH = "equal to a further true text of their caption"


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


@dataclass(frozen=True)
class JoinReport:
    """What a join kept and what it dropped.

    Attributes:
        captions: captions read.
        rows: rows kept.
        images: different images among the rows.
        negatives: negatives kept, over all rows.
        per_row: number of negatives -> number of rows that have so many.
        dropped: reason -> number of negatives (or captions, where the reason says so) left out.
        contradiction: the first text that is given as a negative and as a further true text, with its caption's id.
    """

    captions: int
    rows: int
    images: int
    negatives: int
    per_row: Mapping[int, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    contradiction: str = ""

    def summary(self) -> str:
        """One sentence for a log."""
        counts = ", ".join(f"{rows} with {count}" for count, rows in self.per_row.items())
        dropped = ", ".join(f"{number} {reason}" for reason, number in self.dropped.items())
        return (
            f"{self.rows} pairs of {self.images} images with {self.negatives} negatives "
            f"(rows by number of negatives: {counts}); dropped: {dropped or 'nothing'}."
        )


def with_positives(
    captions: Iterable[CaptionRecord], positives: Iterable[NegativeRecord], *, flag: str
) -> Iterator[CaptionRecord]:
    """The captions with the accepted texts of a file of positives behind their own.

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


def join(
    captions: Iterable[CaptionRecord],
    negatives: Iterable[NegativeRecord] | None,
    *,
    negatives_per_caption: int = 0,
    without_negatives: Literal["keep", "drop"] = "keep",
) -> list[PairRow]:
    """`join_and_report` whose report goes to the log."""
    rows, report = join_and_report(
        captions,
        negatives,
        negatives_per_caption=negatives_per_caption,
        without_negatives=without_negatives,
    )
    _log.info("%s", report.summary())
    if report.contradiction:
        _log.warning(
            "%d negatives are given as further true texts of their captions, too, for example %s: they are left out as "
            "negatives. A text cannot be both: take it out of one of the two files.",
            report.dropped[_BOTH],
            report.contradiction,
        )
    return rows


def join_and_report(
    captions: Iterable[CaptionRecord],
    negatives: Iterable[NegativeRecord] | None,
    *,
    negatives_per_caption: int = 0,
    without_negatives: Literal["keep", "drop"] = "keep",
) -> tuple[list[PairRow], JoinReport]:
    """Give every caption its accepted negatives, by caption id, in the order of the captions.

    Args:
        captions: at least one.
        negatives: in any order; None where training uses none (every row then has none).
        negatives_per_caption: K of the training; some row must have as many. 0 does not ask.
        without_negatives: what happens to captions that end with no negative.

    Raises:
        InputError: there is no caption; no negative belongs to any caption; none is usable; or K is larger
            than what any row has.
    """
    known = {caption.id: caption for caption in captions}
    if not known:
        raise InputError("there is no caption to train on: the captions are empty.")
    dropped: Counter[str] = Counter()
    strangers: list[str] = []
    both: list[str] = []
    matched = _match(known, negatives or (), dropped=dropped, strangers=strangers, both=both)
    if negatives is None:
        if negatives_per_caption > 0:
            raise InputError(
                f"{negatives_per_caption} negatives a caption are wanted, but no file of negatives is given. "
                "Give one, or set negatives_per_caption to 0."
            )
    elif not any(matched.values()):
        raise InputError(_nothing_left(list(known), strangers if not matched else [], dropped))

    rows = []
    for caption in known.values():
        own = matched.get(caption.id, [])
        if own or negatives is None or without_negatives == "keep":
            texts = tuple(str(negative.text) for negative in own)
            rules, scores = tuple(each.rule for each in own), tuple(each.score for each in own)
            rows.append(PairRow(caption, texts, rules, scores))
        else:
            dropped["captions without a negative"] += 1
    largest = max(len(row.negatives) for row in rows)
    if negatives_per_caption > largest:
        raise InputError(
            f"{negatives_per_caption} negatives a caption are wanted, but no caption has more than {largest} "
            f"that can be used. Set negatives_per_caption to {largest} or less, or make more negatives."
        )
    counts = Counter(len(row.negatives) for row in rows)
    report = JoinReport(
        captions=len(known),
        rows=len(rows),
        images=len({row.caption.image_id for row in rows}),
        negatives=sum(len(row.negatives) for row in rows),
        per_row=MappingProxyType(dict(sorted(counts.items()))),
        dropped=MappingProxyType(dict(sorted(dropped.items()))),
        contradiction=both[0] if both else "",
    )
    return rows, report


def _match(
    known: Mapping[str, CaptionRecord],
    negatives: Iterable[NegativeRecord],
    *,
    dropped: Counter[str],
    strangers: list[str],
    both: list[str],
) -> dict[str, list[NegativeRecord]]:
    """Usable negatives by caption id; an id maps to an empty list where all of its negatives were dropped.

    Counts the others in `dropped` by reason, and puts the first few unknown caption ids into `strangers`,
    texts that are given as true as well into `both`.
    """
    matched: dict[str, list[NegativeRecord]] = {}
    own_words: dict[str, tuple[str, ...]] = {}
    seen: dict[str, set[tuple[str, ...]]] = {}
    for negative in negatives:
        if negative.kind == POSITIVE:
            raise InputError(
                f"negative of caption {negative.caption_id!r}, rule {negative.rule}: of kind 'positive', a true text. "
                "Files of positives belong to the flag positives_file."
            )
        caption = known.get(negative.caption_id)
        if caption is None:
            dropped["of captions that are not in the captions file"] += 1
            if len(strangers) < _EXAMPLES and negative.caption_id not in strangers:
                strangers.append(negative.caption_id)
            continue
        own = matched.setdefault(caption.id, [])
        if not negative.accepted:
            dropped["not accepted by the checks"] += 1
        elif negative.text is None or not negative.text.strip():
            dropped["without text"] += 1
        else:
            words = said_words(negative.text)
            if caption.id not in seen:
                own_words[caption.id], seen[caption.id] = said_words(caption.text), set()
            earlier = seen[caption.id]
            if words == own_words[caption.id]:
                dropped["equal to their caption"] += 1
            elif any(words == said_words(text) for text in caption.positives):
                dropped[_BOTH] += 1
                both.append(f"{negative.text!r} of caption {caption.id!r}")
            elif words in earlier:
                dropped["said twice"] += 1
            else:
                earlier.add(words)
                own.append(negative)
    return matched


def _nothing_left(known: Sequence[str], strangers: Sequence[str], dropped: Mapping[str, int]) -> str:
    if not dropped:
        return "the negatives are empty. Make them with `degla negatives`, or set negatives_per_caption to 0."
    if strangers:
        return (
            "no negative belongs to any caption. Caption ids in the captions file: "
            f"{', '.join(map(repr, known[:_EXAMPLES]))}; in the negatives: {', '.join(map(repr, strangers))}. "
            "Give the captions file that the negatives were made from, with the same columns."
        )
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(dropped.items()))
    return f"no negative can be used: {reasons}. Make negatives again with other rules or checks."


def partner_negatives(captions: Sequence[CaptionRecord], *, flag: str) -> Iterator[NegativeRecord]:
    """The text of each second image, which is false of the first, as the one negative of its caption.

    Raises:
        InputError: no caption has one.
    """
    if not any(caption.distractor_text for caption in captions):
        raise InputError(f"no caption has a distractor_text, which is to be its negative ({flag}).")
    for caption in captions:
        if caption.distractor_text is not None:
            yield NegativeRecord(
                caption_id=caption.id,
                rule="partner",
                kind="partner",
                text=caption.distractor_text,
                source="captions",
                accepted=True,
            )


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


def image_groups(rows: Sequence[PairRow]) -> list[int]:
    """A number for each row, equal exactly where two rows are about the same image (`image_id`)."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(row.caption.image_id, len(numbers)) for row in rows]


def rule_names(rows: Sequence[PairRow]) -> tuple[str, ...]:
    """All rules that made a negative, sorted; a rule's number in a batch is its place here."""
    return tuple(sorted({rule for row in rows for rule in row.rules}))
