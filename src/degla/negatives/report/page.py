"""The report as one self-contained HTML page, with plots as inline SVG.

All plots use colours that follow the page's light or dark mode.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from degla.files import write_text
from degla.negatives.differences import mark_tokens
from degla.negatives.report.blind import CHANCE
from degla.negatives.report.counts import Drawn, RuleCounts, mean
from degla.negatives.report.examine import Examination, all_rules
from degla.negatives.report.tables import file_marks, giveaways, glance, inserted_words, model_answers, reasons, rules
from degla.pages import open_templates
from degla.pages.page import Facts, Fold, Grid, Page, Part, Raw, Section
from degla.pages.plot import FONT, SOFT, Mark, dress, new_figure, styled, to_svg
from degla.pages.table import html_mark, isolated
from degla.pages.words import counted
from degla.statistics.proportions import Proportion

_EXTREME: Final = 0.9
"""Accuracy of the blind test above which a rule is named at the top of the page."""


def write_page(files: Sequence[Examination], out: Path) -> None:
    """Write the page atomically.

    Raises:
        InputError: the page cannot be written.
    """
    environment = open_templates("degla.negatives.report")
    environment.filters.update(dot=html_mark, isolated=isolated)
    template: Any = environment.get_template("negatives.html.j2").module
    marks, drawings = file_marks(files), {name: Markup(drawing) for name, drawing in _drawings(files).items()}
    labels = ", ".join(file.label for file in files)
    lead = (
        f"{labels}: {counted(files[0].counts.captions, 'caption')}, {counted(len(all_rules(files)), 'rule')}. Shares "
        "are in percent; brackets and bars are 95 % intervals."
    )
    parts: list[Part] = [
        Section("At a glance", [glance(files)]),
        Section("Rules", [rules(files), template.on_rules]),
        Section("Coverage, length and size of the change", [Raw(template.changes(marks, drawings))]),
    ]
    if drawings["blind"] or drawings["likelier"]:
        judges = dict.fromkeys(file.judge for file in files if file.judge)
        plots = Raw(template.texts(marks, drawings, ", ".join(judges)))
        parts.append(Section("Does the text give the negative away?", [template.on_classifier, plots]))
    if (table := giveaways(files)).rows:
        parts.append(Fold("What gives negatives away", [table, template.on_cues], open=True))
    for title, table, below in (
        ("Inserted words", inserted_words(files), [template.on_words]),
        ("Refused, or no proposal", reasons(files), []),
        ("Answers of the language model", model_answers(files), list(_requests(files))),
    ):
        if table.rows:
            parts.append(Section(title, [table, *below]))
    if samples := _samples(files):
        parts.append(Section("Samples", [template.on_samples, Raw(template.samples(samples, marks, mark_tokens))]))
    facts = [Facts(_facts(file), title=file.label, mark=marks[file.label]) for file in files]
    page = Page(
        "Hard negatives",
        [*parts, Section("How they were made", [Grid(facts)])],
        lead=[lead],
        warnings=notes(files),
        tab=f"Hard negatives: {labels}",
        foot=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(out, page.html())


def notes(files: Sequence[Examination]) -> list[str]:
    """Return warnings that a reader should see before trusting the numbers."""
    warnings = []
    for file in files:
        counts = file.counts
        if counts.without_caption:
            warnings.append(
                f"{file.label}: {counts.without_caption:,} of {counted(counts.rows, 'row')} not counted: caption ids "
                f"missing from the captions file, for example {counts.missing_ids[0]!r}."
            )
        total = (file.manifest or {}).get("captions")
        if isinstance(total, int) and total != counts.captions:
            warnings.append(
                f"{file.label}: made from {counted(total, 'caption')}, counted against {counts.captions:,}."
            )
        if file.manifest is None:
            warnings.append(f"{file.label}: no manifest found next to the file, so its settings are unknown.")
        names = [name for name, blind in file.blind.items() if blind.accuracy.low > _EXTREME]
        if names:
            warnings.append(
                f"{file.label}: nearly all negatives of {', '.join(names)} can be identified from the text alone; a "
                "model can learn to reject them without looking at the image."
            )
        untested = [rule.name for rule in file.rules if rule.accepted and rule.name not in file.blind]
        if untested and file.blind:
            warnings.append(f"{file.label}: too few negatives for the blind test: {', '.join(untested)}.")
    return warnings


def _drawings(files: Sequence[Examination]) -> dict[str, str]:
    drawings = {
        "coverage": _draw_coverage(files),
        "rules_a_caption": _draw_rules_a_caption(files),
        "lengths": _draw_lengths(files),
        "distances": _draw_distances(files),
        "blind": "",
        "likelier": "",
    }
    if any(file.blind for file in files):
        shares = {file.label: {name: blind.accuracy for name, blind in file.blind.items()} for file in files}
        drawings["blind"] = _draw_shares(files, shares, name="blind", label="text-only accuracy (%), chance 50")
    if any(file.likelier for file in files):
        shares = {file.label: dict(file.likelier) for file in files}
        drawings["likelier"] = _draw_shares(files, shares, name="likelier", label="caption likelier than negative (%)")
    return drawings


def _samples(files: Sequence[Examination]) -> dict[str, dict[str, list[Drawn]]]:
    """Map each rule and file label to sample rows, accepted ones first."""
    samples: dict[str, dict[str, list[Drawn]]] = {}
    for name in all_rules(files):
        for file in files:
            rule = file.counts.rules.get(name)
            if rule is not None and (drawn := [*rule.to_read.items, *rule.refused_to_read.items]):
                samples.setdefault(name, {})[file.label] = drawn
    return samples


def _requests(files: Sequence[Examination]) -> Iterator[str]:
    """Yield a sentence on each file's requests to the language model."""
    for file in files:
        if (outcomes := file.outcomes) is not None:
            forms = ", ".join(f"{form} {times:,}" for form, times in sorted(outcomes.by_form().items()))
            others = "".join(f"; {what} {times:,}" for what, times in sorted(outcomes.counts.items()))
            yield (
                f"{file.label}: {counted(outcomes.requests, 'request')} ({forms}), sent "
                f"{counted(outcomes.attempts, 'time')}; {counted(outcomes.repaired, 'answer')} repaired{others}."
            )


def _facts(file: Examination) -> list[tuple[str, str]]:
    """Return the manifest's entries as text."""
    facts = [("file", file.name), ("rows", f"{file.counts.rows:,}")]
    sources: Counter[tuple[str, str]] = sum((rule.sources for rule in file.rules), Counter())
    entries = [f"{source}{', ' + form if form else ''}: {times:,}" for (source, form), times in sources.most_common()]
    facts.append(("accepted, by source", "; ".join(entries) or "none"))
    for name, value in (file.manifest or {}).items():
        words = isinstance(value, list) and all(isinstance(each, str) for each in value)
        text = ", ".join(value) if words else value if isinstance(value, str) else json.dumps(value)
        facts.append((name.replace("_", " "), text))
    return facts


_WIDTH: Final = 4.7
"""Inches; at this width, letters are as large as the page's text on a phone."""


def _on_line(mark: Mark) -> dict[str, Any]:
    """Return matplotlib's options of a line or bar's end: a shape is drawn only where colours repeat."""
    return {"color": mark.colour, "marker": "" if mark.shape == "circle" else mark.marker, "markersize": 4}


@styled
def _draw_coverage(files: Sequence[Examination]) -> str:
    """One bar a rule and file: captions that have an accepted negative of the rule, percent."""
    names = all_rules(files)
    figure, axes = _new_rows(names, files)
    for file, name, at, mark in _rows(names, files):
        if rule := file.counts.rules.get(name):
            share = 100 * rule.covered / file.counts.captions
            axes.barh(at, share, height=0.9 * 0.8 / len(files), color=mark.colour, zorder=2)
            axes.plot(share, at, **_on_line(mark))
            axes.text(share + 1.2, at, f"{share:.0f}", va="center", fontsize=FONT)
    axes.set_xlim(0, 108)
    axes.set_xlabel("captions with an accepted negative (%)")
    return _finish(figure, axes, "coverage", grid="x")


@styled
def _draw_rules_a_caption(files: Sequence[Examination]) -> str:
    """Share of captions by the number of different rules that they have a negative of."""
    marks = file_marks(files)
    figure, axes = new_figure(_WIDTH, 2.7)
    most = max(max(file.counts.rules_a_caption) for file in files)
    width = 0.84 / len(files)
    for place, file in enumerate(files):
        counts = file.counts.rules_a_caption
        heights = [100 * counts[number] / file.counts.captions for number in range(most + 1)]
        middles = [number - 0.42 + width * (place + 0.5) for number in range(most + 1)]
        axes.bar(middles, heights, width=0.9 * width, color=marks[file.label].colour, zorder=2)
        axes.plot(middles, heights, linestyle="", **_on_line(marks[file.label]))
    axes.set_xticks(range(most + 1))
    axes.set_xlabel("different rules per caption")
    axes.set_ylabel("captions (%)")
    return _finish(figure, axes, "rules-a-caption", grid="y")


@styled
def _draw_lengths(files: Sequence[Examination]) -> str:
    """Draw the lengths in words of captions (grey, first file) and their negatives, as shares of pairs."""
    marks = file_marks(files)
    figure, axes = new_figure(_WIDTH, 2.7)
    _distribution(axes, _summed(files[0], lambda rule: rule.caption_lengths), Mark(SOFT), filled=True)
    for file in files:
        _distribution(axes, _summed(file, lambda rule: rule.lengths), marks[file.label])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("words")
    axes.set_ylabel("accepted pairs (%)")
    return _finish(figure, axes, "lengths", grid="y")


@styled
def _draw_distances(files: Sequence[Examination]) -> str:
    """Draw the words changed between caption and negative: mean, and the range of the middle 80 % of pairs."""
    names = all_rules(files)
    figure, axes = _new_rows(names, files)
    for file, name, at, mark in _rows(names, files):
        rule = file.counts.rules.get(name)
        if rule is not None and rule.accepted:
            ends = quantile(rule.distances, 0.1), quantile(rule.distances, 0.9)
            axes.plot(ends, (at, at), color=mark.colour, linewidth=3, alpha=0.45, solid_capstyle="round")
            axes.plot(mean(rule.distances), at, mark.marker, color=mark.colour, markersize=6, zorder=4)
    axes.set_xlim(left=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("words inserted, deleted or replaced")
    return _finish(figure, axes, "distances", grid="x")


@styled
def _draw_shares(
    files: Sequence[Examination], shares: Mapping[str, Mapping[str, Proportion]], *, name: str, label: str
) -> str:
    """Draw a dot with its 95 % bar for each rule and file, and chance as a line.

    Args:
        files: the files, in order.
        shares: share by file label and rule.
        name: name of the plot.
        label: label of the axis.
    """
    names = [rule for rule in all_rules(files) if any(rule in by_rule for by_rule in shares.values())]
    figure, axes = _new_rows(names, files)
    for file, rule, at, mark in _rows(names, files):
        if share := shares[file.label].get(rule):
            axes.plot((100 * share.low, 100 * share.high), (at, at), color=mark.colour, linewidth=1.8, alpha=0.7)
            axes.plot(100 * share.share, at, mark.marker, color=mark.colour, markersize=6.5, zorder=4)
    axes.axvline(100 * CHANCE, color=SOFT, linewidth=1.1, linestyle=(0, (3, 3)), zorder=1)
    low = min([100 * share.low for by_rule in shares.values() for share in by_rule.values()] + [44.0])
    axes.set_xlim(max(0.0, low - 3), 101)
    axes.set_xlabel(label)
    return _finish(figure, axes, name, grid="x")


def quantile(counts: Counter[int], level: float) -> int:
    """Return the smallest value that at least a share `level` of the counted numbers does not exceed."""
    values = sorted(counts)
    reached = accumulate(counts[value] for value in values)
    return next(value for value, times in zip(values, reached, strict=True) if times >= level * counts.total())


def _summed(file: Examination, part: Callable[[RuleCounts], Counter[int]]) -> Counter[int]:
    return sum((part(rule) for rule in file.rules), Counter())


def _distribution(axes: Any, counts: Counter[int], mark: Mark, *, filled: bool = False) -> None:
    total = sum(counts.values())
    if not total:
        return
    values = range(max(min(counts) - 1, 0), quantile(counts, 0.995) + 2)
    heights = [100 * counts[value] / total for value in values]
    if filled:
        axes.fill_between(values, heights, step="mid", color=mark.colour, alpha=0.28, linewidth=0)
    else:
        axes.step(values, heights, where="mid", linewidth=1.8, **_on_line(mark))


def _new_rows(names: Sequence[str], files: Sequence[Examination]) -> tuple[Any, Any]:
    """Create a figure with a row for each rule, high enough for one mark per file."""
    figure, axes = new_figure(_WIDTH, 0.7 + len(names) * (0.16 + 0.16 * len(files)))
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _rows(names: Sequence[str], files: Sequence[Examination]) -> Iterator[tuple[Examination, str, float, Mark]]:
    """Yield every file and rule with its vertical position and the file's mark."""
    for place, (file, mark) in enumerate(zip(files, file_marks(files).values(), strict=True)):
        for row, name in enumerate(names):
            yield file, name, row - 0.4 + 0.8 / len(files) * (place + 0.5), mark


def _finish(figure: Any, axes: Any, name: str, *, grid: str) -> str:
    """Return the figure as an `<svg>` element that can share a page with others."""
    dress(axes, grid)
    figure.tight_layout(pad=0.4)
    return to_svg(figure, name)
