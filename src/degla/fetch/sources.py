"""Where the files of benchmarks and training sets come from: `sources.toml`, or a file of the user's in its form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from degla.errors import InputError
from degla.parse import read_toml
from degla.records import Record, validate
from degla.shelf import did_you_mean

_DIGEST = r"^((sha256:[0-9a-f]{64})|(md5:[0-9a-f]{32}))?$"


class FileSource(Record):
    """One source: files that are taken as they are, one archive, or what a person must ask for.

    Attributes:
        url: address; `{}` stands for a file's name where `files` names several.
        to: where the file goes under the root, with `{}` likewise.
        files: name of each file to its digest, "sha256:..." or "md5:...", "" where none is known.
        check: digest of the one file or archive; "" where none is known.
        bytes: its size, where it is known exactly.
        about: its size roughly, where it is not.
        unpack: for an archive: beginning of a member's path, or the whole of it, to what stands in its place under the
            root.
        inner: an archive in the archive that holds those members.
        holds: pattern under the root to the least number of files that it finds where the source is there.
        ask: what a person must do, where nothing can be fetched.
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
            raise ValueError("give 'url', or 'ask' where nothing can be fetched")
        if self.url and bool(self.to) == bool(self.unpack):
            raise ValueError("give 'to' for files, or 'unpack' for an archive")
        if self.files and ("{}" not in self.url or "{}" not in self.to):
            raise ValueError("'url' and 'to' need {} where 'files' names several")
        paths = [self.to, *self.files, *self.unpack.values(), *self.holds]
        if any(path.startswith("/") or ".." in path.split("/") for path in paths):
            raise ValueError("paths must stay under the root: no / at the beginning, no ..")
        return self

    @property
    def size(self) -> int:
        """Bytes to fetch, as far as they are known."""
        return self.bytes or self.about or 0

    @property
    def downloads(self) -> list[Download]:
        """The files to take; of an archive, the archive."""
        if self.files:
            return [
                Download(self.url.replace("{}", name), self.to.replace("{}", name), digest)
                for name, digest in self.files.items()
            ]
        return [Download(self.url, self.to, self.check, self.bytes)] if self.url else []


@dataclass(frozen=True)
class Download:
    """One file to take over HTTP.

    Attributes:
        to: path under the root; "" for an archive, which is put aside until it is unpacked.
        check: its digest, "" where none is known.
        bytes: its size, where it is known.
    """

    url: str
    to: str
    check: str = ""
    bytes: int | None = None


@dataclass(frozen=True)
class Sources:
    """All that can be asked for.

    Attributes:
        sets: what people name, to names of sources and of other sets.
        table: name of a source to the source.
    """

    sets: dict[str, tuple[str, ...]]
    table: dict[str, FileSource]

    def of(self, name: str) -> dict[str, FileSource]:
        """The sources of a set, each once, in order.

        Raises:
            InputError: there is no such set.
        """
        if name not in self.sets:
            known = ", ".join(sorted(self.sets))
            raise InputError(f"no sources are known of {name!r}.{did_you_mean(name, self.sets)} Known: {known}.")
        found: dict[str, FileSource] = {}
        for member in self.sets[name]:
            found |= self.of(member) if member in self.sets else {member: self.table[member]}
        return found


def read_sources(path: Path | None = None) -> Sources:
    """The package's own table, or a file of the same form.

    Raises:
        InputError: the file cannot be read or is wrong; a set names nothing, or itself.
    """
    path = path or Path(__file__).with_name("sources.toml")
    content, where = read_toml(path), str(path)
    sets = validate(_Sets, {"sets": content.pop("sets", {})}, where=where).sets
    table = {name: validate(FileSource, row, where=f"{where}: {name}") for name, row in content.items()}
    for name, members in sets.items():
        for member in members:
            if member not in table and (member not in sets or name in _within(sets, member)):
                raise InputError(f"{where}: set {name!r} names {member!r}, which is no source and no other set.")
    return Sources(sets, table)


def _within(sets: dict[str, tuple[str, ...]], name: str) -> set[str]:
    """A set and all that it is made of, at any depth."""
    found: set[str] = set()
    left = [name]
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += sets.get(each, ())
    return found


class _Sets(Record):
    sets: dict[str, tuple[str, ...]]
