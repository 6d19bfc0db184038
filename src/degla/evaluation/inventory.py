"""What a folder has of each benchmark: counts, gaps, and where to get the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from degla.errors import InputError
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.questions import checked_entries, count_items, differing_counts, find_images, require_root
from degla.pages.table import Column, Table
from degla.pages.words import counted
from degla.records import Record
from degla.shelf import BENCHMARKS

if TYPE_CHECKING:
    from rich.console import Group

State = Literal["complete", "incomplete", "absent"]
"""All items and images exist; something is missing or wrong, as the notes say; none of its files exists."""
_DESCRIBED = ("name", "title", "paper", "licence", "source", "layout")
_EXAMPLES = 3


class PartInventory(Record):
    """What was found of one part.

    Attributes:
        items: number of items in the files.
        kept: number of items that pass the protocol's own filter.
        published: number of items of the published part; None if there is none.
    """

    name: str
    items: int = Field(ge=0)
    kept: int = Field(ge=0)
    published: int | None = None


class BenchmarkInventory(Record):
    """What was found of one benchmark.

    Attributes:
        items, kept: sums over the parts.
        images: number of distinct images of the kept items.
        missing_images: number of those that are missing.
        missing_examples: the first few of their paths.
        notes: what is wrong or left out, one sentence each.
        source: where to get the files.
        layout: expected layout under the root, one path per line.
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
    parts: tuple[PartInventory, ...] = ()
    notes: tuple[str, ...] = ()
    source: str
    layout: str


def take_inventory(root: Path, *, names: Sequence[str] | None = None) -> list[BenchmarkInventory]:
    """Look for each benchmark's files and images under a folder, without writing anything or opening an image.

    Args:
        root: folder of the benchmarks' data.
        names: of benchmarks; None: all on the shelf.

    Raises:
        InputError: there is no such folder, or a benchmark is unknown. Invalid files are reported in the notes.
    """
    require_root(root)
    chosen = BENCHMARKS.names() if names is None else names
    return [_inventory_of(BENCHMARKS.member(name, "BENCHMARK"), root) for name in chosen]


def _inventory_of(benchmark: Benchmark, root: Path) -> BenchmarkInventory:
    about: dict[str, Any] = {name: getattr(benchmark, name) for name in _DESCRIBED}
    try:
        counts, passing = checked_entries(benchmark, root)
        paths, absent = find_images(root, passing)
    except InputError as error:
        begun = [root / benchmark.name, *(path for pattern in benchmark.annotations for path in root.glob(pattern))]
        if not any(path.exists() for path in begun):
            note = ("`degla evaluate` creates it when needed.",) if benchmark.prepare is not None else ()
            return BenchmarkInventory(**about, state="absent", notes=note)
        # The message's first line says what is wrong; the layout that may follow has its own place.
        return BenchmarkInventory(**about, state="incomplete", notes=(str(error).partition("\n")[0],))
    passing_counts = count_items(passing)
    examples = tuple(sorted(absent)[:_EXAMPLES])
    wrong = [f"{difference}." for difference in differing_counts(benchmark, root, counts)]
    if absent:
        there = counted(len(paths), "image is", "images are")
        wrong.append(f"{len(absent):,} of {there} missing, for example {', '.join(examples)}.")
    absent_parts = [part.name for part in benchmark.parts if part.optional and part.name not in counts]
    notes = [f"Absent optional parts: {', '.join(absent_parts)}."] if absent_parts else []
    return BenchmarkInventory(
        **about,
        state="incomplete" if wrong else "complete",
        items=sum(counts.values()),
        kept=sum(passing_counts.values()),
        images=len(paths),
        missing_images=len(absent),
        missing_examples=examples,
        parts=tuple(
            PartInventory(name=name, items=number, kept=passing_counts.get(name, 0), published=benchmark.part(name).n)
            for name, number in counts.items()
        ),
        notes=(*wrong, *notes),
    )


def render_inventory(benchmarks: Sequence[BenchmarkInventory]) -> Group:
    """Render a table, and below it each benchmark's licence, problems, and where to get what is incomplete."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    rows = []
    below: list[Text | Padding] = []
    for row in benchmarks:
        numbers = (row.items, row.kept, row.images, row.missing_images) if row.items else ()
        rows.append([row.name, row.state, *([f"{number:,}" for number in numbers] or ["-"] * 4)])
        below += [Text(), Text(f"{row.title} ({row.name}): {row.state}", style="bold")]
        lines = [*row.notes, f"licence: {row.licence}"]
        if row.state != "complete":
            lines += [f"from: {row.source}", "expected layout:"]
        below += [Padding(Text(line), (0, 0, 0, 2)) for line in lines]
        if row.state != "complete":
            below += [Padding(Text(line), (0, 0, 0, 4)) for line in row.layout.splitlines()]
    table = Table(["benchmark", Column("state", align="left"), "items", "kept", "images", "missing"], rows)
    return Group(table.terminal(), *below)
