"""advice on choosing a method and settings, with the figures behind each recommendation"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.resources import files


def describe(verb: argparse.ArgumentParser) -> None:
    verb.usage = "degla choose"


def run(arguments: argparse.Namespace) -> int:
    text = files("degla").joinpath("choosing.md").read_text(encoding="utf-8")
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text)  # Links lead to pages that may not be here.
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return 0
    from rich.markdown import Markdown

    from degla.verbs._terminal import show

    show(Markdown(text, hyperlinks=False))
    return 0
