"""Names in a plot: beside their points while they fit, in a key when they do not."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from degla.pages import plot as svg


def _named(points: dict[str, tuple[float, float]], *, width: float = 5) -> tuple[Any, Any]:
    figure, axes = svg.new_figure(width, 4)
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    svg.label_points(figure, axes, points, dict.fromkeys(points, svg.Mark("#b08b1e")), [])
    figure.canvas.draw()
    return figure, axes


@pytest.mark.filterwarnings("error")
def test_a_name_in_another_script_is_no_warning() -> None:
    def draw() -> str:
        figure, _ = _named({"模型": (5.0, 5.0)})
        return svg.to_svg(figure, "plot")

    assert "模型" in svg.styled(draw)()


@pytest.mark.parametrize("number", [2, 40])
def test_names_are_in_ink_whatever_their_mark(number: int) -> None:
    """Colours of marks on white, or on black, have too little contrast for text."""

    def draw() -> str:
        return svg.to_svg(_named({f"model {at}": (1.0 + at / 5, 5.0) for at in range(number)})[0], "plot")

    fills = re.findall(r"<text [^>]*fill: ([^\";]+)[^>]*>model", svg.styled(draw)())
    assert fills == ["var(--ink)"] * number


@pytest.mark.parametrize("gap", [5.0, 0.4])
def test_names_that_fit_stand_beside_their_points(gap: float) -> None:
    points = {"first": (4.0, 4.0), "second": (4.0 + gap, 4.0), "third": (4.0, 4.0 + gap)}
    figure, axes = _named(points)
    assert axes.get_legend() is None
    assert {text.get_text() for text in axes.texts} == points.keys()
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(axes.get_window_extent(renderer).contains(*corner) for box in boxes for corner in (box.min, box.max))


@pytest.mark.parametrize(
    "points",
    [
        {f"a model of many, number {number}": (5 + number / 50, 5.0) for number in range(16)},
        {"a name that is longer than the whole plot is wide, whichever side of its point it would stand": (5.0, 5.0)},
    ],
    ids=["crowded", "long"],
)
def test_names_that_do_not_fit_stand_in_a_key_inside_the_figure(points: dict[str, tuple[float, float]]) -> None:
    figure, axes = _named(points)
    assert not axes.texts
    key = axes.get_legend()
    lines = [text.get_text().splitlines() for text in key.get_texts()]
    assert [" ".join(of_name) for of_name in lines] == list(points)
    assert max(len(line) for of_name in lines for line in of_name) <= 40, "a wider key makes all letters smaller"
    renderer = figure.canvas.get_renderer()
    box, frame = key.get_window_extent(renderer), axes.get_window_extent(renderer)
    assert box.x0 >= frame.x1 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert frame.width == pytest.approx(5 * figure.dpi * 0.775), "the axes keep their width"
    assert figure.get_figheight() == 4


def test_a_key_of_many_names_is_not_cut_off_at_the_bottom() -> None:
    figure, axes = _named({f"a model of many, number {number}": (5 + number / 50, 5.0) for number in range(40)})
    renderer = figure.canvas.get_renderer()
    box = axes.get_legend().get_window_extent(renderer)
    assert box.y0 >= 0 and box.y1 <= figure.bbox.y1
    assert axes.get_window_extent(renderer).height == pytest.approx(4 * figure.dpi * 0.77), "the axes keep their height"


def test_a_line_leads_to_a_name_that_stands_further_away() -> None:
    points = {f"model {number}": (5 + number / 20, 5.0) for number in range(6)}
    _, axes = _named(points)
    assert len(axes.texts) == 6, "names that stand close have no line"
    assert [tuple(line.get_xydata()[0]) for line in axes.lines] == [points["model 4"], points["model 5"]]


def test_what_a_name_covers() -> None:
    box = (0.0, 0.0, 4.0, 2.0)
    around = np.array([(-1, 1), (5, 1), (1, -1), (1, 3), (4, 1)], dtype=float)
    assert svg._covered(around, box) == 0 and svg._covered(np.concatenate([around, [(1, 1), (3, 1)]]), box) == 2
    beside = [(4, 0, 8, 2), (-4, 0, 0, 2), (0, 2, 4, 4), (0, -2, 4, 0)]
    assert not any(svg._overlap(box, other) for other in beside)
    assert all(svg._overlap(box, other) for other in [(3, 1, 8, 4), (-4, -1, 1, 1), (1, 0.5, 2, 1), (-1, -1, 5, 3)])


def test_a_name_never_lies_on_the_point_of_another() -> None:
    """It would be read as that point's name."""
    points = {24 * "a": (6.3, 5.1), 20 * "b": (6.2, 5.7), 24 * "c": (4.3, 5.3), 6 * "d": (2.6, 5.1)}
    figure, axes = _named(points, width=svg.PHONE)
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert bool(boxes) == (axes.get_legend() is None)
    centres = [axes.transData.transform(point) for point in points.values()]
    assert not [box for box in boxes for centre in centres if box.contains(*centre)]


def test_on_a_phone_the_key_stands_below_and_the_picture_gets_no_wider() -> None:
    """A wider one would be shown smaller there, and its letters could not be read."""
    points = {f"a model of many, number {number}": (5 + number / 50, 5.0) for number in range(16)}
    points["a model of a name that is longer than a telephone is wide, and so is broken"] = (5.5, 5.0)
    figure, axes = _named(points, width=svg.PHONE)
    assert figure.get_figwidth() == svg.PHONE
    renderer = figure.canvas.get_renderer()
    box, axes_box = axes.get_legend().get_window_extent(renderer), axes.get_tightbbox(renderer, bbox_extra_artists=[])
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= axes.get_window_extent(renderer).y0
    assert not box.overlaps(axes_box), "nor does it lie on the axis's numbers"
    assert axes.get_window_extent(renderer).height == pytest.approx(4 * figure.dpi * 0.77), "the axes keep their height"
