"""How models beside each other look on a page: ranked captions, items that changed, found pictures, as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from degla.evaluation.changes import ItemAnswers, ItemChange
from degla.look import GIVEN, Candidate, Look, ModelLook
from degla.negatives.differences import mark_words, measure_difference
from degla.pages.plot import BASELINE, Mark, marks_of
from degla.pages.table import breakable, html_mark
from degla.pages.words import capitalized, counted, minus, percent, points
from degla.search import Hit

_TRUE = Markup('<span class="sign up" title="true">✓</span>')
_FALSE = Markup('<span class="sign down" title="false">✗</span>')
_MOST_TEXTS = 3


def complaint(message: str) -> Markup:
    """What is wrong with what was asked."""
    return Markup('<p class="complaint" role="alert">{}</p>').format(capitalized(message))


def hint(text: str) -> Markup:
    """What to do, where there is nothing to show."""
    return Markup('<p class="hint">{}</p>').format(text)


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
    entries = (Markup("<span>{}{}</span>").format(html_mark(marks[name]), breakable(name)) for name in names)
    return Markup('<div class="legend">{}</div>').format(Markup("").join(entries))


def look_html(result: Look, names: Sequence[str]) -> Markup:
    """Captions of one picture with a bar a model, and what each model prefers.

    Args:
        result: of one picture.
        names: of the models, as the page has them.
    """
    marks = model_marks(names)
    models = [(name, marks[name], each) for name, each in zip(names, result.models, strict=True)]
    verdicts = Markup("").join(_preference(result.captions, *model) for model in models)
    kinds = {"softmax": "share of the softmax over these captions", "sigmoid": "the caption's own probability"}
    told = [kinds[kind] for kind in dict.fromkeys(each.share_by for each in result.models) if kind]
    note = f"Bars: {' or '.join(told)}; " if told else ""
    note += "the number behind is the cosine of picture and caption" + (
        "." if told else ", which is all this model has."
    )
    if result.change(0, 0) is not None:
        note += f" Change: from {names[0]} to {names[-1]}, in points of the share."
    rows = Markup("\n").join(_caption(result, place, models) for place in range(len(result.captions)))
    return Markup('<div class="verdicts">{}</div>\n<ol class="captions">{}</ol>\n<p class="soft">{}</p>').format(
        verdicts, rows, note
    )


def _preference(captions: Sequence[Candidate], name: str, mark: Mark, model: ModelLook) -> Markup:
    """What a model puts first; where captions are known to be false, whether it is right."""
    cosines, ranks = model.cosines[0], model.ranks[0]
    true, false = ([value for each, value in zip(captions, cosines, strict=True) if bool(each.rule) == wrong]
                   for wrong in (False, True))  # fmt: skip
    first = captions[ranks.index(1)]
    lead, tone, text = "", "", Markup("puts first: “{}”").format(first.text)
    if false:
        margin = max(true) - max(false)
        tone = "up" if margin > 0 else "down"
        text = Markup("{} {}").format(_TRUE, "puts a true caption first") if margin > 0 else Markup("{} {}").format(
            _FALSE, "puts a false caption first" if margin < 0 else "cannot tell true from false"
        )  # fmt: skip
        lead = Markup('<p class="soft">best true less best false caption: {} cosine</p>').format(_signed(margin))
    return Markup('<div class="verdict {}"><h3>{}{}</h3><p>{}</p>{}</div>').format(
        tone, html_mark(mark), breakable(name), text, lead
    )


def _caption(result: Look, place: int, models: Sequence[tuple[str, Mark, ModelLook]]) -> Markup:
    candidate = result.captions[place]
    known = any(each.rule for each in result.captions)
    sign = (_FALSE if candidate.rule else _TRUE) if known else Markup("")
    text = _marked(result.captions, candidate) if candidate.rule else Markup("{}").format(candidate.text)
    tag = "false" if candidate.rule == GIVEN else candidate.rule
    label = Markup(' <span class="tag">{}</span>').format(tag) if tag else Markup("")
    bars = Markup("").join(_bar(place, *model) for model in models)
    change = result.change(0, place)
    moved = Markup("")
    if change is not None:
        better = change < 0 if candidate.rule else change > 0
        still = abs(change) < 0.0005  # printed as 0.0
        tone = "" if not known or still else "up" if better else "down"
        moved = Markup('<p class="moved {}">{}<small> points</small></p>').format(
            tone, percent(0.0) if still else points(change)
        )
    return Markup(
        '<li class="{}"><p class="text">{} {}{}</p><div class="measured"><div class="bars">{}</div>{}</div></li>'
    ).format("false" if candidate.rule else "true", sign, text, label, bars, moved)


def _marked(captions: Sequence[Candidate], candidate: Candidate) -> Markup:
    """A false caption, with the words marked that the nearest true one does not have."""
    true = [each.text for each in captions if not each.rule]
    nearest = min(true, key=lambda text: measure_difference(text, candidate.text).distance)
    pieces = (
        Markup("<mark>{}</mark>").format(piece) if changed else Markup("{}").format(piece)
        for piece, changed in mark_words(nearest, candidate.text)[1]
    )
    return Markup("").join(pieces)


def _bar(place: int, name: str, mark: Mark, model: ModelLook) -> Markup:
    rank, cosine = model.ranks[0][place], model.cosines[0][place]
    share = None if model.shares is None else model.shares[0][place]
    width = 0.0 if share is None else 100 * share
    return Markup(
        '<div class="bar{}" title="{}"><span class="rank">#{}</span><span class="track">'
        '<span style="width:{:.2f}%;background:{}"></span></span><b>{}</b><small>{}</small></div>'
    ).format(
        " first" if rank == 1 else "", name, rank, width, mark.colour,
        "" if share is None else f"{percent(share)} %", minus(f"{cosine:.3f}"),
    )  # fmt: skip


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
    cards = Markup("\n").join(_card(each, most, titles) for each in changes)
    those = f"The {len(changes)} of {counted(total, 'item')}" if len(changes) < total else capitalized(
        counted(total, "item")
    )  # fmt: skip
    return Markup(
        '<p class="soft">{} whose margin moved most from <b>{}</b> to <b>{}</b>. Margin: cosine of the true text less '
        'that of the best false one; left of zero the answer is wrong.</p><div class="cards">{}</div>'
    ).format(those, *names, cards)


def _card(change: ItemChange, most: float, titles: Mapping[str, str]) -> Markup:
    picture = Markup('<div class="nothing">the picture is not at hand</div>')
    if change.picture:
        picture = Markup('<img src="{}" alt="{}">').format(change.picture, f"image of {change.id}")
    elif change.true and not change.images:
        picture = Markup('<div class="nothing">asked without a picture</div>')
    texts = [(_TRUE, text) for text in change.true[:_MOST_TEXTS]] or [(Markup(""), change.id)]
    texts += [(_FALSE, text) for text in change.false[:_MOST_TEXTS]]
    lines = [Markup("<p>{} {}</p>").format(sign, text) for sign, text in texts]
    if len(change.false) > _MOST_TEXTS:
        lines.append(Markup('<p class="soft">and {} more</p>').format(len(change.false) - _MOST_TEXTS))
    if change.images > 1:
        lines.append(Markup('<p class="soft">of the first of {} images</p>').format(change.images))
    tone = "up" if change.change > 0 else "down"
    return Markup(
        '<article class="card {}">{}<div class="texts">{}</div>{}'
        '<p class="margin"><span class="{}">{} → {}</span> <span>{} → {}</span></p><p class="soft">{}</p></article>'
    ).format(
        tone, picture, Markup("").join(lines), _axis(change, most), tone, _signed(change.before.margin),
        _signed(change.after.margin), _answered(change.before), _answered(change.after),
        breakable(f"{titles.get(change.benchmark, change.benchmark)}, {change.part}"),
    )  # fmt: skip


def _axis(change: ItemChange, most: float) -> Markup:
    """Zero in the middle, a grey dot for the margin before, a coloured one for that after."""
    before, after = (50 + 46 * each.margin / most for each in (change.before, change.after))
    colour = "var(--up)" if change.change > 0 else "var(--down)"
    return Markup(
        '<svg class="axis" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect width="50" height="10" class="wrong"/><rect x="50" width="50" height="10" class="right"/>'
        '<line x1="{0:.2f}" x2="{1:.2f}" y1="5" y2="5" stroke="{2}" stroke-width="2"/>'
        '<rect x="{3:.2f}" y="1" width="1.6" height="8" fill="{4}"/>'
        '<rect x="{5:.2f}" y="1" width="1.6" height="8" fill="{2}"/>'
        "</svg>"
    ).format(before, after, colour, before - 0.8, BASELINE, after - 0.8)


def _signed(value: float) -> str:
    """A difference of cosines, 0.0612 as "+0.061"."""
    return minus(f"{value:+.3f}")


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
    marks = [model_marks(names)[name] for name in names]
    columns = Markup("").join(
        Markup('<section><h3>{}{}</h3><div class="hits" style="--frame:{}">{}</div></section>').format(
            html_mark(mark),
            breakable(name),
            mark.colour,
            Markup("").join(_hit(hit, place, names, thumbnail) for hit in found),
        )
        for place, (name, mark, found) in enumerate(zip(names, marks, hits, strict=True))
    )
    note = "" if len(names) < 2 else "Framed: another model has it far further down."
    return Markup('<h2>“{}”</h2><div class="columns">{}</div><p class="soft">{}</p>').format(text, columns, note)


def _hit(hit: Hit, place: int, names: Sequence[str], thumbnail: Callable[[str], str | None]) -> Markup:
    address = thumbnail(hit.path)
    picture = (
        Markup('<div class="nothing">cannot be read any more</div>')
        if address is None
        else Markup('<img src="{}" alt="{}">').format(address, hit.path)
    )
    others = [
        f"#{rank} by {name}"
        for number, (name, rank) in enumerate(zip(names, hit.ranks, strict=True))
        if number != place
    ]
    rank = hit.ranks[place]
    # A picture that another model does not have among its first ones is what there is to see.
    far = any(other > 2 * rank + 3 for other in hit.ranks)
    return Markup(
        '<figure class="{}">{}<figcaption><b>#{}</b> <span>{}</span><small>{}</small><small class="name">{}</small>'
        "</figcaption></figure>"
    ).format("far" if far else "", picture, rank, minus(f"{hit.cosine:.3f}"), ", ".join(others), breakable(hit.path))


def bad_html(bad: Sequence[str]) -> Markup:
    """Files that are left out, and why."""
    if not bad:
        return Markup("")
    lines = Markup("").join(Markup("<li>{}</li>").format(each) for each in bad)
    return Markup(
        '<details class="bad"><summary>{} cannot be read and {} left out</summary><ul>{}</ul></details>'
    ).format(counted(len(bad), "file"), "is" if len(bad) == 1 else "are", lines)
