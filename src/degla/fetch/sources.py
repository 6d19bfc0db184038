"""The sources of benchmarks and training sets: `sources.toml`, or a user's file in the same format."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from pydantic import Field, model_validator

from degla.errors import InputError
from degla.parse import read_toml
from degla.records import Record, validate
from degla.shelf import did_you_mean

_DIGEST = r"^((sha256:[0-9a-f]{64})|(md5:[0-9a-f]{32}))?$"


class FileSource(Record):
    """One source: plain files, one archive, or data that must be requested by hand.

    Attributes:
        url: address; `{}` is replaced by a file's name if `files` lists several.
        to: path of the file under the root, with `{}` likewise.
        files: maps each file name to its digest, "sha256:..." or "md5:...", "" if unknown.
        check: digest of the single file or archive; "" if unknown.
        bytes: its size, if known exactly.
        about: its approximate size otherwise.
        unpack: for an archive, maps a prefix of member paths, or a whole path, to its replacement under the root.
        inner: an archive inside the archive that contains those members.
        holds: maps a pattern under the root to the minimum number of matching files if the source is present.
        ask: what must be done by hand, if nothing can be fetched.
    """

    url: str = Field(default="", pattern="^(https?://.+)?$")
    to: str = ""
    files: dict[str, str] = Field(default_factory=dict)
    check: str = Field(default="", pattern=_DIGEST)
    bytes: int | None = Field(default=None, gt=0)
    about: int | None = Field(default=None, gt=0)
    unpack: dict[str, str] = Field(default_factory=dict)
    inner: str = ""
    holds: dict[str, int] = Field(default_factory=dict)
    ask: str = ""

    @model_validator(mode="after")
    def _is_one_kind(self) -> FileSource:
        if bool(self.url) == bool(self.ask):
            raise ValueError("give either 'url', or 'ask' if nothing can be fetched")
        if self.url and bool(self.to) == bool(self.unpack):
            raise ValueError("give either 'to' for files, or 'unpack' for an archive")
        if self.files and ("{}" not in self.url or "{}" not in self.to):
            raise ValueError("'url' and 'to' need {} if 'files' is given")
        # The name of a file may complete a "..": ".{}" with the name ".".
        to = [file.to for file in self.downloads]
        paths = [self.to, *to, *self.files, *self.unpack.values(), *self.holds]
        if any(path.startswith("/") or ".." in path.split("/") for path in paths):
            raise ValueError("paths must stay under the root: no / at the beginning, no ..")
        return self

    @property
    def size(self) -> int:
        """Bytes to fetch, as far as known."""
        return self.bytes or self.about or 0

    @property
    def downloads(self) -> list[Download]:
        """The files to download; for an archive, the archive itself."""
        if self.files:
            return [
                Download(self.url.replace("{}", name), self.to.replace("{}", name), digest)
                for name, digest in self.files.items()
            ]
        return [Download(self.url, self.to, self.check, self.bytes)] if self.url else []


@dataclass(frozen=True)
class Download:
    """One file to download over HTTP.

    Attributes:
        to: path under the root; "" for an archive, which is kept aside until it is unpacked.
        check: its digest, "" if unknown.
        bytes: its size, if known.
    """

    url: str
    to: str
    check: str = ""
    bytes: int | None = None


@dataclass(frozen=True)
class Sources:
    """All known sources.

    Attributes:
        sets: maps the name of a set to names of sources and other sets.
        table: maps the name of a source to the source.
    """

    sets: dict[str, tuple[str, ...]]
    table: dict[str, FileSource]

    def of(self, name: str) -> dict[str, FileSource]:
        """Return the sources of a set, in order and without duplicates.

        Raises:
            InputError: there is no such set.
        """
        if name not in self.sets:
            names = ", ".join(sorted(self.sets))
            raise InputError(f"no sources are known for {name!r}.{did_you_mean(name, self.sets)} Known: {names}.")
        members: dict[str, FileSource] = {}
        for member in self.sets[name]:
            members |= self.of(member) if member in self.sets else {member: self.table[member]}
        return members


def read_sources(path: Path | None = None) -> Sources:
    """Read the package's own table, or a file in the same format.

    Raises:
        InputError: the file cannot be read or is invalid, or a set refers to an unknown name or to itself.
    """
    path = path or Path(__file__).with_name("sources.toml")
    content, where = read_toml(path), str(path)
    sets = validate(_Sets, {"sets": content.pop("sets", {})}, where=where).sets
    table = {name: validate(FileSource, row, where=f"{where}: {name}") for name, row in content.items()}
    for name, members in sets.items():
        if strange := [member for member in members if member not in table and member not in sets]:
            raise InputError(f"{where}: set {name!r} lists {strange[0]!r}, which is not a source or another set.")
    try:
        TopologicalSorter(sets).prepare()
    except CycleError as error:
        raise InputError(
            f"{where}: a set lists itself: {', '.join(error.args[1])}. Remove it from one of them."
        ) from None
    return Sources(sets, table)


class _Sets(Record):
    sets: dict[str, tuple[str, ...]]
