"""One table, rendered as HTML, as Markdown or on a terminal.

The first cell of a row names it and stays visible when a wide table is scrolled. On a phone a `stacked` table becomes
one block per row, with the column's title before each cell; so does, on paper, one of too many columns for a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup, escape

from degla.pages import open_templates
from degla.pages.plot import SHAPES, Mark
from degla.pages.words import UNKNOWN, counted, printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

Tone = Literal["", "up", "down"]
Rendering = Literal["page", "text"]
"""HTML, or Markdown and terminal."""
_LETTER = "[\\u0590-\\u08ff\\ufb1d-\\ufdff\\ufe70-\\ufefc]"
_RIGHT_TO_LEFT = re.compile(rf"{_LETTER}+(?:[\s\d_./-]+{_LETTER}+)*")
"""Words of scripts such as Hebrew and Arabic."""
_TERMINAL_TONES = {"": "", "up": "green", "down": "red"}


@dataclass(frozen=True)
class Column:
    """A column's head.

    Attributes:
        title: its name.
        notes: small lines below it, only in HTML.
        align: right for numbers, left for words.
        where: "page": only in HTML; "text": only in Markdown and on the terminal.
        short: its name in Markdown and on the terminal; "" for the same.
    """

    title: str
    notes: tuple[str, ...] = ()
    align: Literal["left", "right"] = "right"
    where: Literal["everywhere", "page", "text"] = "everywhere"
    short: str = ""


@dataclass(frozen=True)
class TableCell:
    """One cell; a plain string is a cell with that value.

    Attributes:
        value: number or words.
        spread: directly after it, in muted colour: " ± 0.8".
        note: below it: an interval, or the difference to a baseline.
        tone: colour for better ("up") or worse ("down"), of the note, or of the value if there is no note.
        doubt: caveat about the note, below it.
        bold: the best of its kind.
        mark: its colour and shape in the plots.
        tags: small labels after it in HTML; elsewhere they replace an empty value.
        hint: tooltip, only in HTML.
        key: identifies the number for programs that read the page (`data-row`).
    """

    value: str = UNKNOWN
    spread: str = ""
    note: str = ""
    tone: Tone = ""
    doubt: str = ""
    bold: bool = False
    mark: Mark | None = None
    tags: tuple[str, ...] = ()
    hint: str = ""
    key: str = ""

    @property
    def text(self) -> str:
        """Value and spread as plain text."""
        return (self.value or ", ".join(self.tags)) + self.spread


@dataclass(frozen=True)
class TableRow:
    """A row; its first cell names it.

    Attributes:
        cells: one per column.
        kind: "floor": muted, for numbers that belong to no model; "more": belongs to the row above; "section": its only
            cell is a title of the rows below.
        key: identifies the row for programs that read the page (`data-row`).
    """

    cells: Sequence[TableCell | str]
    kind: Literal["", "floor", "more", "section"] = ""
    key: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, and rows with a cell for each.

    Attributes:
        columns: a plain string is a column of numbers; the first one is a column of names.
        rows: plain lists are ordinary rows.
        stacked: on a phone, show one block per row instead of a scrolling table.
        grouped: the first two cells name a row, and rows with the same first cell show it once: on a terminal on a line
            of its own.
    """

    columns: Sequence[Column | str]
    rows: Sequence[TableRow | Sequence[TableCell | str]]
    stacked: bool = False
    grouped: bool = False

    def _columns(self) -> list[Column]:
        first, *others = (Column(column) if isinstance(column, str) else column for column in self.columns)
        return [replace(first, align="left"), *others]

    def _shown(self, where: Rendering) -> list[Column]:
        columns = [column for column in self._columns() if column.where in ("everywhere", where)]
        return columns if where == "page" else [replace(each, title=each.short or each.title) for each in columns]

    def _rows(self, where: Rendering) -> Iterator[tuple[TableRow, list[tuple[Column, TableCell]]]]:
        columns = self._columns()
        for entry in self.rows:
            row = entry if isinstance(entry, TableRow) else TableRow(entry)
            cells = [TableCell(cell) if isinstance(cell, str) else cell for cell in row.cells]
            if row.kind != "section" and len(cells) != len(columns):
                raise ValueError(f"row {cells[0].value!r} has {counted(len(cells), 'cell')} for {len(columns)} columns")
            pairs = zip(columns, cells, strict=False)
            yield row, [(column, cell) for column, cell in pairs if column.where in ("everywhere", where)]

    def __html__(self) -> str:
        return Markup(_template().table(self._shown("page"), list(self._rows("page")), self.stacked, self.grouped))

    def markdown(self) -> str:
        """Return the lines of a Markdown table."""
        columns = self._shown("text")
        lines = [markdown_line(column.title for column in columns), markdown_line(["---"] * len(columns))]
        for row, cells in self._rows("text"):
            if row.kind == "section":
                continue
            texts = [_markdown_cell(cell) for _, cell in cells]
            if row.kind == "floor":
                texts[0] = f"*{texts[0]}*"
            lines.append(markdown_line(texts))
        return "\n".join(lines)

    def latex(self) -> str:
        """Return a `tabular` with the rules of LaTeX's package booktabs; notes and doubts are left out."""
        columns = self._shown("text")
        aligned = "".join(column.align[0] for column in columns)
        lines = [rf"\begin{{tabular}}{{{aligned}}}", r"\toprule", _latex_line(column.title for column in columns)]
        kind = "head"
        for row, cells in self._rows("text"):
            if row.kind == "section":
                continue
            if row.kind != kind:
                kind = row.kind
                lines.append(r"\midrule")
            lines.append(_latex_line((cell.text for _, cell in cells), bold=[cell.bold for _, cell in cells]))
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])

    def transposed(self) -> Table:
        """Return the table with a column for each row: a few rows of many numbers are too wide for a terminal."""
        first, *others = self._shown("text")
        rows = [[cell for _, cell in cells] for row, cells in self._rows("text") if row.kind != "section"]
        columns: list[Column | str] = [first, *(name.text for name, *_ in rows)]
        return Table(columns, [[column.title, *(row[at] for row in rows)] for at, column in enumerate(others, start=1)])

    def terminal(self, *, title: str = "", caption: str = "", slim: bool = False) -> RichTable:
        """Render for a terminal: long names are wrapped, numbers never; what does not fit continues below.

        Args:
            title: above the table.
            caption: below it.
            slim: without vertical lines, which leaves room for more columns.
        """
        from rich import box
        from rich.text import Text

        from degla.pages.terminal import ContinuedTable

        table = ContinuedTable(
            box=box.SIMPLE_HEAD if slim else box.HEAVY_HEAD, collapse_padding=slim, pad_edge=not slim,
            title_justify="left", caption_justify="left",
        )  # fmt: skip
        # As `Text`: a path may hold what would be markup.
        table.title = Text(printable(title), style="table.title") if title else None
        table.caption = Text(printable(caption), style="table.caption") if caption else None
        for number, column in enumerate(self._shown("text")):
            if not (self.grouped and number == 1):
                table.add_column(Text(printable(column.title)), justify=column.align, overflow="fold")
        group = None
        for row, cells in self._rows("text"):
            if row.kind == "section":
                table.add_section()
                continue
            texts = [_terminal_cell(cell, quiet=row.kind == "floor") for _, cell in cells]
            if self.grouped:
                name, second, *texts = texts
                if name.plain != group:
                    group = name.plain
                    table.add_row(name)
                texts.insert(0, Text("  ").append_text(second))
            table.add_row(*texts)
        return table


@cache
def _template() -> Any:
    environment = open_templates("degla.pages")
    environment.filters.update(breakable=breakable, dot=html_mark, whole_flags=whole_flags)
    return environment.get_template("table.html.j2").module


def markdown_line(cells: Iterable[str]) -> str:
    """Format a row of a Markdown table."""
    return "| " + " | ".join(re.sub(r"(\\*)\|", r"\1\1\|", cell).replace("\n", " ") for cell in cells) + " |"


_LATEX = {
    ord(letter): text
    for letter, text in {
        **{each: f"\\{each}" for each in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"±": r"$\pm$", "\N{MINUS SIGN}": "$-$", UNKNOWN: "--", "<": "$<$", ">": "$>$", "\n": " "},
        **{"≤": r"$\le$", "≥": r"$\ge$", "≠": r"$\ne$"},
        "\0": r"\mbox{}",  # See `_LIGATURE`; LuaLaTeX with OpenType fonts joins across "{}".
        **{"[": "{[}", "*": "{*}", "|": r"\textbar{}"},  # After \\ "[" and "*" would be its arguments.
    }.items()
}


_LIGATURE = re.compile(r"[-'`?!,](?=[-'`,])")
"""Signs that LaTeX joins with the next one: two hyphens become a dash."""


def _latex_line(cells: Iterable[str], bold: Iterable[bool] = repeat(False)) -> str:
    texts = [_LIGATURE.sub("\\g<0>\0", cell).translate(_LATEX) for cell in cells]
    marked = [rf"\textbf{{{text}}}" if strong else text for text, strong in zip(texts, bold, strict=False)]
    return " & ".join(marked) + r" \\"


def isolated(text: str) -> Markup:
    """Escape a text, so that names in it that are written from right to left leave the rest in order."""
    return Markup(_RIGHT_TO_LEFT.sub(r"<bdi>\g<0></bdi>", str(escape(printable(text)))))


def breakable(name: str) -> Markup:
    """Make a name breakable at the ends of its words, but not inside numbers."""
    text = re.sub(r"(?<=\w)-(?=\d)", "\N{NON-BREAKING HYPHEN}", str(isolated(name)))
    return Markup(re.sub(r"(?<!<)([/_.])(?=(?:<bdi>)?[^\W\d])", r"\1<wbr>", text))


def whole_flags(text: str) -> Markup:
    """Keep browsers from breaking a line between the two hyphens of `--per-rule`."""
    return Markup(re.sub(r"--[\w-]+", r'<span style="white-space:nowrap">\g<0></span>', str(isolated(text))))


def html_mark(mark: Mark | None) -> Markup:
    """Return the coloured shape of a mark in the plots; empty for None."""
    if mark is None:
        return Markup("")
    _, cut = SHAPES[mark.shape]
    shape = f";border-radius:0;clip-path:{cut}" if cut else ""
    return Markup('<span class="dot" style="background:{}{}"></span>').format(mark.colour, shape)


def _markdown_cell(cell: TableCell) -> str:
    text = f"**{cell.text}**" if cell.bold and cell.text else cell.text
    return text + (f"; {cell.note}" if cell.note else "") + (f" ({cell.doubt})" if cell.doubt else "")


def _terminal_cell(cell: TableCell, *, quiet: bool) -> Text:
    from rich.text import Text

    tone = _TERMINAL_TONES[cell.tone]
    style = " ".join(word for word in ("bold" if cell.bold else "", "" if cell.note else tone) if word)
    text = Text(printable(cell.text.replace(" ± ", "±")), style="dim" if quiet else style)
    if cell.note:
        text.append(printable(f"\n{cell.note}"), style=tone or "dim")
    if cell.doubt:
        text.append(printable(f"\n{cell.doubt}"), style="italic")
    return text
