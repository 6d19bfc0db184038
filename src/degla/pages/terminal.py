"""A table on a terminal that may be too narrow for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from itertools import takewhile

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table


class ContinuedTable(Table):
    """A table that continues below itself with the columns that do not fit, next to the columns of names again.

    Long names are wrapped, numbers never. Title and caption are as wide as the terminal, not as the table.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the title, the table or the tables into which it is divided, and the caption."""
        bare = copy(self)
        bare.title = bare.caption = None
        yield from filter(None, (self.title,))
        yield from bare._parts(console, options)
        yield from filter(None, (self.caption,))

    def _parts(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # A column's padding and left border, and the table's right border.
        frame, right = (2, 0) if self.collapse_padding else (3, 1)
        room = options.max_width - right
        widths = [frame + _longest([column.header, *column.cells], "\n") for column in self.columns]
        least = [frame + _least(column, max(10, options.max_width // 8)) for column in self.columns]
        names = len(list(takewhile(lambda column: column.justify == "left", self.columns)))
        if sum(widths) <= room or names == len(self.columns):
            yield from super().__rich_console__(console, options)
            return
        parts: list[list[int]] = []
        for place in range(names, len(self.columns)):
            if not parts or sum(least[each] for each in (*parts[-1], place)) > room:
                parts.append([*range(names)])
            parts[-1].append(place)
        for part in parts:
            table = copy(self)
            shown = _shrink([widths[each] for each in part], [least[each] for each in part], room)
            table.columns = [
                replace(self.columns[each], width=width - frame, _index=at)
                for at, (each, width) in enumerate(zip(part, shown, strict=True))
            ]
            yield from super(ContinuedTable, table).__rich_console__(console, options)


def _longest(cells: Iterable[object], separator: str | None = None) -> int:
    """Return the width of the longest word or line."""
    return max((cell_len(piece) for cell in cells for piece in str(cell).split(separator)), default=0)


def _least(column: Column, name: int) -> int:
    """Return the width below which a column is not shrunk: of its longest number, or a part of a name."""
    if column.justify == "left":
        return min(_longest([column.header, *column.cells]), name)
    return max(_longest(column.cells), min(_longest([column.header]), name))


def _shrink(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Shrink the widest columns until all fit or none can be shrunk further."""
    shrunk = list(widths)
    while sum(shrunk) > room and (wide := [at for at, width in enumerate(shrunk) if width > least[at]]):
        shrunk[max(wide, key=shrunk.__getitem__)] -= 1
    return shrunk
