"""How models beside each other look on a page: ranked captions, items that changed, found pictures, as HTML.

What stands where is said in templates/comparison.html.j2; here is what is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from markupsafe import Markup

from degla.evaluation.changes import ItemAnswers, ItemChange
from degla.look import GIVEN, Candidate, Look
from degla.negatives.differences import TextPiece, mark_words, measure_difference
from degla.pages import open_templates
from degla.pages.plot import BASELINE, Mark, marks_of
from degla.pages.table import breakable, html_mark
from degla.pages.words import capitalized, counted, minus, percent, points
from degla.search import Hit

_MOST_TEXTS = 3


@cache
def _macros() -> Any:
    """The parts of the page, each a function that gives HTML."""
    environment = open_templates("degla.app")
    environment.filters.update(
        dot=html_mark, breakable=breakable, capitalized=capitalized, counted=counted, minus=minus, percent=percent,
        points=points, signed=_signed, answered=_answered,
    )  # fmt: skip
    environment.globals.update(margin=_margin, marked=_marked, others=_others, given=GIVEN, baseline=BASELINE)
    return environment.get_template("comparison.html.j2").module


def complaint(message: str) -> Markup:
    """What is wrong with what was asked."""
    return Markup(_macros().complaint(message))


def hint(text: str) -> Markup:
    """What to do, where there is nothing to show."""
    return Markup(_macros().hint(text))


def model_marks(names: Sequence[str]) -> dict[str, Mark]:
    """A colour for each model: grey for the first of several, with which the others are compared."""
    return marks_of(names, baseline=names[0] if len(set(names)) > 1 else None)


def short_names(names: Sequence[str]) -> list[str]:
    """The last part of each model's path, where that still tells them apart."""
    last = [name.rstrip("/").rpartition("/")[2] for name in names]
    return last if len(set(last)) == len(set(names)) else list(names)


def legend(names: Sequence[str]) -> Markup:
    """The models with their colours."""
    marks = model_marks(names)
    return Markup(_macros().legend([(name, marks[name]) for name in names]))


def look_html(result: Look, names: Sequence[str]) -> Markup:
    """Captions of one picture with a bar a model, and what each model prefers.

    Args:
        result: of one picture.
        names: of the models, as the page has them.
    """
    marks = model_marks(names)
    models = [(name, marks[name], each) for name, each in zip(names, result.models, strict=True)]
    kinds = {"softmax": "share of the softmax over these captions", "sigmoid": "the caption's own probability"}
    told = [kinds[kind] for kind in dict.fromkeys(each.share_by for each in result.models) if kind]
    note = f"Bars: {' or '.join(told)}; " if told else ""
    note += "the number behind is the cosine of picture and caption" + (
        "." if told else ", which is all this model has."
    )
    if result.change(0, 0) is not None:
        note += f" Change: from {names[0]} to {names[-1]}, in points of the share."
    return Markup(_macros().look(result, models, note))


def _margin(captions: Sequence[Candidate], cosines: Sequence[float]) -> float | None:
    """Best true less best false caption; None where no caption is known to be false."""
    true, false = (
        [value for each, value in zip(captions, cosines, strict=True) if bool(each.rule) == wrong]
        for wrong in (False, True)
    )
    return max(true) - max(false) if false else None


def _marked(captions: Sequence[Candidate], candidate: Candidate) -> list[TextPiece]:
    """A false caption in pieces: changed are the words that the nearest true one does not have."""
    true = [each.text for each in captions if not each.rule]
    nearest = min(true, key=lambda text: measure_difference(text, candidate.text).distance)
    return mark_words(nearest, candidate.text)[1]


def gallery_html(
    changes: Sequence[ItemChange], *, total: int, titles: Mapping[str, str], names: tuple[str, str]
) -> Markup:
    """Items as cards: picture, texts, and the margin before and after on one axis.

    Args:
        changes: the items.
        total: how many there are in all.
        titles: of the benchmarks.
        names: labels of the two methods.
    """
    if not changes:
        return hint("No item of this kind.")
    most = max(max(abs(each.before.margin), abs(each.after.margin)) for each in changes)
    items = counted(total, "item")
    those = f"The {len(changes)} of {items}" if len(changes) < total else capitalized(items)
    return Markup(_macros().gallery(changes, those, most, titles, names, _MOST_TEXTS))


def _signed(value: float) -> str:
    """A difference of cosines, 0.0612 as "+0.061"."""
    return minus(f"{value:+z.3f}")


def _answered(answers: ItemAnswers) -> str:
    """What a method answered over its seeds."""
    if answers.seeds == 1:
        return "right" if answers.right else "wrong"
    return f"right in {answers.right} of {answers.seeds}"


def search_html(
    hits: Sequence[Sequence[Hit]], names: Sequence[str], thumbnail: Callable[[str], str | None], text: str
) -> Markup:
    """The best pictures of each model, a column each.

    Args:
        hits: of each model.
        names: of the models.
        thumbnail: `data:` address of a picture of the folder; None where it cannot be read any more.
        text: what was asked.
    """
    marks = model_marks(names)
    columns = [(name, marks[name], found) for name, found in zip(names, hits, strict=True)]
    return Markup(_macros().search(columns, names, thumbnail, text))


def _others(hit: Hit, place: int, names: Sequence[str]) -> str:
    """The ranks that the other models give a picture."""
    ranks = enumerate(zip(names, hit.ranks, strict=True))
    return ", ".join(f"#{rank} by {name}" for number, (name, rank) in ranks if number != place)


def bad_html(bad: Sequence[str]) -> Markup:
    """Files that are left out, and why."""
    return Markup(_macros().bad(bad)) if bad else Markup("")
