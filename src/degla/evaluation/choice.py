"""Weigh gain against loss: a model's joint score, and the choice of the best interpolation that keeps enough."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from degla.errors import InputError
from degla.pages.table import Column, Table
from degla.pages.words import counted, percent, points
from degla.shelf import did_you_mean

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class TradeOff:
    """Gain and loss of a model against the one it was fine-tuned from. All values are shares: 0.01 is one point."""

    gained: float
    """Score that should rise, minus the start's."""
    lost: float
    """Score to keep: the start's minus this model's; below 0 if it rose."""
    joint: float
    """Gained minus price times lost."""


def trade_off(
    scores: Mapping[str, float], start: Mapping[str, float], *, gain: str, kept: str, price: float
) -> TradeOff:
    """Compute what was gained and lost.

    Args:
        scores: the fine-tuned model's scores by name, 0 to 1.
        start: scores of the model before fine-tuning.
        gain: name of the score that should rise.
        kept: name of the score to keep.
        price: price of a lost point, in gained points, 0 or more.
    """
    gained, lost = scores[gain] - start[gain], start[kept] - scores[kept]
    return TradeOff(gained, lost, gained - price * lost)


def require_score(place: str, name: str, names: Collection[str]) -> None:
    """Reject the name of a score that the benchmarks do not have.

    Args:
        place: where it is named: a flag, or a field of a file.
        name: of the score.
        names: all existing names; a name with a colon includes its benchmark.

    Raises:
        InputError: there is no such score.
    """
    if name not in names:
        raise InputError(
            f"{place} {name!r}: the benchmarks have no such part or named average where higher is better."
            f"{did_you_mean(name, names)} Known: {', '.join(score for score in names if ':' not in score)}. Name one "
            "of these, or add a benchmark that has it (recognition: zeroshot or world)."
        )


POINTS_TO_LOSE = 1.0
"""Default limit: largest loss of the kept score against the base, in points."""
NOTE = "Alpha was chosen on these items. To measure how good the choice is, evaluate it on other items."
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """One interpolation of the two models.

    Attributes:
        alpha: share of the fine-tuned model, 0 to 1.
        gain, kept: its two scores that the choice compares, 0 to 1.
        file: its result.
    """

    alpha: float
    gain: float
    kept: float
    file: Path


@dataclass(frozen=True)
class Sweep:
    """All measured interpolations, and the chosen one.

    Attributes:
        points: by rising alpha, the base first.
        gain, kept: names of the scores.
        limit: smallest kept score allowed, 0 to 1.
        rule: a sentence that explains the choice.
        warnings: caveats, in sentences.
    """

    points: tuple[Point, ...]
    gain: str
    kept: str
    limit: float
    rule: str
    chosen: Point
    warnings: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON; scores from 0 to 1."""
        values = asdict(self) | {"note": NOTE}
        for point in [*values["points"], values["chosen"]]:
            point["file"] = point["file"].name
        return values


def choose(points: Sequence[Point], *, gain: str, kept: str, keep: float | None = None) -> Sweep:
    """Choose the point with the best gain among those that keep enough; ties go to the most kept, then smallest alpha.

    Args:
        points: by rising alpha; the first is the base if `keep` is None.
        gain, kept: names of their scores.
        keep: smallest kept score allowed, in percent; None: `POINTS_TO_LOSE` below the first point's.

    Raises:
        InputError: no point keeps enough.
    """
    limit = points[0].kept - POINTS_TO_LOSE / 100 if keep is None else keep / 100
    allowed = [point for point in points if point.kept >= limit - _ROUNDING]
    if not allowed:
        best = max(points, key=lambda point: point.kept)
        raise InputError(
            f"no average keeps {kept} at {100 * limit:.1f} points or more; the best is {100 * best.kept:.1f}, at alpha "
            f"{best.alpha:g}. Lower --keep. Results were written, but no checkpoint was chosen."
        )
    chosen = max(allowed, key=lambda point: (point.gain, point.kept, -point.alpha))
    where = (
        f"at most {POINTS_TO_LOSE:g} point below the base's {100 * points[0].kept:.1f}"
        if keep is None
        else f"at least {keep:g}"
    )
    rule = (
        f"alpha {chosen.alpha:g}: the best {gain} ({100 * chosen.gain:.1f}) of the {len(allowed)} of "
        f"{counted(len(points), 'alpha')} that keep {kept} {where} points"
    )
    return Sweep(tuple(points), gain, kept, limit, rule, chosen)


def render_sweep(sweep: Sweep) -> RichTable:
    """Render every alpha with its two scores and their change against the base, in points."""
    notes = [f"{sweep.rule}.", NOTE, *sweep.warnings]
    if sweep.chosen.alpha == 0 and len(sweep.points) > 1:
        notes.append("No average gains anything within this limit. Set another limit with --keep PERCENT.")
    start = sweep.points[0]
    rows = []
    for point in sweep.points:
        remark = "below limit" if point.kept < sweep.limit - _ROUNDING else ""
        scores = ((point.gain, start.gain), (point.kept, start.kept))
        cells = [text for now, before in scores for text in (percent(now), points(now - before))]
        rows.append([f"{point.alpha:g}", *cells, "chosen" if point is sweep.chosen else remark])
    heads: list[Column | str] = ["alpha", sweep.gain, "change", sweep.kept, "change", Column("", align="left")]
    return Table(heads, rows).terminal(caption="\n".join(notes))
