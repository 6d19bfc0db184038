"""advice on choosing a method and settings, with the figures behind each recommendation"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult


def describe(verb: argparse.ArgumentParser) -> None:
    verb.usage = "degla choose"


def run(arguments: argparse.Namespace) -> int:
    text = _with_plain_links(files("degla").joinpath("choosing.md").read_text(encoding="utf-8"))
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return 0
    from degla.verbs._terminal import show

    show(_rendered(text))
    return 0


def _rendered(text: str) -> RenderableType:
    from rich.markdown import Markdown, TableElement
    from rich.table import Table

    class FoldedTable(TableElement):
        """A table that breaks flags and addresses that are wider than their column; rich's own cuts them."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for table in super().__rich_console__(console, options):
                if isinstance(table, Table):
                    for column in table.columns:
                        column.overflow = "fold"
                yield table

    class FoldedMarkdown(Markdown):
        elements = Markdown.elements | {"table_open": FoldedTable}

    return FoldedMarkdown(text)


def _with_plain_links(text: str) -> str:
    """Replace each Markdown link by its text, and the page that it leads to, if that is another one."""
    return re.sub(
        r"\[([^]]+)\]\(([^)#]*)[^)]*\)", lambda link: link[1] + (f" [docs/{link[2]}]" if link[2] else ""), text
    )
