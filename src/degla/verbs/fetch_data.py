"""download and verify public files of benchmarks and training sets, and list what must be requested"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from degla.errors import DeglaError, InputError
from degla.pages.words import counted
from degla.shelf import BENCHMARKS
from degla.verbs._arguments import refuse_given
from degla.verbs._terminal import show, tell

if TYPE_CHECKING:
    from degla.fetch.fetch import Fetched
    from degla.fetch.sources import FileSource, Sources

_WORDS = {
    "there": "present", "fetched": "fetched, verified", "missing": "missing", "ask": "to request", "failed": "failed",
}  # fmt: skip


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("names", nargs="*", metavar="NAME", help="benchmarks and training sets (list what is available)")
    verb.add_argument("--root", type=Path, metavar="DATA", help="data folder, as for degla evaluate --root")
    verb.add_argument("--dry-run", action="store_true", help="show what is present and what would be downloaded")
    verb.add_argument("--no-archives", action="store_true", help="download annotation files, but no image archives")
    verb.add_argument("--sources", type=Path, metavar="FILE", help="other URLs: a TOML file like the package's own")
    verb.add_argument("--json", action="store_true", help="print the state of each file as JSON")


def run(given: argparse.Namespace) -> int:
    from degla.fetch.fetch import as_json, fetch_all, look
    from degla.fetch.sources import read_sources

    known = read_sources(given.sources)
    if not given.names:
        why = "requires names of data: degla fetch-data NAME ..."
        refuse_given(given, "root", "dry_run", "no_archives", "json", why=why)
        _list(known)
        return 0
    if given.root is None:
        raise InputError("--root DATA is missing: the folder to download to.")
    wanted: dict[str, FileSource] = {}
    for name in given.names:
        if name not in known.sets and name in BENCHMARKS.names():
            about = BENCHMARKS.load(name).BENCHMARK
            told = f"{name}: cannot be downloaded by degla. Get it from {about.source}\nPut the files here:\n"
            raise InputError(told + about.layout)
        wanted |= known.of(name)
    if given.dry_run:
        refuse_given(given, "no_archives", why="has no effect: --dry-run downloads nothing.")
        found = look(wanted, given.root)
    else:
        found = list(fetch_all(wanted, given.root, skip_archives=given.no_archives, show=not given.json, tell=tell))
    if given.json:
        sys.stdout.write(as_json(found))
    else:
        _tell(found, given.root)
        if not given.dry_run:
            _tell_benchmarks(known, given.names, given.root)
    failed = [row.name for row in found if row.state == "failed"]
    left = [row.name for row in found if row.state in ("missing", "ask")]
    if failed:
        raise DeglaError(
            f"{len(failed)} of {counted(len(found), 'source')} failed: {', '.join(failed)}. The reasons are above."
        )
    if left and not given.dry_run:
        raise DeglaError(f"still missing: {', '.join(left)}. See above for what you must request yourself.")
    return 0


def _list(known: Sources) -> None:
    from degla.pages.table import Column, Table

    rows = []
    for name in known.sets:
        sources = known.of(name).values()
        asked = sum(bool(source.ask) for source in sources)
        rows.append([name, f"{sum(source.size for source in sources) / 1e9:.1f}", str(asked) if asked else ""])
    columns = [Column("name"), Column("GB to download"), Column("sources to request")]
    show(Table(columns, rows).terminal(title="degla fetch-data NAME... --root DATA"))


def _tell(found: list[Fetched], root: Path) -> None:
    from degla.pages.table import Column, Table

    rows = [
        [row.name, _told_state(row), f"{row.bytes / 1e6:,.1f}" if row.bytes else "", " ".join(row.places)]
        for row in found
    ]
    columns = [Column("source"), Column("state", align="left"), Column("MB"), Column(f"in {root}", align="left")]
    show(Table(columns, rows).terminal())
    for row in found:
        if row.note:
            sys.stdout.write(f"{row.name}: {row.note}\n")


def _told_state(row: Fetched) -> str:
    return "fetched, not verified" if row.state == "fetched" and row.note else _WORDS[row.state]


def _tell_benchmarks(known: Sources, names: list[str], root: Path) -> None:
    """Print what is present of the benchmarks among the names, counted by their own readers."""
    from degla.evaluation.questions import take_inventory

    members = {member for name in names for member in (name, *known.sets[name])}
    for row in take_inventory(root, names=[name for name in BENCHMARKS.names() if name in members]):
        counts = f"{counted(row.items, 'item')}, {row.images - row.missing_images:,} of {counted(row.images, 'image')}"
        sys.stdout.write(f"{row.title}: {row.state}; {counts}. {' '.join(row.notes)}\n")
