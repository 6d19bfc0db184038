"""advice on choosing a method and settings, with the figures behind each recommendation"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.resources import files


def describe(verb: argparse.ArgumentParser) -> None:
    verb.usage = "degla choose"


def run(arguments: argparse.Namespace) -> int:
    text = _with_plain_links(files("degla").joinpath("choosing.md").read_text(encoding="utf-8"))
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return 0
    from rich.markdown import Markdown

    from degla.verbs._terminal import show

    show(Markdown(text))
    return 0


def _with_plain_links(text: str) -> str:
    """Replace each Markdown link by its text, and the page that it leads to, if that is another one."""
    return re.sub(
        r"\[([^]]+)\]\(([^)#]*)[^)]*\)", lambda link: link[1] + (f" [docs/{link[2]}]" if link[2] else ""), text
    )
