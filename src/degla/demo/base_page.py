"""The first page: what the base scores, and pictures of what it gets wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from markupsafe import Markup

from degla.evaluation.pictures import thumbnail
from degla.evaluation.terminal import named_scores
from degla.files import write_text
from degla.pages.page import Grid, Page, Part, Raw, Section
from degla.pages.table import Table
from degla.pages.words import UNKNOWN, interval, minus, percent
from degla.records import PairItem, read_jsonl
from degla.results import ItemVerdict, Result, Score

log = logging.getLogger("degla.demo")

_SHOWN = ("order", "swap_noun", "swap_adjective", "swap_phrase", "replace_relation", "replace_noun")
"""Kinds of questions of which the first page shows what the base gets wrong."""
_SHOWN_OF_EACH = 2
_NAMES = (
    "`id`: of the words of the pairs that methods are trained on; `ood`: with at least one further word. Names without "
    "a slash are averages; `neutral` leaves out what the texts alone tell, and `composition.id.neutral` is what the "
    "report calls composition."
)


def show_base(result: Result, benchmark: Path, out: Path) -> None:
    """Write the first page, and log the scores that the methods are to change."""
    scores = named_scores(result)
    told = [
        f"{name} {percent(scores[name])}"
        for name in ("composition", "swap", "order", "recognition", "retrieval")
        if name in scores
    ]
    log.info("the base model: %s %%. What it gets wrong: open %s", ", ".join(told), out)
    (entry,) = result.benchmarks
    rows = [
        [
            score.name,
            percent(score.value),
            interval(*ends) if (ends := _ends(score)) else UNKNOWN,
            percent(score.chance),
        ]
        for score in (*entry.averages, *(part.scores[0] for part in entry.parts))
    ]
    page = Page(
        "What the base model knows, and what it gets wrong",
        [
            Section("Wrong, and sure of it", [*_mistakes(result, benchmark)]),
            Section("Its scores", [Table(["part", "score", "95 %", "chance"], rows), _NAMES]),
        ],
        lead=[
            "A small CLIP, pre-trained on the embedded world. It names what is there, and is at chance where only the "
            "order of words tells the true text from the false one. Hard negatives are to teach it that; `report.html` "
            "beside this page will say what each method gained, and what it forgot. All scores in percent."
        ],
        tab="degla demo: the base model",
    )  # fmt: skip
    write_text(out, page.html())


def _ends(score: Score) -> tuple[float, float] | None:
    return None if score.interval is None else (score.interval.low, score.interval.high)


def _mistakes(result: Result, benchmark: Path) -> Iterator[Part | str]:
    """The items of each kind whose false text leads by the most."""
    questions = {item.id: item for item in read_jsonl(PairItem, benchmark / "items.jsonl")}
    cards = []
    for kind in _SHOWN:
        wrong = [(row.margin, row) for row in result.items if row.part == f"id/{kind}" and (row.margin or 0.0) < 0]
        for _, row in sorted(wrong, key=itemgetter(0))[:_SHOWN_OF_EACH]:
            cards.append(_card(row, questions[row.id], benchmark))
    yield Grid(cards)
    yield (
        "✓ the true text, ✗ the false one, which the model finds more similar to the picture; the number is the "
        "lead of the true one, a difference of cosines."
    )


def _card(row: ItemVerdict, item: PairItem, benchmark: Path) -> Raw:
    true, false = (Markup('<p><span class="{}">{}</span> {}</p>').format(*each) for each in zip(
        ("up", "down"), "✓✗", item.texts, strict=True))  # fmt: skip
    about = Markup('<p class="soft">{}, {}</p>').format(
        row.part.partition("/")[2].replace("_", " "), minus(f"{row.margin:+.3f}")
    )
    picture = Markup('<img src="{}" alt="{}">').format(thumbnail(item.images[0], root=benchmark) or "", row.id)
    return Raw(Markup('<div class="card item">{}<div>{}{}{}</div></div>').format(picture, true, false, about))
