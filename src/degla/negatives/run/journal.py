"""The replies of a language model on disk: one JSON line each, appended as they come, so that none is paid twice.

Lines are never changed. A later run looks replies up by their key; only the places of those that it may need are held
in memory, 16 bytes each. "unreachable" is written down too but never found again: such requests are worth repeating.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from degla.errors import DeglaError, InputError
from degla.negatives.llm import Form, Reply, ReplyStatus, RequestKey
from degla.negatives.run.stream import hash_text
from degla.negatives.run.summary import Summary
from degla.parse import parse_json
from degla.records import Record, validate

PASSING: Final[frozenset[ReplyStatus]] = frozenset({"unreachable"})
"""Outcomes that another run may change; their requests are made again."""

_BLOCK: Final = 65_536
"""Lines whose captions are compared with the finished ones at once."""


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

    def reply(self) -> Reply:
        """The reply as the model gave it."""
        return Reply(
            RequestKey(self.caption_id, self.rule, self.draw),
            self.outcome,
            text=self.text,
            words=self.words,
            score=self.score,
            detail=self.detail,
            repaired=self.repaired,
            attempts=self.attempts,
            counts=self.counts,
        )


_LINE: Final = TypeAdapter(ReplyRecord)


def write_line(form: Form, reply: Reply) -> bytes:
    """One line of the journal; what has its default is left out."""
    key = reply.key
    row: dict[str, Any] = {
        "caption_id": key.caption_id,
        "rule": key.rule,
        "draw": key.draw,
        "form": form,
        "outcome": reply.outcome,
    }
    for name in ("text", "words", "score", "detail", "repaired"):
        value = getattr(reply, name)
        if value or (name == "score" and value is not None):
            row[name] = value
    if reply.attempts != 1:
        row["attempts"] = reply.attempts
    if reply.counts:
        row["counts"] = dict(reply.counts)
    return (json.dumps(row, separators=(",", ":")) + "\n").encode()


def _hash_key(key: RequestKey) -> int:
    return hash_text(f"{key.caption_id}\n{key.rule}\n{key.draw}")


class Journal:
    """The file of replies beside a file of negatives. Used in a ``with`` block."""

    def __init__(self, path: Path, summary: Summary) -> None:
        """Name the file, and where its replies are counted."""
        self.path = path
        self._summary = summary
        self._stream: IO[bytes] | None = None
        self._hashes: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._offsets: NDArray[np.uint64] = np.empty(0, np.uint64)

    def __enter__(self) -> Journal:
        try:
            self._stream = self.path.open("ab+")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}. Choose another --out.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            try:
                self._stream.close()
            except OSError:
                if error is None:
                    raise

    def index(self, finished: NDArray[np.uint64]) -> None:
        """Mend a torn last line, count all replies, and note where those are that may still be needed.

        Args:
            finished: hashes of the ids of captions that have all their rows.

        Raises:
            InputError: a line is no reply (line named).
        """
        done = np.sort(finished)
        hashes, offsets = array("Q"), array("Q")
        block: tuple[array[int], array[int], array[int]] = (array("Q"), array("Q"), array("Q"))

        def keep() -> None:
            captions, keys, places = (np.frombuffer(part, dtype=np.uint64) for part in block)
            wanted = ~np.isin(captions, done) if len(done) else np.ones(len(captions), bool)
            hashes.frombytes(keys[wanted].tobytes())
            offsets.frombytes(places[wanted].tobytes())

        for position, record in _read_all(self._open, self.path):
            self._summary.add_reply(record.reply())
            if record.outcome not in PASSING:
                block[0].append(hash_text(record.caption_id))
                block[1].append(_hash_key(RequestKey(record.caption_id, record.rule, record.draw)))
                block[2].append(position)
                if len(block[0]) == _BLOCK:
                    keep()
                    block = (array("Q"), array("Q"), array("Q"))
        keep()
        keys = np.frombuffer(hashes, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")  # of equal keys the first: the one whose rows were written
        self._hashes, self._offsets = keys[order], np.frombuffer(offsets, dtype=np.uint64)[order]

    def find(self, key: RequestKey) -> tuple[Form, Reply] | None:
        """The form and the reply of an earlier run, or None where the request is still to be made."""
        if not len(self._hashes):
            return None
        wanted = np.uint64(_hash_key(key))
        place = int(np.searchsorted(self._hashes, wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            self._open.seek(int(self._offsets[place]))
            record = _read(self._open.readline(), self.path)
            reply = record.reply()
            if reply.key == key:
                return record.form, reply
            place += 1
        return None

    def find_all(self, caption_id: str, rules: Sequence[str]) -> list[tuple[Form, Reply]]:
        """The replies of one caption, for a worker elsewhere."""
        found = []
        for rule in rules:
            draw = 0
            while known := self.find(RequestKey(caption_id, rule, draw)):
                found.append(known)
                draw += 1
        return found

    def keep(self, replies: Sequence[tuple[Form, Reply]]) -> None:
        """Append replies and count them; see `append`."""
        self.append(replies)
        for _, reply in replies:
            self._summary.add_reply(reply)

    def append(self, replies: Sequence[tuple[Form, Reply]]) -> None:
        """Append replies and hand them to the operating system at once.

        Raises:
            DeglaError: the disk is full, or the file cannot be written any more.
        """
        try:
            self._open.seek(0, 2)
            self._open.write(b"".join(write_line(form, reply) for form, reply in replies))
            self._open.flush()
        except OSError as error:
            raise DeglaError(
                f"{self.path}: cannot be written: {error.strerror}. Mend that; the same command goes on."
            ) from None

    @property
    def _open(self) -> IO[bytes]:
        if self._stream is None:
            raise RuntimeError("the journal is used in a with block")
        return self._stream


def read_replies(stream: IO[bytes], path: Path) -> Iterator[tuple[Form, Reply]]:
    """All replies of a file, whose torn last line is cut off.

    Raises:
        InputError: a line is no reply (line named).
    """
    for _, record in _read_all(stream, path):
        yield record.form, record.reply()


def _read_all(stream: IO[bytes], path: Path) -> Iterator[tuple[int, ReplyRecord]]:
    """Every line with the place where it begins, in bytes; cuts off a torn last one."""
    position = 0
    stream.seek(0)
    for number, line in enumerate(stream, start=1):
        if not line.endswith(b"\n"):
            break
        yield position, _read(line, path, number)
        position += len(line)
    stream.truncate(position)


def _read(line: bytes, path: Path, number: int | None = None) -> ReplyRecord:
    try:
        return _LINE.validate_json(line)
    except ValueError:
        where = f"{path} line {number}" if number else str(path)
        row = parse_json(line, where=where, remedy="Remove the line; its request is made again.", lines=False)
        return validate(ReplyRecord, row, where=where)
