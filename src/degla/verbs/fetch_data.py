"""download and verify public files of benchmarks and training sets, and list what must be requested"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from degla.errors import DeglaError, InputError
from degla.pages.words import counted
from degla.remote import refuse_address
from degla.shelf import BENCHMARKS
from degla.verbs._arguments import refuse_flags
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


def run(arguments: argparse.Namespace) -> int:
    from degla.fetch.fetch import as_json, fetch_all, inspect_files
    from degla.fetch.sources import read_sources

    sources = read_sources(arguments.sources)
    if not arguments.names:
        why = "requires names of data: degla fetch-data NAME ..."
        refuse_flags(arguments, "root", "dry_run", "no_archives", "json", why=why)
        _list(sources)
        return 0
    if arguments.root is None:
        raise InputError("--root DATA is missing: the folder to download to.")
    refuse_address(arguments.root)
    files: dict[str, FileSource] = {}
    for name in arguments.names:
        if name not in sources.sets and name in BENCHMARKS.names():
            about = BENCHMARKS.member(name, "BENCHMARK")
            start = f"{name}: cannot be downloaded by degla. Get it from {about.source}\nPut the files here:\n"
            raise InputError(start + about.layout)
        files |= sources.of(name)
    if arguments.dry_run:
        refuse_flags(arguments, "no_archives", why="has no effect: --dry-run downloads nothing.")
        results = inspect_files(files, arguments.root)
    else:
        results = list(
            fetch_all(files, arguments.root, skip_archives=arguments.no_archives, show=not arguments.json, tell=tell)
        )
    if arguments.json:
        sys.stdout.write(as_json(results))
    else:
        _tell(results, arguments.root)
        if not arguments.dry_run:
            _tell_benchmarks(sources, arguments.names, arguments.root)
    failed = [row.name for row in results if row.state == "failed"]
    missing = [row.name for row in results if row.state in ("missing", "ask")]
    if failed:
        raise DeglaError(
            f"{len(failed)} of {counted(len(results), 'source')} failed: {', '.join(failed)}. The reasons are above."
        )
    if missing and not arguments.dry_run:
        raise DeglaError(f"still missing: {', '.join(missing)}. See above for what you must request yourself.")
    return 0


def _list(sources: Sources) -> None:
    from degla.pages.table import Column, Table

    rows = []
    for name in sources.sets:
        members = sources.of(name).values()
        requests = sum(bool(source.ask) for source in members)
        rows.append([name, f"{sum(source.size for source in members) / 1e9:.1f}", str(requests) if requests else ""])
    columns = [Column("name"), Column("GB to download"), Column("sources to request")]
    show(Table(columns, rows).terminal(title="degla fetch-data NAME... --root DATA"))


def _tell(results: list[Fetched], root: Path) -> None:
    from degla.pages.table import Column, Table

    rows = [
        [row.name, _state_words(row), f"{row.bytes / 1e6:,.1f}" if row.bytes else "", " ".join(row.places)]
        for row in results
    ]
    columns = [Column("source"), Column("state", align="left"), Column("MB"), Column(f"in {root}", align="left")]
    show(Table(columns, rows).terminal())
    for row in results:
        if row.note:
            sys.stdout.write(f"{row.name}: {row.note}\n")


def _state_words(row: Fetched) -> str:
    return "fetched, not verified" if row.state == "fetched" and row.note else _WORDS[row.state]


def _tell_benchmarks(sources: Sources, names: list[str], root: Path) -> None:
    """Print what is present of the benchmarks among the names, counted by their own readers."""
    from degla.evaluation.inventory import take_inventory

    members = {member for name in names for member in (name, *sources.sets[name])}
    for row in take_inventory(root, names=[name for name in BENCHMARKS.names() if name in members]):
        counts = f"{counted(row.items, 'item')}, {row.images - row.missing_images:,} of {counted(row.images, 'image')}"
        sys.stdout.write(f"{row.title}: {row.state}; {counts}. {' '.join(row.notes)}\n")
