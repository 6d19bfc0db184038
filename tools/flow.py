"""Draw the data flow of the package from its code: inputs and outputs of each room, with the members of its shelves.

Usage: python tools/flow.py [--write]. Prints a Mermaid diagram, or writes it into README.md between two marks. A room's
docstring has a line ``Flow: A, B -> C``: A and B are inputs, C is the output; a further ``-> D`` is made from C there.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "degla"
ROOMS = ("negatives", "data", "model", "losses", "training", "evaluation", "export", "study")
"""In flow order; a test compares them with the folders that have a ``Flow:`` line."""
SHELVES = {
    "negatives": ("negatives/rules", "rules"),
    "data": ("data/formats", "file formats"),
    "losses": ("losses", "losses"),
    "training": ("recipes", "recipes"),
    "evaluation": ("evaluation/benchmarks", "benchmarks"),
}
MARKS = ("<!-- flow: made by tools/flow.py -->", "<!-- /flow -->")


def flow_of(room: Path) -> list[list[str]] | None:
    """Return inputs, outputs and derived outputs of a room; None if its docstring has no ``Flow:`` line."""
    door = room / "__init__.py"
    text = ast.get_docstring(ast.parse(door.read_text(encoding="utf-8"))) if door.is_file() else None
    found = re.search(r"^Flow: (.+)$", text or "", flags=re.MULTILINE)
    return [part.split(", ") for part in found[1].split(" -> ")] if found else None


def diagram() -> str:
    """Return the flow as a Mermaid diagram."""
    names: dict[str, str] = {}
    lines = ["flowchart TB"]

    def node(thing: str) -> str:
        if thing not in names:
            names[thing] = f"d{len(names)}"
            lines.append(f'    {names[thing]}(["{thing}"])')
        return names[thing]

    for room in ROOMS:
        steps = flow_of(PACKAGE / room)
        if steps is None:
            raise SystemExit(f"{PACKAGE / room}: the docstring of __init__.py has no line 'Flow: A -> B'")
        label = f"<b>{room}</b>"
        if room in SHELVES:
            folder, noun = SHELVES[room]
            members = [path for path in (PACKAGE / folder).glob("*.py") if not path.stem.startswith("_")]
            label += f"<br>{len(members)} {noun}"
        lines.append(f'    {room}["{label}"]')
        lines += [f"    {node(thing)} --> {room}" for thing in steps[0]]
        lines += [f"    {room} --> {node(thing)}" for thing in steps[1]]
        for before, after in pairwise(steps[1:]):
            lines += [f"    {node(one)} --> {node(other)}" for one in before for other in after]
    return "\n".join(lines) + "\n"


def placed(text: str) -> str:
    """Return a page with the diagram between the marks."""
    begin, end = (text.index(mark) for mark in MARKS)
    summary = "<details><summary>The flow from captions to tables, generated from the code</summary>"
    return f"{text[:begin]}{MARKS[0]}\n{summary}\n\n```mermaid\n{diagram()}```\n\n</details>\n{text[end:]}"


def main() -> int:
    """Print the diagram, or write it into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write it into README.md")
    page = ROOT / "README.md"
    if parser.parse_args().write:
        page.write_text(placed(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(diagram())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
