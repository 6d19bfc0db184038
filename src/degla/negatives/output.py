"""The negatives' file on disk: its manifest, where an earlier run stopped, appending, progress."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from degla import __version__
from degla.errors import InputError
from degla.negatives import lexicon
from degla.negatives.phrases import tagger_version
from degla.negatives.summary import Summary
from degla.records import CaptionRecord, NegativeRecord, validate

LOG = logging.getLogger(__name__)

_LOG_EVERY: Final = 5_000
"""Captions between two progress lines where there is no terminal."""

Done = tuple[tuple[str, tuple[str, ...]], ...]
"""The rules that are finished for one caption, each with the texts that it made."""


@dataclass
class Output:
    """An open file of negatives.

    Attributes:
        stream: where rows are appended.
        captions_done: captions at the beginning of the list that have all their rows.
        partly: finished rules of the caption after those, by its id.
    """

    stream: IO[bytes]
    captions_done: int = 0
    partly: dict[str, Done] = field(default_factory=dict)

    def write(self, rows: Sequence[NegativeRecord]) -> None:
        """Append rows and hand them to the operating system."""
        self.stream.write("".join(row.model_dump_json() + "\n" for row in rows).encode())
        self.stream.flush()


def manifest(captions: Sequence[CaptionRecord], *, rules: Sequence[str], seed: int, per_rule: int) -> dict[str, Any]:
    """Everything that decides what is in the file."""
    digest = hashlib.sha256()
    for record in captions:
        digest.update(f"{record.id}\t{record.image_id}\t{record.text}\n".encode())
    return {
        "captions": len(captions),
        "captions_sha256": digest.hexdigest(),
        "rules": list(rules),
        "seed": seed,
        "per_rule": per_rule,
        "degla": __version__,
        "lexicon": lexicon.digest(),
        "tagger": tagger_version(),
    }


@contextmanager
def continue_output(
    out: Path, settings: dict[str, Any], captions: Sequence[CaptionRecord], rules: Sequence[str], summary: Summary
) -> Iterator[Output]:
    """Open the file where an earlier run stopped, or make it; rows that stay are added to the summary.

    Raises:
        InputError: the file was made with other settings or captions, or is no file of negatives.
    """
    beside = out.with_name(out.name + ".manifest.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists() and out.stat().st_size and not beside.exists():
            raise InputError(
                f"{out}: exists, but {beside.name} does not, so that it cannot be continued. "
                "Move it away or choose another --out."
            )
        if beside.exists():
            _compare(out, _read_manifest(beside), settings)
        else:
            partial = beside.with_name(beside.name + ".partial")
            partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            partial.replace(beside)
        with out.open("ab+") as stream:
            output = Output(stream)
            _find_end(out, output, captions, rules, summary)
            yield output
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}. Choose another --out.") from None


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a manifest. Delete it together with the negatives beside it.")
    return found


def _compare(out: Path, found: dict[str, Any], settings: dict[str, Any]) -> None:
    different = [name for name in settings if found.get(name) != settings[name]]
    if different:
        listed = "; ".join(f"{name}: {found.get(name)!r} there, {settings[name]!r} now" for name in different)
        raise InputError(
            f"{out}: made with other settings or captions ({listed}). "
            "Choose another --out, or delete the file and its manifest to begin again."
        )


def _find_end(
    out: Path, output: Output, captions: Sequence[CaptionRecord], rules: Sequence[str], summary: Summary
) -> None:
    """Keep the rows of finished (caption, rule) pairs and cut off what follows.

    The last pair in the file may lack rows, so it is made again; a torn last line belongs to it or follows it.
    """
    pairs = ((record.id, rule) for record in captions for rule in rules)
    current: tuple[str, str] | None = None
    kept = position = 0  # bytes: end of the finished pairs, end of the rows read
    pending: list[NegativeRecord] = []
    texts: dict[str, dict[str, tuple[str, ...]]] = {}
    finished = 0
    output.stream.seek(0)
    for line_number, line in enumerate(output.stream, start=1):
        if not line.endswith(b"\n"):
            break
        row = _row(out, line_number, line)
        pair = (row.caption_id, row.rule)
        if pair != current:
            finished += _finish(pending, texts, summary)
            kept = position
            current, pending = pair, []
            if pair != (expected := next(pairs, None)):
                raise InputError(
                    f"{out} line {line_number}: caption_id and rule are {pair}, expected {expected}: "
                    "rows were changed or moved. Delete the file and its manifest to begin again."
                )
        pending.append(row)
        position += len(line)
    output.stream.truncate(kept)
    output.captions_done, rest = divmod(finished, len(rules))
    if rest:
        record = captions[output.captions_done]
        output.partly = {record.id: tuple(texts[record.id].items())}


def _finish(rows: Sequence[NegativeRecord], texts: dict[str, dict[str, tuple[str, ...]]], summary: Summary) -> int:
    """Count one finished pair; remembers the accepted texts of its caption."""
    if not rows:
        return 0
    summary.add(rows)
    first = rows[0]
    if first.caption_id not in texts:
        texts.clear()
    accepted = tuple(row.text for row in rows if row.accepted and row.text is not None)
    texts.setdefault(first.caption_id, {})[first.rule] = accepted
    return 1


def _row(out: Path, number: int, line: bytes) -> NegativeRecord:
    where = f"{out} line {number}"
    try:
        parsed = json.loads(line)
    except ValueError:
        raise InputError(f"{where}: not JSON. Delete the file and its manifest to begin again.") from None
    return validate(NegativeRecord, parsed, where=where)


class Progress:
    """A bar on a terminal; elsewhere a log line every 5,000 captions."""

    def __init__(self, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar

        self._total, self._done, self._said = total, done, done // _LOG_EVERY
        console = Console(stderr=True)
        self._bar = Bar(console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("negatives", total=total, completed=done) if self._bar else None

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, captions: int) -> None:
        """Say that some captions more are finished."""
        self._done += captions
        if self._bar and self._task is not None:
            self._bar.advance(self._task, captions)
        elif self._done // _LOG_EVERY != self._said:
            self._said = self._done // _LOG_EVERY
            LOG.info("negatives: %d of %d captions", self._done, self._total)
