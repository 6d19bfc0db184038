"""The replies of a language model on disk: one JSON line each, appended as they come, so that none is paid twice.

Lines are never changed. A later run looks replies up by their key, in an index that lies in a temporary file.
"unreachable" is written down too but never found again: such requests are worth repeating.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import Field, TypeAdapter

from degla.files import LineFile, open_temporary_database, whole_lines
from degla.negatives.llm import Form, Reply, ReplyStatus, RequestKey
from degla.negatives.run.summary import Summary
from degla.parse import parse_json
from degla.records import Record, validate

PASSING: Final[frozenset[ReplyStatus]] = frozenset({"unreachable"})
"""Outcomes that another run may change; their requests are made again."""

JournalEntry = tuple[Form, Reply]
"""A reply, and the form of the request that it answers."""


class ReplyRecord(Record):
    """One line of the journal; the fields are those of `RequestKey` and `Reply`, and the request's form."""

    caption_id: str = Field(min_length=1)
    rule: str = Field(min_length=1)
    draw: int = Field(ge=0)
    form: Form
    outcome: ReplyStatus
    text: str = ""
    words: tuple[tuple[str, ...], ...] = ()
    score: float | None = None
    detail: str = ""
    repaired: bool = False
    attempts: int = Field(default=1, ge=0)
    counts: dict[str, int] = Field(default_factory=dict)

    def entry(self) -> JournalEntry:
        """The form and the reply as the model gave it."""
        row = dict(self.__dict__)
        key = RequestKey(row.pop("caption_id"), row.pop("rule"), row.pop("draw"))
        return row.pop("form"), Reply(key, **row)


_LINE: Final = TypeAdapter(ReplyRecord)
_DEFAULTS: Final[dict[str, Any]] = {
    field.name: {} if field.default is MISSING else field.default for field in fields(Reply)[2:]
}
"""Fields of a reply that a line leaves out where they have this value."""


def write_line(form: Form, reply: Reply) -> str:
    """One line of the journal."""
    key = reply.key
    row = {"caption_id": key.caption_id, "rule": key.rule, "draw": key.draw, "form": form, "outcome": reply.outcome}
    optional = {name: getattr(reply, name) for name in _DEFAULTS}
    row |= {name: value for name, value in optional.items() if value != _DEFAULTS[name]}
    return json.dumps(row, separators=(",", ":")) + "\n"


class Journal:
    """The file of replies beside a file of negatives. Used in a ``with`` block.

    Attributes:
        file: the file.
    """

    def __init__(self, path: Path, summary: Summary) -> None:
        """Open the file.

        Args:
            path: of the file.
            summary: where its replies are counted.

        Raises:
            InputError: it cannot be written.
        """
        self.file = LineFile(path)
        self._summary = summary
        self._places = open_temporary_database()
        self._places.execute("CREATE TABLE replies (caption_id TEXT, rule TEXT, draw INTEGER, place INTEGER)")
        self._indexed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places.close()
        self.file.__exit__(kind, error, trace)

    def index(self) -> None:
        """Cut off a torn last line, count all replies, and note where those are that a run may find again.

        Raises:
            InputError: a line is no reply (line named).
        """
        self._places.executemany("INSERT INTO replies VALUES (?, ?, ?, ?)", self._read_places())
        self._places.execute("CREATE INDEX by_key ON replies (caption_id, rule, draw)")
        self._indexed = self._places.execute("SELECT 1 FROM replies").fetchone() is not None

    def _read_places(self) -> Iterator[tuple[str, str, int, int]]:
        for place, (form, reply) in _read_all(self.file):
            self._summary.replies.add(form, reply)
            if reply.outcome not in PASSING:
                yield reply.key.caption_id, reply.key.rule, reply.key.draw, place

    def find(self, key: RequestKey) -> JournalEntry | None:
        """The form and the reply of an earlier run, or None where the request is still to be made."""
        entries = self._find("rule = ? AND draw = ?", key.caption_id, key.rule, key.draw) if self._indexed else []
        return entries[0] if entries else None

    def find_all(self, caption_id: str) -> list[JournalEntry]:
        """The replies of one caption, for a worker elsewhere."""
        return self._find("TRUE", caption_id)

    def _find(self, condition: str, *values: object) -> list[JournalEntry]:
        # Of a request that was answered twice the first reply counts: its rows were written.
        query = f"SELECT min(place) FROM replies WHERE caption_id = ? AND {condition} GROUP BY rule, draw"
        rows = self._places.execute(query, values).fetchall()
        entries = []
        for (place,) in rows:
            self.file.stream.seek(place)
            entries.append(read_line(self.file.stream.readline(), str(self.file.path)))
        return entries

    def keep(self, replies: Sequence[JournalEntry]) -> None:
        """Append replies and count them; see `append`."""
        self.append(replies)
        for form, reply in replies:
            self._summary.replies.add(form, reply)

    def append(self, replies: Sequence[JournalEntry]) -> None:
        """Append replies and hand them to the operating system at once; raises as `LineFile.append`."""
        self.file.append(write_line(form, reply) for form, reply in replies)


def read_replies(file: LineFile) -> list[JournalEntry]:
    """All replies of a file, whose torn last line is cut off.

    Raises:
        InputError: a line is no reply (line named).
    """
    return [entry for _, entry in _read_all(file)]


def _read_all(file: LineFile) -> Iterator[tuple[int, JournalEntry]]:
    """Every reply with the place of its line, in bytes; cuts off a torn last line."""
    end = 0
    for number, place, line in whole_lines(file.stream):
        yield place, read_line(line, f"{file.path} line {number}")
        end = place + len(line)
    file.stream.truncate(end)


def read_line(line: bytes, where: str) -> JournalEntry:
    """One line of the journal; raises `InputError` where it is no reply."""
    try:
        record = _LINE.validate_json(line)
    except ValueError:
        row = parse_json(line, where=where, remedy="Remove the line; its request is made again.", lines=False)
        record = validate(ReplyRecord, row, where=where)
    return record.entry()
