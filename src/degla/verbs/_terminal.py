"""Tables on the terminal."""

from __future__ import annotations


def show(table: object) -> None:
    """Print a table of rich to stdout."""
    from rich.console import Console

    Console().print(table)
