"""which method and which settings to choose, each with the figures that it rests on"""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files


def describe(verb: argparse.ArgumentParser) -> None:
    verb.usage = "degla choose"


def run(given: argparse.Namespace) -> int:
    text = files("degla").joinpath("choosing.md").read_text(encoding="utf-8")
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return 0
    from rich.markdown import Markdown

    from degla.verbs._terminal import show

    show(Markdown(text, hyperlinks=False))
    return 0
