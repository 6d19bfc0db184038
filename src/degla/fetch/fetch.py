"""Fetch a set of files: existing ones are kept, public ones are fetched and verified, the rest is reported."""

from __future__ import annotations

import json
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from degla.errors import DeglaError, InputError
from degla.fetch.sources import Download, FileSource
from degla.fetch.transfer import ByteListener, difference, fetch_file, open_session
from degla.fetch.unpack import unpack_archive
from degla.files import PARTIAL, sha256_of, write_json
from degla.locks import lock
from degla.pages.words import counted
from degla.parse import read_json_object
from degla.progress import TaskProgress

if TYPE_CHECKING:
    from requests import Session

FetchState = Literal["there", "fetched", "missing", "ask", "failed"]
"""Already present; fetched now; public but not present; must be requested by hand; failed, with the reason."""
_ASIDE = "downloads"
"""Folder under the root for archives and `fetched.json`."""
_RECORD = "fetched.json"
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Fetched:
    """The outcome for one source.

    Attributes:
        places: patterns of its files under the root.
        note: the error, what must be done by hand, or that no digest is known; "" if nothing.
    """

    name: str
    state: FetchState
    places: tuple[str, ...]
    bytes: int = 0
    note: str = ""


def inspect_files(sources: Mapping[str, FileSource], root: Path) -> list[Fetched]:
    """Return which sources are present; nothing is fetched or written."""
    return [_fetched(name, source, _state(name, source, root)) for name, source in sources.items()]


def fetch_all(
    sources: Mapping[str, FileSource],
    root: Path,
    *,
    skip_archives: bool = False,
    show: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Fetched]:
    """Fetch missing files, one source after another; a failure does not stop the others.

    Args:
        sources: by name.
        root: folder of the data; created if missing.
        skip_archives: fetch only plain files.
        show: show a progress bar for each file.
        tell: called with a line for each source that is started.

    Raises:
        InputError: the folder cannot be written, or another process is fetching to it.
    """
    aside = root / _ASIDE
    try:
        aside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{root}: cannot be written: {error.strerror}. Choose another --root.") from None
    with lock(aside), open_session() as session:
        for name, source in sources.items():
            state = _state(name, source, root)
            if state != "missing" or (skip_archives and source.unpack):
                yield _fetched(name, source, state)
                continue
            size = f"{source.size / _MEGABYTE:,.1f} MB from " if source.size else ""
            tell(f"{name}: {size}{source.url}")
            try:
                measured = _fetch(name, source, root, session=session, show=show)
            except DeglaError as error:
                yield _fetched(name, source, "failed", note=str(error))
            else:
                unverified = (
                    f"no digest is known, so its contents are not verified. To compare with other copies: {measured}"
                )
                yield _fetched(name, source, "fetched", note=unverified if measured else "")


def _fetched(name: str, source: FileSource, state: FetchState, *, note: str = "") -> Fetched:
    places = (*source.holds, *([] if source.holds else [*source.unpack.values(), source.to.replace("{}", "*")])[:1])
    return Fetched(name, state, places, source.size, note or (source.ask if state == "ask" else ""))


def _state(name: str, source: FileSource, root: Path) -> FetchState:
    is_complete = all(_count(root, pattern, least) >= least for pattern, least in source.holds.items())
    if source.ask:
        return "there" if source.holds and is_complete else "ask"
    if source.unpack:
        # Without a file count there is only the record of an earlier call.
        recorded = _records(root).get(name, {}).get("url") == source.url
        is_known = bool(source.holds) or (recorded and all((root / place).exists() for place in source.unpack.values()))
        return "there" if is_complete and is_known else "missing"
    return "there" if all(_is_right(root / file.to, file) for file in source.downloads) else "missing"


def _count(root: Path, pattern: str, least: int) -> int:
    """Number of files that match a pattern, counted only as far as needed."""
    return sum(1 for _ in islice(root.glob(pattern), least))


def _is_right(place: Path, file: Download) -> bool:
    return place.is_file() and not difference(place, check=file.check)


def _fetch(name: str, source: FileSource, root: Path, *, session: Session, show: bool) -> str:
    """Fetch the files of a source; return the measured digests of those whose digest is not known."""
    measured: dict[str, str] = {}
    for file in source.downloads:
        target = root / file.to if file.to else root / _ASIDE / _archive_name(file.url)
        if file.to and target.is_file() and not _is_right(target, file):
            raise DeglaError(
                f"{target}: exists but is not the published file ({file.check}). Move it away and run the command "
                "again to fetch the published one."
            )
        if not target.is_file():
            _check_space(root, source, target)
            with _progress(target.name, file.bytes or source.size, show=show) as advance:
                fetch_file(file.url, target, session=session, check=file.check, size=file.bytes, advance=advance)
        if not file.check:
            measured[target.name] = f"sha256:{sha256_of(target)}"
        if not file.to:
            count = unpack_archive(target, root, moves=source.unpack, inner=source.inner)
            _check_counts(source, root, target)
            check = file.check or measured[target.name]
            record = {"url": file.url, "bytes": target.stat().st_size, "check": check, "files": count}
            write_json(root / _ASIDE / _RECORD, {**_records(root), name: record})
            target.unlink()
    return ", ".join(f"{file} {digest}" for file, digest in measured.items())


def _archive_name(url: str) -> str:
    address = urllib.parse.urlsplit(url)
    plain = Path(address.path).name
    key = urllib.parse.parse_qs(address.query).get("id", [""])[0]
    return Path(f"{plain}-{key}").name if key else plain  # A name, whatever the query says.


def _check_space(root: Path, source: FileSource, target: Path) -> None:
    """Refuse files that do not fit: images barely compress, so an archive needs its own size again to unpack."""
    needed = source.size * (2 if source.unpack else 1)
    partial = target.with_name(target.name + PARTIAL)
    needed -= partial.stat().st_size if partial.is_file() else 0
    free = shutil.disk_usage(root).free
    if needed > free:
        raise DeglaError(
            f"{root}: {needed / 1e9:.1f} GB are needed for {target.name} and its contents, but {free / 1e9:.1f} GB are "
            "free. Free space or choose another --root."
        )


def _check_counts(source: FileSource, root: Path, archive: Path) -> None:
    for pattern, least in source.holds.items():
        count = _count(root, pattern, least)
        if count < least:
            raise DeglaError(
                f"{archive}: was unpacked, but {root / pattern} matches only {counted(count, 'file')} of the {least:,} "
                "published. Check the archive: its authors may have changed it."
            )


def _records(root: Path) -> dict[str, Any]:
    file = root / _ASIDE / _RECORD
    return read_json_object(file, remedy="Delete it.") if file.is_file() else {}


@contextmanager
def _progress(name: str, size: int, *, show: bool) -> Iterator[ByteListener]:
    """Show progress in megabytes; no bar for a file of unknown size."""
    came = 0
    with TaskProgress(show and size > _MEGABYTE).task(f"{name} (MB)", max(1, size // _MEGABYTE)) as advance:

        def count_bytes(count: int) -> None:
            nonlocal came
            before, came = came, came + count
            advance(came // _MEGABYTE - before // _MEGABYTE)

        yield count_bytes


def as_json(results: list[Fetched]) -> str:
    """Return the outcomes of all sources as JSON text."""
    return json.dumps([vars(row) for row in results], indent=2) + "\n"
