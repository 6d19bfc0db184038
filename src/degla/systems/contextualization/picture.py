"""How many answers come among the first so many, a line a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from degla.pages.page import Figure
from degla.pages.plot import dress, marks_of, new_figure, styled, to_svg


def draw_ranks(ranks: Mapping[str, Sequence[float]], *, entities: int, data: str) -> Figure:
    """The share of test answers at or before each rank, on a logarithmic axis, and chance."""

    @styled
    def draw(width: float) -> str:
        figure, axes = new_figure(width, max(min(width * 0.6, 4.2), 3.0))
        marks = marks_of(ranks, baseline=next(iter(ranks)))
        for method, found in ranks.items():
            shares = [(place + 1) / len(found) for place in range(len(found))]
            axes.step(sorted(found), shares, where="post", color=marks[method].colour, label=method)
        axes.plot(range(1, entities + 1), [each / entities for each in range(1, entities + 1)], "k:", alpha=0.4,
                  label="chance")  # fmt: skip
        axes.set_xscale("log")
        decades = [10**power for power in range(len(str(entities)))]
        axes.set_xticks(decades, [f"{each:,}" for each in decades])
        axes.minorticks_off()
        axes.set_xlabel("rank")
        axes.set_ylabel("share of answers")
        dress(axes)
        # Below the lines, which fill the corners of a narrow picture.
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=5 if width > 6 else 3)
        figure.tight_layout()
        return to_svg(figure, f"ranks {data}")

    return Figure(draw, f"`{data}`: {entities} entities; heads and tails.", title="Answers by rank")
