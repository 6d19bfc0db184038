"""HTML of the comparison page: ranked captions, items that changed, and search results.

The layout is in templates/comparison.html.j2; this module supplies the content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from markupsafe import Markup

from degla.evaluation.changes import ItemChange
from degla.look import GIVEN, Candidate, Look
from degla.negatives.differences import TextPiece, mark_words, measure_difference
from degla.pages import open_templates
from degla.pages.plot import BASELINE, Mark, marks_of
from degla.pages.table import breakable, html_mark
from degla.pages.words import capitalized, counted, minus, percent, points, signed_cosine
from degla.search import Hit

_MOST_TEXTS = 3


@cache
def _macros() -> Any:
    """Load the parts of the page, each a function that returns HTML."""
    environment = open_templates("degla.app")
    environment.filters.update(
        dot=html_mark, breakable=breakable, capitalized=capitalized, counted=counted, minus=minus, percent=percent,
        points=points, signed=signed_cosine,
    )  # fmt: skip
    environment.globals.update(margin=_margin, marked=_marked, others=_others, given=GIVEN, baseline=BASELINE)
    return environment.get_template("comparison.html.j2").module


def complaint(message: str) -> Markup:
    """Render an error message."""
    return Markup(_macros().complaint(message))


def hint(text: str) -> Markup:
    """Render advice on what to do when there is nothing to show."""
    return Markup(_macros().hint(text))


def model_marks(names: Sequence[str]) -> dict[str, Mark]:
    """Assign a colour to each model: grey for the first of several, which is the baseline."""
    return marks_of(names, baseline=names[0] if len(set(names)) > 1 else None)


def short_names(names: Sequence[str]) -> list[str]:
    """Return the last part of each model's path, or the whole paths if the last parts are not unique."""
    last = [name.rstrip("/").rpartition("/")[2] for name in names]
    return last if len(set(last)) == len(set(names)) else list(names)


def legend(names: Sequence[str]) -> Markup:
    """Render the models with their colours."""
    marks = model_marks(names)
    return Markup(_macros().legend([(name, marks[name]) for name in names]))


def look_html(result: Look, names: Sequence[str]) -> Markup:
    """Render the captions of one image with a bar per model, and each model's preferred caption.

    Args:
        result: ranking for one image.
        names: display names of the models.
    """
    marks = model_marks(names)
    models = [(name, marks[name], each) for name, each in zip(names, result.models, strict=True)]
    kinds = {"softmax": "softmax probability over these captions", "sigmoid": "sigmoid probability of each caption"}
    phrases = [kinds[kind] for kind in dict.fromkeys(each.share_by for each in result.models) if kind]
    note = f"Bars: {' or '.join(phrases)}. " if phrases else ""
    note += "The number on the right is the cosine of image and caption" + (
        "." if phrases else "; this model has no logit scale, so it gives no probabilities."
    )
    if result.change(0, 0) is not None:
        note += f" Change: from {names[0]} to {names[-1]}, in percentage points."
    return Markup(_macros().look(result, models, note))


def _margin(captions: Sequence[Candidate], cosines: Sequence[float]) -> float | None:
    """Return the best true caption's cosine minus the best false one's; None if no caption is known to be false."""
    true, false = (
        [value for each, value in zip(captions, cosines, strict=True) if bool(each.rule) == wrong]
        for wrong in (False, True)
    )
    return max(true) - max(false) if false else None


def _marked(captions: Sequence[Candidate], candidate: Candidate) -> list[TextPiece]:
    """Split a false caption into pieces and mark the words that the nearest true caption does not have."""
    true = [each.text for each in captions if not each.rule]
    nearest = min(true, key=lambda text: measure_difference(text, candidate.text).distance)
    return mark_words(nearest, candidate.text)[1]


def gallery_html(
    changes: Sequence[ItemChange], *, total: int, titles: Mapping[str, str], names: tuple[str, str]
) -> Markup:
    """Render items as cards: image, texts, and the margins before and after on one axis.

    Args:
        changes: the items.
        total: number of items of this kind, including those not shown.
        titles: titles of the benchmarks by name.
        names: labels of the two methods.
    """
    if not changes:
        return hint("No items of this kind.")
    most = max(max(abs(each.before.margin), abs(each.after.margin)) for each in changes)
    items = counted(total, "item")
    those = f"The {len(changes)} of {items}" if len(changes) < total else capitalized(items)
    return Markup(_macros().gallery(changes, those, most, titles, names, _MOST_TEXTS))


def search_html(
    hits: Sequence[Sequence[Hit]], names: Sequence[str], thumbnail: Callable[[str], str | None], text: str
) -> Markup:
    """Render each model's best images in one column per model.

    Args:
        hits: of each model.
        names: of the models.
        thumbnail: returns the `data:` URL of an image of the folder, or None if it can no longer be read.
        text: the query.
    """
    marks = model_marks(names)
    columns = [(name, marks[name], best) for name, best in zip(names, hits, strict=True)]
    return Markup(_macros().search(columns, names, thumbnail, text))


def _others(hit: Hit, place: int, names: Sequence[str]) -> str:
    """Describe the ranks that the other models give an image."""
    ranks = enumerate(zip(names, hit.ranks, strict=True))
    return ", ".join(f"#{rank} by {name}" for number, (name, rank) in ranks if number != place)


def bad_html(bad: Sequence[str]) -> Markup:
    """Render the files that were skipped, and why."""
    return Markup(_macros().bad(bad)) if bad else Markup("")
