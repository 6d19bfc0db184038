"""ROOM - pages: tables, plots and sentences enter; one HTML page that needs nothing else, or Markdown, leaves.

The room knows nothing of what is shown. A room that has a page describes it once, as a `page.Page` of tables, figures
and sentences, and writes `page.html()` and `page.markdown()`; its terminal shows the same tables by `table.terminal()`.

table    `Table`, `Column`, `TableRow`, `TableCell`: value, spread, interval below it, mark, tone; three renderings
page     `Page` and its parts: `Section`, `Fold`, `Grid`, `Paragraph`, `Figure`, `Facts`, `Code`, `PageOnly`, `Raw`
plot     the style of the plots, names beside points, SVG; plots in two widths, for the page and for a phone
words    numbers as pages print them: percent, points, intervals, p, durations, counts
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def open_templates(package: str) -> Environment:
    """The templates of a package, in which every text is escaped and a missing one is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
