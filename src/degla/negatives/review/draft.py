"""Stage one of the paper: a language model drafts examples of a rule from the user's captions, for people to select.

Captions are drawn at random among those that the rule can change; generate.py asks the model and runs the checks. The
verdict stays beside every draft, refused ones included: people see both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from pydantic import Field

from degla.errors import InputError
from degla.negatives.checks import check_caption
from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.generate import ModelSource, NegativesSettings, generate
from degla.negatives.grammar.phrases import parse
from degla.negatives.rule import load_rule
from degla.negatives.run.summary import Summary
from degla.records import CaptionRecord, NegativeRecord, Record, read_jsonl, write_jsonl

_SPARE: Final = 20
"""Captions drawn for each one that is wanted: a rule can change one in seven at the least."""

Item = TypeVar("Item")


class Draft(Record):
    """A proposed example, with the verdict of the checks.

    Attributes:
        rule: the rule that the negative is to be made by.
        caption: the true text.
        negative: the proposed false one.
        accepted: whether every check passed.
        reason: the check that refused it; "" where accepted.
        source: what made it: "rules" or the name of a language model.
        caption_id: of the caption in the user's data.
        image: the caption's image, relative to the image folder.
    """

    rule: str = Field(min_length=1)
    caption: str = Field(min_length=1)
    negative: str = Field(min_length=1)
    accepted: bool
    reason: str = ""
    source: str = ""
    caption_id: str = ""
    image: str = ""


def draft_examples(
    captions: Iterable[CaptionRecord],
    settings: NegativesSettings,
    *,
    model: ModelSource | None,
    out: Path,
    count: int = 60,
    progress: bool = True,
) -> tuple[int, Summary]:
    """Draft examples of one rule into a JSONL file of `Draft`.

    Args:
        captions: the user's captions, read once; ids must be unique among those drawn.
        settings: the one rule, and how the model is asked; the seed also decides which captions are drawn.
        model: what drafts, or a function that opens it; None for the grammar alone.
        out: the file of drafts. The rows and replies behind it lie beside it, ``<out>.rows.jsonl`` and so on: the same
            call goes on with a run that was stopped, and pays for no reply twice.
        count: captions to make drafts from.
        progress: whether to show a progress bar (on a terminal) or log lines.

    Returns:
        Number of drafts, and the counts of the run; `Summary.stopped` names the signal that ended it early.

    Raises:
        InputError: no caption that the rule can change, an existing file of another run, or what `generate` raises.
    """
    if count < 1:
        raise InputError(f"count ({count}) must be 1 or more.")
    (rule,) = settings.rules
    drawn = draw_captions(captions, rule=rule, count=count, seed=settings.seed)
    if not drawn:
        raise InputError(f"the rule {rule} can change none of the captions; give other captions, or more of them.")
    rows = out.with_name(out.name + ".rows.jsonl")
    if out.exists() and not rows.exists():
        raise InputError(f"{out}: exists, and {rows.name} that would tell how to go on does not. Choose another --out.")
    summary = generate(drawn, settings, out=rows, progress=progress, model=model)
    made = negatives_as_drafts(read_jsonl(NegativeRecord, rows), drawn, where=rows, accepted_only=False)
    return write_jsonl(out, made), summary


def draw_captions(captions: Iterable[CaptionRecord], *, rule: str, count: int, seed: int) -> list[CaptionRecord]:
    """At most `count` captions that a rule can change, in random order; memory is that of 20 times as many."""
    made = load_rule(rule)
    usable: list[CaptionRecord] = []
    candidates = iter(_draw(captions, lambda record: record.id, count=_SPARE * count, seed=seed))
    while len(usable) < count and (batch := list(islice(candidates, 64))):
        english = [record for record in batch if check_caption(record.text).accepted]
        tagged = parse([record.text for record in english])
        usable += [record for record, caption in zip(english, tagged, strict=True) if made.ask(caption, ()) is not None]
    return usable[:count]


def negatives_as_drafts(
    records: Iterable[NegativeRecord],
    captions: Iterable[CaptionRecord],
    *,
    where: Path,
    rules: Sequence[str] = (),
    accepted_only: bool = True,
) -> Iterator[Draft]:
    """Generated negatives as drafts.

    Args:
        records: the negatives.
        captions: those that they were made from.
        where: the file that the negatives are from, for messages.
        rules: only negatives of these; all where none is named.
        accepted_only: leave out what the checks refused.

    Raises:
        InputError: the caption of a negative is not among the captions.
    """
    with CaptionIndex(captions) as index:
        for number, row in enumerate(records, start=1):
            if row.text is None or (accepted_only and not row.accepted) or (rules and row.rule not in rules):
                continue
            caption = index.require(row.caption_id, where=f"{where} record {number}")
            yield Draft(
                rule=row.rule,
                caption=caption.text,
                negative=row.text,
                accepted=row.accepted,
                reason=row.reason,
                source=row.source,
                caption_id=row.caption_id,
                image=caption.image,
            )


def draw_drafts(drafts: Iterable[Draft], *, count: int, seed: int) -> list[Draft]:
    """At most `count` drafts at random, the same for a seed whatever their order; never more than that in memory."""
    return _draw(drafts, lambda draft: f"{draft.rule}\n{draft.caption_id}\n{draft.negative}", count=count, seed=seed)


def _draw(items: Iterable[Item], name: Callable[[Item], str], *, count: int, seed: int) -> list[Item]:
    def lot(item: Item) -> bytes:
        return hashlib.sha256(f"{seed}\n{name(item)}".encode()).digest()

    return nsmallest(count, items, key=lot)
