"""ROOM - pages: render tables, plots and sentences as one self-contained HTML page, or as Markdown.

The room knows nothing about the content. Other rooms describe a page once, as a `page.Page` of tables, figures
and sentences, and write `page.html()` and `page.markdown()`; terminals show the same tables with `table.terminal()`.

table    `Table`, `Column`, `TableRow`, `TableCell`: value, spread, interval below it, mark, tone; three renderings
page     `Page` and its parts: `Section`, `Fold`, `Grid`, `Paragraph`, `Figure`, `Facts`, `Code`, `PageOnly`, `Raw`
plot     plot style, point labels, SVG; plots in two widths, for a page and for a phone
words    number formats of pages: percent, points, intervals, p-values, durations, counts
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def open_templates(package: str) -> Environment:
    """Open the templates of a package, with autoescape and an error for missing variables."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
