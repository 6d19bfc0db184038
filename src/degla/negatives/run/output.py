"""A run's files on disk: the negatives, their manifest, and the journal of a language model's replies.

A later run continues after the last negative. The journal has one JSON line per reply, so none is paid for twice;
lines are never changed, and a later run looks replies up by key, with an index in a temporary file. "unreachable" is
recorded too but never looked up: such requests are worth repeating.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from os import SEEK_END
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from degla.errors import InputError
from degla.files import LineFile, cannot_write, open_temporary_database, require_writable, whole_lines, write_json
from degla.negatives.llm import Form, Reply, ReplyStatus, RequestKey
from degla.negatives.run.stream import CaptionStream, FinishedRules, hash_text
from degla.negatives.run.summary import Summary
from degla.parse import FORM, parse_json, read_json_object, require_form
from degla.records import NegativeRecord, Record, RecordType, validate
from degla.remote import refuse_address

TRANSIENT: Final[frozenset[ReplyStatus]] = frozenset({"unreachable"})
"""Transient outcomes; later runs repeat these requests."""

JournalEntry = tuple[Form, Reply]
"""A reply with the form of its request."""


class ReplyRecord(Record):
    """One line of the journal: the fields of `RequestKey` and `Reply`, and the request's form."""

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
        """Return the form and the model's reply."""
        row = dict(self.__dict__)
        key = RequestKey(row.pop("caption_id"), row.pop("rule"), row.pop("draw"))
        return row.pop("form"), Reply(key, **row)


_DEFAULTS: Final[dict[str, Any]] = {
    each.name: {} if each.default is MISSING else each.default
    for each in fields(Reply)
    if each.name not in ("key", "outcome")
}
"""Fields of a reply that are omitted from a line if they have this value."""


def format_line(form: Form, reply: Reply) -> str:
    """Return a reply as one line of the journal."""
    key = reply.key
    row = {"caption_id": key.caption_id, "rule": key.rule, "draw": key.draw, "form": form, "outcome": reply.outcome}
    optional = {name: getattr(reply, name) for name in _DEFAULTS}
    row |= {name: value for name, value in optional.items() if value != _DEFAULTS[name]}
    return json.dumps(row, separators=(",", ":")) + "\n"


class Journal:
    """The file of replies next to a file of negatives. Use it in a ``with`` block.

    Attributes:
        file: the file.
    """

    def __init__(self, path: Path, summary: Summary) -> None:
        """Open the file.

        Args:
            path: path of the file.
            summary: counts its replies.

        Raises:
            InputError: the file cannot be written.
        """
        self.file = LineFile(path)
        self._summary = summary
        self._places = open_temporary_database()
        self._places.execute("CREATE TABLE replies (caption_id TEXT, rule TEXT, draw INTEGER, place INTEGER)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._places.close()
        self.file.__exit__(*error)

    def index(self) -> None:
        """Drop an incomplete last line, add what workers left behind, count all replies and index them.

        Raises:
            InputError: a line is not a reply (the message names the line).
            DeglaError: the disk is full.
        """
        parts = list_parts(self.file.path)
        for part in parts:
            if part.suffix != ".jsonl":  # a run was killed while adding this part
                self.file.stream.truncate(int(part.suffix[1:]))
        if parts:
            for _ in _read_all(self.file):
                pass  # Nothing may be appended to an incomplete line.
        for part in parts:
            with LineFile(part) as file:
                replies = read_replies(file)
            self.append(replies, part=part)
        self._places.executemany("INSERT INTO replies VALUES (?, ?, ?, ?)", self._read_places())
        self._places.execute("CREATE INDEX by_key ON replies (caption_id, rule, draw)")

    def _read_places(self) -> Iterator[tuple[str, str, int, int]]:
        for place, (form, reply) in _read_all(self.file):
            self._summary.replies.add(form, reply)
            if reply.outcome not in TRANSIENT:
                yield reply.key.caption_id, reply.key.rule, reply.key.draw, place

    def find(self, key: RequestKey) -> JournalEntry | None:
        """Return the form and the reply of an earlier run; None if the request has no reply yet."""
        entries = self._find("rule = ? AND draw = ?", key.caption_id, key.rule, key.draw)
        return entries[0] if entries else None

    def find_all(self, caption_id: str) -> list[JournalEntry]:
        """Return the replies of one caption, for a worker on another machine."""
        return self._find("TRUE", caption_id)

    def _find(self, condition: str, *values: object) -> list[JournalEntry]:
        # If a request was answered twice, the first reply counts: its rows were written.
        query = f"SELECT min(place) FROM replies WHERE caption_id = ? AND {condition} GROUP BY rule, draw"
        rows = self._places.execute(query, values).fetchall()
        entries = []
        for (place,) in rows:
            self.file.stream.seek(place)
            entries.append(parse_line(self.file.stream.readline(), str(self.file.path)))
        return entries

    def keep(self, replies: Sequence[JournalEntry], *, part: Path | None = None) -> None:
        """Append replies and count them; see `append`."""
        self.append(replies, part=part)
        for form, reply in replies:
            self._summary.replies.add(form, reply)

    def append(self, replies: Sequence[JournalEntry], *, part: Path | None = None) -> None:
        """Append replies and flush them to the operating system; raises as `LineFile.append`.

        Args:
            replies: the replies, in order.
            part: a worker's file with these replies, which is deleted. Until then its name ends in the journal's
                old length, to which `index` truncates after a kill, so no reply is added twice.
        """
        if part is not None and part.exists():
            part = part.rename(f"{part}.{self.file.stream.seek(0, SEEK_END)}")
        self.file.append(format_line(form, reply) for form, reply in replies)
        if part is not None:
            part.unlink(missing_ok=True)


def read_replies(file: LineFile) -> list[JournalEntry]:
    """Return all replies of a file and drop an incomplete last line.

    Raises:
        InputError: a line is not a reply (the message names the line).
    """
    return [entry for _, entry in _read_all(file)]


def _read_all(file: LineFile) -> Iterator[tuple[int, JournalEntry]]:
    """Yield every reply with its line's byte offset; drop an incomplete last line."""
    end = 0
    for number, place, line in whole_lines(file.stream):
        yield place, parse_line(line, f"{file.path} line {number}")
        end = place + len(line)
    file.stream.truncate(end)


def parse_line(line: bytes, where: str) -> JournalEntry:
    """Parse one line of the journal; raises `InputError` if it is not a reply."""
    return _read(ReplyRecord, line, where, remedy="Remove the line; its request will be repeated.").entry()


def _read(model: type[RecordType], line: bytes, where: str, *, remedy: str) -> RecordType:
    try:
        return model.model_validate_json(line)
    except ValueError:  # Validate again for our own error message.
        return validate(model, parse_json(line, where=where, remedy=remedy, lines=False), where=where)


_STARTED: Final = "started"
_MAY_DIFFER: Final = frozenset({_STARTED, *FORM})
"""The manifest entries that may differ when a file is resumed."""
_TRANSIENT_REASONS: Final = frozenset(f"model_{outcome}" for outcome in TRANSIENT)


@dataclass
class Output:
    """An open file of negatives.

    Attributes:
        file: the file that rows are appended to.
        captions_done: number of leading captions that have all their rows.
        done: finished rules of the next caption.
    """

    file: LineFile
    captions_done: int = 0
    done: FinishedRules = field(default_factory=dict)

    def write(self, rows: Sequence[NegativeRecord]) -> None:
        """Append rows and flush them to the operating system; raises as `LineFile.append`."""
        self.file.append(row.model_dump_json() + "\n" for row in rows)


@contextmanager
def continue_output(
    out: Path, settings: dict[str, Any], captions: CaptionStream, rules: Sequence[str], summary: Summary
) -> Iterator[Output]:
    """Open the file where an earlier run stopped, or create it; kept rows are added to the summary.

    From the first row whose language model could not be reached, rows are dropped: those requests are repeated, and
    the journal has all other replies.

    Raises:
        InputError: the file was made with other settings or captions, is not a file of negatives, cannot be written,
            or is being written by another run.
    """
    refuse_address(out)
    if out.is_dir():
        raise InputError(f"{out}: is a folder. Choose a file for the negatives with --out.")
    manifest = manifest_path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _require_manifest(out)
    except OSError as error:
        raise cannot_write(out, error, remedy="Choose another --out.") from None
    with LineFile(out) as file:
        if not file.claim():
            raise InputError(f"{out}: another run is writing this file. Wait for it or choose another --out.")
        # Only after the claim: of two runs that start at once, one would overwrite the other's manifest.
        if manifest.exists():
            _require_same_settings(out, settings)
        else:
            write_manifest(out, {**settings, _STARTED: datetime.now(UTC).isoformat(timespec="seconds")})
        end, captions_done, texts = _find_end(file.stream, captions, rules, summary, path=out)
        file.stream.truncate(end)
        yield Output(file, captions_done, texts)


def count_finished(out: Path, settings: dict[str, Any], captions: CaptionStream, rules: Sequence[str]) -> int:
    """Return how many leading captions an earlier run has finished; changes nothing; raises as `continue_output`."""
    require_writable(out)
    _require_manifest(out)
    if manifest_path(out).exists():
        _require_same_settings(out, settings)
    if not out.exists():
        return 0
    with out.open("rb") as stream:
        end, finished, texts = _find_end(stream, captions, rules, Summary(tuple(rules), len(captions)), path=out)
        if finished < len(captions) - 1 or len(texts) < len(rules) - 1:
            return finished
        # Only the very last pair of all is left. A run makes it again, which takes no request: its replies are there.
        last = [_read(NegativeRecord, line, str(out), remedy="") for _, at, line in whole_lines(stream) if at >= end]
    return finished + (bool(last) and all(row.reason not in _TRANSIENT_REASONS for row in last))


def count_replies(out: Path, captions: NDArray[np.uint64]) -> Counter[tuple[str, Form]]:
    """Return how many replies of an earlier run would be used again, by rule and form; changes nothing.

    Args:
        out: the file of negatives.
        captions: hashes of the ids of the captions that are not finished, shape [captions].

    Raises:
        InputError: a line is not a reply (the message names the line).
    """
    ids: defaultdict[tuple[str, Form], array[int]] = defaultdict(lambda: array("Q"))
    for path in filter(Path.exists, (journal := journal_path(out), *list_parts(journal))):
        with path.open("rb") as stream:
            for number, _, line in whole_lines(stream):
                form, reply = parse_line(line, f"{path} line {number}")
                if reply.outcome in TRANSIENT:
                    continue
                ids[reply.key.rule, form].append(hash_text(reply.key.caption_id))
    return Counter({key: int(np.isin(np.array(each, np.uint64), captions).sum()) for key, each in ids.items()})


def _require_manifest(out: Path) -> None:
    manifest = manifest_path(out)
    for path in (out, journal := journal_path(out), *list_parts(journal)):
        if path.exists() and path.stat().st_size and not manifest.exists():
            raise InputError(
                f"{path}: already exists, but {manifest.name} is missing, so the run cannot be resumed. "
                "Move the file or choose another --out."
            )


def manifest_path(out: Path) -> Path:
    """Return the path of the manifest of a file of negatives."""
    return out.with_name(out.name + ".manifest.json")


def write_manifest(out: Path, entries: Mapping[str, Any]) -> None:
    """Write the manifest of a file of negatives, with the number of its form."""
    write_json(manifest_path(out), {**FORM, **entries})


def journal_path(out: Path) -> Path:
    """Return the path of the language model's replies for a file of negatives."""
    return out.with_name(out.name + ".replies.jsonl")


def parts_folder(journal: Path) -> Path:
    """Return the folder, next to the journal, for replies of batches that remote workers have not finished."""
    return journal.with_suffix("")


def list_parts(journal: Path) -> list[Path]:
    """Return the files in the parts folder, in order."""
    return sorted(parts_folder(journal).glob("*.jsonl*"))


def _require_same_settings(out: Path, settings: dict[str, Any]) -> None:
    manifest, remedy = manifest_path(out), "Delete this manifest together with its negatives."
    earlier = read_json_object(manifest, remedy=remedy)
    require_form(earlier, where=manifest, remedy=remedy)
    names = dict.fromkeys([*settings, *earlier])
    different = [name for name in names if name not in _MAY_DIFFER and earlier.get(name) != settings.get(name)]
    if different:
        differences = "; ".join(f"{name}: was {earlier.get(name)!r}, now {settings.get(name)!r}" for name in different)
        raise InputError(
            f"{out}: made with other settings or captions ({differences}). "
            "Choose another --out, or delete the file, its manifest and its replies to start over."
        )


def _find_end(
    stream: IO[bytes], captions: CaptionStream, rules: Sequence[str], summary: Summary, *, path: Path
) -> tuple[int, int, FinishedRules]:
    """Find the rows of finished (caption, rule) pairs, which are added to the summary; what follows is to be dropped.

    The last pair in the file may lack rows, so it is made again; an incomplete last line belongs to it or follows it.

    Returns:
        Byte offset of their end; number of leading captions that have all their rows; finished rules of the next one.
    """
    current: tuple[str, str] | None = None
    pending: list[NegativeRecord] = []
    texts: FinishedRules = {}  # of the last caption
    end = finished = 0  # byte offset of the end of the finished pairs, and their number
    for number, position, line in whole_lines(stream):
        where = f"{path} line {number}"
        row = _read(NegativeRecord, line, where, remedy="Delete the file and its manifest to start over.")
        pair = (row.caption_id, row.rule)
        if pair != current:
            if any(earlier.reason in _TRANSIENT_REASONS for earlier in pending):
                break
            if current is not None:
                summary.add(pending)
                texts[current[1]] = tuple(row.text for row in pending if row.accepted and row.text is not None)
                finished += 1
            end, current, pending = position, pair, []
            place, rule = divmod(finished, len(rules))
            if place == len(captions) or hash_text(pair[0]) != captions.ids[place] or pair[1] != rules[rule]:
                raise InputError(
                    f"{where}: caption_id and rule {pair} do not match caption {place} and rule {rules[rule]}: "
                    "rows were changed or moved. Delete the file and its manifest to start over."
                )
            if rule == 0:
                texts = {}
        pending.append(row)
    return end, finished // len(rules), texts
