"""What balancing did, as a table for a terminal of eighty columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from degla.negatives.balance.outcome import Balance
from degla.negatives.balance.told import Told

if TYPE_CHECKING:
    from rich.console import Group


def render(report: Balance) -> Group:
    """One line a rule, then all of them, then what it costs."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="Told from the texts alone, %, before and after", title_justify="left", box=box.SIMPLE_HEAD,
        collapse_padding=True, pad_edge=False,
    )  # fmt: skip
    table.add_column("rule", overflow="fold")
    for heading in ("captions %", "words", "length", "likelihood", "all"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for rule, state in report.rules.items():
        share = f"{_percent(state.captions, report.captions)} {_percent(state.kept, report.captions)}"
        fate = {"": "", "too_few": "too few"}.get(state.reason, "left out")
        table.add_row(rule, share, *_cells(state.before, state.after), fate)
    covered = " ".join(_percent(number, report.captions) for number in report.covered)
    table.add_row("together", covered, *_cells(report.before, report.after), "")
    before, after = report.negatives
    said = (
        f"{report.captions:,} captions: negatives, one a caption and rule, {before:,} before and {after:,} after; "
        "captions %: with a candidate, and with one that stays. Classifiers learn on one half of the images and are "
        "asked about the other; chance is 50.\n"
    )
    return Group(table, Text(said))


def _cells(before: Told | None, after: Told | None) -> list[str]:
    names = ("words", "length", "likelihood", "all")
    return [
        " ".join("-" if told is None else f"{100 * getattr(told, name):.0f}" for told in (before, after))
        for name in names
    ]


def _percent(number: int, total: int) -> str:
    return f"{100 * number / total:.1f}" if total else "-"
