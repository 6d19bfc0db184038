"""Plots of the report as inline SVG: few kinds, all in colours that follow the page's light or dark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from degla.negatives.report.blind import CHANCE
from degla.negatives.report.counts import RuleCounts, mean
from degla.negatives.report.examine import Examination, all_rules
from degla.pages.plot import FONT, PALETTE, SOFT, dress, new_figure, styled, to_svg
from degla.statistics.proportions import Proportion

_WIDTH: Final = 4.7
"""Inches: at this width letters are as large as the page's on a phone."""


def file_colours(files: Sequence[Examination]) -> dict[str, str]:
    """A file's colour, by its label, the same everywhere on the page."""
    return {file.label: PALETTE[place % len(PALETTE)] for place, file in enumerate(files)}


@styled
def coverage(files: Sequence[Examination]) -> str:
    """One bar a rule and file: captions that have an accepted negative of the rule, percent."""
    names, palette = all_rules(files), file_colours(files)
    figure, axes = _new_rows(names, files)
    for file, name, at in _rows(names, files):
        if rule := file.counts.rules.get(name):
            share = 100 * rule.covered / file.counts.captions
            axes.barh(at, share, height=0.9 * 0.8 / len(files), color=palette[file.label], zorder=2)
            axes.text(share + 1.2, at, f"{share:.0f}", va="center", fontsize=FONT)
    axes.set_xlim(0, 108)
    axes.set_xlabel("captions with an accepted negative (%)")
    return _finish(figure, axes, "coverage", grid="x")


@styled
def rules_a_caption(files: Sequence[Examination]) -> str:
    """Share of captions by the number of different rules that they have a negative of."""
    palette = file_colours(files)
    figure, axes = new_figure(_WIDTH, 2.7)
    most = max(max(file.counts.rules_a_caption) for file in files)
    width = 0.84 / len(files)
    for place, file in enumerate(files):
        counts = file.counts.rules_a_caption
        heights = [100 * counts[number] / file.counts.captions for number in range(most + 1)]
        middles = [number - 0.42 + width * (place + 0.5) for number in range(most + 1)]
        axes.bar(middles, heights, width=0.9 * width, color=palette[file.label], zorder=2)
    axes.set_xticks(range(most + 1))
    axes.set_xlabel("different rules a caption")
    axes.set_ylabel("captions (%)")
    return _finish(figure, axes, "rules-a-caption", grid="y")


@styled
def lengths(files: Sequence[Examination]) -> str:
    """Lengths of captions (grey, of the first file) and of their negatives, words; share of pairs."""
    palette = file_colours(files)
    figure, axes = new_figure(_WIDTH, 2.7)
    _distribution(axes, _summed(files[0], lambda rule: rule.caption_lengths), colour=SOFT, filled=True)
    for file in files:
        _distribution(axes, _summed(file, lambda rule: rule.lengths), colour=palette[file.label])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("words")
    axes.set_ylabel("accepted pairs (%)")
    return _finish(figure, axes, "lengths", grid="y")


@styled
def distances(files: Sequence[Examination]) -> str:
    """Words to change from the caption to the negative: mean, and the range of the middle 80 % of pairs."""
    names, palette = all_rules(files), file_colours(files)
    figure, axes = _new_rows(names, files)
    for file, name, at in _rows(names, files):
        rule = file.counts.rules.get(name)
        if rule is not None and rule.accepted:
            ends = quantile(rule.distances, 0.1), quantile(rule.distances, 0.9)
            axes.plot(ends, (at, at), color=palette[file.label], linewidth=3, alpha=0.45, solid_capstyle="round")
            axes.plot(mean(rule.distances), at, "o", color=palette[file.label], markersize=6, zorder=4)
    axes.set_xlim(left=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("words inserted, deleted or replaced")
    return _finish(figure, axes, "distances", grid="x")


@styled
def shares(
    files: Sequence[Examination], found: Mapping[str, Mapping[str, Proportion]], *, name: str, label: str
) -> str:
    """A dot and its 95 % bar a rule and file; chance is a line.

    Args:
        files: in their order.
        found: label of the file to rule to share.
        name: of the plot.
        label: of the axis.
    """
    names = [rule for rule in all_rules(files) if any(rule in known for known in found.values())]
    palette = file_colours(files)
    figure, axes = _new_rows(names, files)
    for file, rule, at in _rows(names, files):
        if share := found[file.label].get(rule):
            colour = palette[file.label]
            axes.plot((100 * share.low, 100 * share.high), (at, at), color=colour, linewidth=1.8, alpha=0.7)
            axes.plot(100 * share.share, at, "o", color=colour, markersize=6.5, zorder=4)
    axes.axvline(100 * CHANCE, color=SOFT, linewidth=1.1, linestyle=(0, (3, 3)), zorder=1)
    low = min([100 * share.low for known in found.values() for share in known.values()] + [44.0])
    axes.set_xlim(max(0.0, low - 3), 101)
    axes.set_xlabel(label)
    return _finish(figure, axes, name, grid="x")


def quantile(counts: Counter[int], level: float) -> int:
    """The smallest value that at least a share `level` of the counted numbers does not exceed."""
    wanted, reached = level * sum(counts.values()), 0
    for value, times in sorted(counts.items()):
        reached += times
        if reached >= wanted:
            return value
    raise ValueError("no number was counted")


def _summed(file: Examination, part: Callable[[RuleCounts], Counter[int]]) -> Counter[int]:
    return sum((part(rule) for rule in file.rules), Counter())


def _distribution(axes: Any, counts: Counter[int], *, colour: str, filled: bool = False) -> None:
    total = sum(counts.values())
    if not total:
        return
    values = range(max(min(counts) - 1, 0), quantile(counts, 0.995) + 2)
    heights = [100 * counts[value] / total for value in values]
    if filled:
        axes.fill_between(values, heights, step="mid", color=colour, alpha=0.28, linewidth=0)
    else:
        axes.step(values, heights, where="mid", color=colour, linewidth=1.8)


def _new_rows(names: Sequence[str], files: Sequence[Examination]) -> tuple[Any, Any]:
    """A figure with a row for each rule, high enough for one mark a file."""
    figure, axes = new_figure(_WIDTH, 0.7 + len(names) * (0.16 + 0.16 * len(files)))
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _rows(names: Sequence[str], files: Sequence[Examination]) -> Iterator[tuple[Examination, str, float]]:
    """Every file and rule with its height in the figure."""
    for place, file in enumerate(files):
        for row, name in enumerate(names):
            yield file, name, row - 0.4 + 0.8 / len(files) * (place + 0.5)


def _finish(figure: Any, axes: Any, name: str, *, grid: str) -> str:
    """The figure as an `<svg>` element that can stand beside others in one page."""
    dress(axes, grid)
    figure.tight_layout(pad=0.4)
    return to_svg(figure, name)
