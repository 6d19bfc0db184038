"""What verbs print, as tables or JSON, and the exit status of what a signal ended."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable

_WIDTH_OF_FILES = 200
"""Of a file or pipe, which has no width: names of parts and numbers are not broken, so that they can be searched."""


def show(table: object) -> None:
    """Print a table of rich to stdout."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES).print(table)


def tell(line: str) -> None:
    """A line for people, to stderr."""
    sys.stderr.write(f"{line}\n")


def print_json(values: object) -> None:
    """Print values as JSON to stdout."""
    sys.stdout.write(json.dumps(values, indent=2) + "\n")


def answer(given: argparse.Namespace, values: Callable[[], object], print_words: Callable[[], object]) -> None:
    """Print what `values` gives as JSON where `--json` asks for it; else let `print_words` print it for people."""
    if given.json:
        print_json(values())
    else:
        print_words()


def status_of_signal(name: str) -> int:
    """The exit status of a command that kept its work when that signal came: 130 for SIGINT; 0 for none, ""."""
    return 128 + signal.Signals[name] if name else 0
