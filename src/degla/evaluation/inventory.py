"""What a folder holds of each benchmark: a root folder enters, counts, gaps and where to get the rest leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from degla.errors import InputError
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.questions import count_differences, count_items, images_under, kept_of
from degla.pages.table import Column, Table
from degla.records import Record
from degla.shelf import BENCHMARKS

if TYPE_CHECKING:
    from rich.console import Group

State = Literal["complete", "incomplete", "absent"]
"""All items and images are there; something is missing or wrong, and the notes say what; none of its files is there."""
_EXAMPLES = 3
_DESCRIBED = ("name", "title", "paper", "licence", "source", "layout")


class PartFound(Record):
    """What is there of one part.

    Attributes:
        items: in the files.
        kept: of them, those that the protocol's own filter keeps.
        published: number of items of the published part; None where there is none.
    """

    name: str
    items: int = Field(ge=0)
    kept: int = Field(ge=0)
    published: int | None = None


class BenchmarkFound(Record):
    """What is there of one benchmark.

    Attributes:
        items, kept: sums over the parts.
        images: distinct images that the kept items ask for.
        missing_images: those of them that are not there.
        missing_examples: the first few of their paths.
        notes: what is wrong or left out, one sentence each.
        source: where to get the files.
        layout: how they must lie under the root, one path a line.
    """

    name: str
    title: str
    paper: str
    licence: str
    state: State
    items: int = Field(default=0, ge=0)
    kept: int = Field(default=0, ge=0)
    images: int = Field(default=0, ge=0)
    missing_images: int = Field(default=0, ge=0)
    missing_examples: tuple[str, ...] = ()
    parts: tuple[PartFound, ...] = ()
    notes: tuple[str, ...] = ()
    source: str
    layout: str


def take_inventory(root: Path, *, names: Sequence[str] | None = None) -> list[BenchmarkFound]:
    """Look for each benchmark's files and images under a folder; nothing is written and no image is opened.

    Args:
        root: folder that holds the benchmarks' data.
        names: of benchmarks; None: all on the shelf.

    Raises:
        InputError: there is no such folder, or an unknown benchmark. Wrong files are told in the notes.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. Give the one that holds the benchmarks' data.")
    chosen = BENCHMARKS.names() if names is None else names
    return [_look(BENCHMARKS.load(name).BENCHMARK, root) for name in chosen]


def _look(benchmark: Benchmark, root: Path) -> BenchmarkFound:
    about: dict[str, Any] = {name: getattr(benchmark, name) for name in _DESCRIBED}
    try:
        entries = list(benchmark.items(root))
    except InputError as error:
        begun = [root / benchmark.name, *(path for pattern in benchmark.annotations for path in root.glob(pattern))]
        if not any(path.exists() for path in begun):
            note = ("`degla evaluate` makes it by itself.",) if benchmark.prepare is not None else ()
            return BenchmarkFound(**about, state="absent", notes=note)
        # The message's first line says what is wrong; the layout that may follow has its own place.
        return BenchmarkFound(**about, state="incomplete", notes=(str(error).partition("\n")[0],))
    kept = kept_of(entries)
    counts, kept_counts = count_items(entries), count_items(kept)
    paths, absent = images_under(root, kept)
    examples = tuple(sorted(absent)[:_EXAMPLES])
    wrong = [f"{difference}." for difference in count_differences(benchmark, root, counts)]
    if absent:
        wrong.append(f"{len(absent)} of {len(paths)} images are missing, for example {', '.join(examples)}.")
    left_out = [part.name for part in benchmark.parts if part.optional and part.name not in counts]
    notes = [f"Not there, and not needed for the rest: {', '.join(left_out)}."] if left_out else []
    return BenchmarkFound(
        **about,
        state="incomplete" if wrong else "complete",
        items=sum(counts.values()),
        kept=sum(kept_counts.values()),
        images=len(paths),
        missing_images=len(absent),
        missing_examples=examples,
        parts=tuple(
            PartFound(name=name, items=number, kept=kept_counts.get(name, 0), published=benchmark.part(name).n)
            for name, number in counts.items()
        ),
        notes=(*wrong, *notes),
    )


def render_inventory(found: Sequence[BenchmarkFound]) -> Group:
    """A table, and below it each benchmark's licence, what is wrong, and where to get what is not complete."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    rows = []
    below: list[Text | Padding] = []
    for row in found:
        numbers = (row.items, row.kept, row.images, row.missing_images) if row.items else ()
        rows.append([row.name, row.state, *([f"{number:,}" for number in numbers] or ["-"] * 4)])
        below += [Text(), Text(f"{row.title} ({row.name}): {row.state}", style="bold")]
        lines = [*row.notes, f"licence: {row.licence}"]
        if row.state != "complete":
            lines += [f"from: {row.source}", "must lie so:"]
        below += [Padding(Text(line), (0, 0, 0, 2)) for line in lines]
        if row.state != "complete":
            below += [Padding(Text(line), (0, 0, 0, 4)) for line in row.layout.splitlines()]
    table = Table(["benchmark", Column("state", align="left"), "items", "kept", "images", "missing"], rows)
    return Group(table.terminal(), *below)
