"""Scores over a sequence of tasks: a panel a task, a line an arm, from the base to the last task."""

from __future__ import annotations

from collections.abc import Sequence

from degla import svg
from degla.study.plot import standing_alone
from degla.study.retention import Retention
from degla.study.sequence_plan import SequencePlan

_PANEL_INCHES = 2.5
_PANELS_A_ROW = 3


@svg.styled
def draw_sequence(plan: SequencePlan, arms: Sequence[Retention]) -> str:
    """An SVG file: bands are 95 % intervals over seeds; the dashed line is where the panel's own task was learnt."""
    names = [*(task.name for task in plan.tasks), *plan.also]
    across = min(len(names), _PANELS_A_ROW)
    down = -(-len(names) // across)
    figure, first = svg.new_figure(_PANEL_INCHES * across + 0.4, 2.6 * down + 0.5)
    first.remove()
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for number, (name, axes) in enumerate(zip(names, panels, strict=False)):
        for place, arm in enumerate(arms):
            colour = svg.PALETTE[place % len(svg.PALETTE)]
            steps = range(len(plan.tasks) + 1)
            values = [arm.cell(row, number) if number < len(plan.tasks) else arm.beside(name, row) for row in steps]
            means = [100 * value.mean for value in values]
            axes.plot(steps, means, color=colour, marker="o", markersize=4, linewidth=1.6, label=arm.arm)
            widths = [100 * (value.half_width or 0.0) for value in values]
            low = [max(0.0, mean - width) for mean, width in zip(means, widths, strict=True)]
            high = [min(100.0, mean + width) for mean, width in zip(means, widths, strict=True)]
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        if number < len(plan.tasks):
            axes.axvline(number + 1, color=svg.SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axes.set_title(name, fontsize=svg.FONT)
        axes.set_xticks(range(len(plan.tasks) + 1), ["base", *(str(row + 1) for row in range(len(plan.tasks)))])
        svg.dress(axes)
        if number % across == 0:
            axes.set_ylabel("score (%)")
        if number >= len(names) - across:
            axes.set_xlabel("tasks learnt")
    for axes in panels[len(names) :]:
        axes.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / (2.6 * down + 0.5)))
    figure.legend(handles, labels, loc="upper left", ncols=len(labels), frameon=False, fontsize=svg.FONT)
    return standing_alone(svg.to_svg(figure, "continual"))
