"""Printing of tables and JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from degla.pages.words import printable
from degla.remote import in_addresses

if TYPE_CHECKING:
    from rich.console import RenderableType

_WIDTH_OF_FILES = 200
"""Width for a file or pipe: wide enough that names and numbers are not wrapped and can be searched."""


def show(table: RenderableType) -> None:
    """Print a rich table to stdout. Its texts may come from files, so control characters in them are escaped."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES)
    console.print(Segments(Segment(printable(text), style, control) for text, style, control in console.render(table)))


def tell(line: str) -> None:
    """Print a line to stderr."""
    sys.stderr.write(f"{printable(in_addresses(line))}\n")


def print_json(values: object) -> None:
    """Print values as JSON to stdout."""
    sys.stdout.write(json.dumps(values, indent=2) + "\n")


def answer(arguments: argparse.Namespace, values: Callable[[], object], print_words: Callable[[], object]) -> None:
    """Print the result of `values` as JSON with `--json`; otherwise call `print_words`."""
    if arguments.json:
        print_json(values())
    else:
        print_words()
