"""The negatives' file on disk: its manifest, where an earlier run stopped, appending."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from degla.errors import DeglaError, InputError
from degla.files import write_json
from degla.negatives.grammar import lexicon
from degla.negatives.grammar.phrases import tagger_version
from degla.negatives.run.journal import PASSING
from degla.negatives.run.stream import CaptionStream, hash_text
from degla.negatives.run.summary import Summary
from degla.parse import parse_json, read_json_object
from degla.records import NegativeRecord, validate
from degla.version import __version__

_STARTED: Final = "started"
"""The manifest's only entry that may differ when a file is continued."""
_PASSING_REASONS: Final = frozenset(f"model_{outcome}" for outcome in PASSING)

FinishedRules = tuple[tuple[str, tuple[str, ...]], ...]
"""The rules that are finished for one caption, each with the texts that it made."""


@dataclass
class Output:
    """An open file of negatives.

    Attributes:
        path: where it is.
        stream: where rows are appended.
        captions_done: captions at the beginning of the list that have all their rows.
        partly: finished rules of the caption after those, by its id.
    """

    path: Path
    stream: IO[bytes]
    captions_done: int = 0
    partly: dict[str, FinishedRules] = field(default_factory=dict)

    def write(self, rows: Sequence[NegativeRecord]) -> None:
        """Append rows and hand them to the operating system.

        Raises:
            DeglaError: the disk is full, or the file cannot be written any more.
        """
        try:
            self.stream.write("".join(row.model_dump_json() + "\n" for row in rows).encode())
            self.stream.flush()
        except OSError as error:
            raise DeglaError(
                f"{self.path}: cannot be written: {error.strerror}. Mend that; the same command goes on."
            ) from None


def manifest(
    captions: CaptionStream, *, rules: Sequence[str], seed: int, per_rule: int, model: Mapping[str, object] | None
) -> dict[str, Any]:
    """Everything that decides what is in the file.

    Args:
        captions: all captions.
        rules: names, in the order of the rows.
        seed: of all draws.
        per_rule: accepted negatives of one rule for one caption, at most.
        model: what describes the language model, its prompts and examples; None where there is none.
    """
    settings: dict[str, Any] = {
        "captions": len(captions),
        "captions_sha256": captions.sha256,
        "rules": list(rules),
        "seed": seed,
        "per_rule": per_rule,
        "degla": __version__,
        "lexicon": lexicon.digest(),
        "tagger": tagger_version(),
        **(model or {}),
    }
    found: dict[str, Any] = json.loads(json.dumps(settings))  # as it will be read again
    return found


@contextmanager
def continue_output(
    out: Path,
    settings: dict[str, Any],
    captions: CaptionStream,
    rules: Sequence[str],
    summary: Summary,
) -> Iterator[Output]:
    """Open the file where an earlier run stopped, or make it; rows that stay are added to the summary.

    Where a language model could not be reached, rows are cut off from there on: the requests are made again, and
    the journal has all other replies.

    Raises:
        InputError: the file was made with other settings or captions, is no file of negatives, cannot be written, or
            is being written by another run.
    """
    beside = manifest_path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path in (out, journal_path(out)):
            if path.exists() and path.stat().st_size and not beside.exists():
                raise InputError(
                    f"{path}: exists, but {beside.name} does not, so that it cannot be continued. "
                    "Move it away or choose another --out."
                )
        if beside.exists():
            _compare(out, _read_manifest(beside), settings)
        else:
            started = {_STARTED: datetime.now(UTC).isoformat(timespec="seconds")}
            write_json(beside, {**settings, **started})
        stream = out.open("ab+")
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}. Choose another --out.") from None
    try:
        _lock(out, stream)
        output = Output(out, stream)
        _find_end(output, captions, rules, summary)
        yield output
    finally:
        with suppress(OSError):  # what could not be written was reported by `Output.write`
            stream.close()


def manifest_path(out: Path) -> Path:
    """Where the manifest of a file of negatives lies."""
    return out.with_name(out.name + ".manifest.json")


def journal_path(out: Path) -> Path:
    """Where the replies of the language model lie that a file of negatives was made with."""
    return out.with_name(out.name + ".replies.jsonl")


def _lock(out: Path, stream: IO[bytes]) -> None:
    """Refuse to write what another run is writing; file systems without locks are let pass."""
    try:
        import fcntl
    except ImportError:  # Windows has none
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{out}: another run is writing it. Wait for it or choose another --out.") from None
    except OSError:
        return


def _read_manifest(path: Path) -> dict[str, Any]:
    return read_json_object(path, remedy="Delete this manifest together with the negatives beside it.")


def _compare(out: Path, found: dict[str, Any], settings: dict[str, Any]) -> None:
    names = dict.fromkeys([*settings, *found])
    different = [name for name in names if name != _STARTED and found.get(name) != settings.get(name)]
    if different:
        listed = "; ".join(f"{name}: {found.get(name)!r} there, {settings.get(name)!r} now" for name in different)
        raise InputError(
            f"{out}: made with other settings or captions ({listed}). "
            "Choose another --out, or delete the file and what lies beside it to begin again."
        )


def _find_end(output: Output, captions: CaptionStream, rules: Sequence[str], summary: Summary) -> None:
    """Keep the rows of finished (caption, rule) pairs and cut off what follows.

    The last pair in the file may lack rows, so it is made again; a torn last line belongs to it or follows it.
    """
    current: tuple[str, str] | None = None
    kept = position = 0  # bytes: end of the finished pairs, end of the rows read
    pending: list[NegativeRecord] = []
    texts: dict[str, dict[str, tuple[str, ...]]] = {}
    finished = 0
    output.stream.seek(0)
    for line_number, line in enumerate(output.stream, start=1):
        if not line.endswith(b"\n"):
            break
        row = _row(output.path, line_number, line)
        pair = (row.caption_id, row.rule)
        if pair != current:
            if any(earlier.reason in _PASSING_REASONS for earlier in pending):
                break
            finished += _finish(pending, texts, summary)
            kept = position
            current, pending = pair, []
            place, rule = divmod(finished, len(rules))
            if place == len(captions) or hash_text(pair[0]) != captions.ids[place] or pair[1] != rules[rule]:
                raise InputError(
                    f"{output.path} line {line_number}: caption_id and rule are {pair}, not those of caption {place} "
                    f"and rule {rules[rule]}: rows were changed or moved. Delete the file and its manifest to begin "
                    "again."
                )
        pending.append(row)
        position += len(line)
    output.stream.truncate(kept)
    output.captions_done, rest = divmod(finished, len(rules))
    if rest:
        output.partly = {name: tuple(made.items()) for name, made in texts.items()}


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
    try:
        return NegativeRecord.model_validate_json(line)
    except ValueError:
        where = f"{out} line {number}"
        remedy = "Delete the file and its manifest to begin again."
        parsed = parse_json(line, where=where, remedy=remedy, lines=False)
        return validate(NegativeRecord, parsed, where=where)
