"""The negatives' file on disk: its manifest, where an earlier run stopped, appending."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from degla.errors import InputError
from degla.files import LineFile, cannot_write, whole_lines, write_json
from degla.negatives.grammar import lexicon
from degla.negatives.grammar.phrases import tagger_version
from degla.negatives.run.journal import PASSING
from degla.negatives.run.stream import CaptionStream, FinishedRules, hash_text
from degla.negatives.run.summary import Summary
from degla.parse import parse_json, read_json_object
from degla.records import NegativeRecord, validate
from degla.version import __version__

_STARTED: Final = "started"
"""The manifest's only entry that may differ when a file is continued."""
_PASSING_REASONS: Final = frozenset(f"model_{outcome}" for outcome in PASSING)


@dataclass
class Output:
    """An open file of negatives.

    Attributes:
        file: where rows are appended.
        captions_done: captions at the beginning of the list that have all their rows.
        done: finished rules of the caption after those.
    """

    file: LineFile
    captions_done: int = 0
    done: FinishedRules = field(default_factory=dict)

    def write(self, rows: Sequence[NegativeRecord]) -> None:
        """Append rows and hand them to the operating system; raises as `LineFile.append`."""
        self.file.append(row.model_dump_json() + "\n" for row in rows)


def manifest(
    captions: CaptionStream, *, rules: Sequence[str], seed: int, per_rule: int, described: Mapping[str, object] | None
) -> dict[str, Any]:
    """Everything that decides what is in the file, as JSON gives it back.

    Args:
        captions: all captions.
        rules: names, in the order of the rows.
        seed: of all draws.
        per_rule: accepted negatives of one rule for one caption, at most.
        described: what else decides the rows: the language model, its prompts and examples, where words come from.
    """
    settings = {
        "captions": len(captions),
        "captions_sha256": captions.sha256,
        "rules": list(rules),
        "seed": seed,
        "per_rule": per_rule,
        "degla": __version__,
        "lexicon": lexicon.digest(),
        "tagger": tagger_version(),
        **(described or {}),
    }
    as_read: dict[str, Any] = json.loads(json.dumps(settings))
    return as_read


@contextmanager
def continue_output(
    out: Path, settings: dict[str, Any], captions: CaptionStream, rules: Sequence[str], summary: Summary
) -> Iterator[Output]:
    """Open the file where an earlier run stopped, or make it; rows that stay are added to the summary.

    Where a language model could not be reached, rows are cut off from there on: the requests are made again, and
    the journal has all other replies.

    Raises:
        InputError: the file was made with other settings or captions, is no file of negatives, cannot be written, or
            is being written by another run.
    """
    if out.is_dir():
        raise InputError(f"{out}: is a folder, and negatives are written to one file. Choose another --out.")
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
            _compare(out, beside, settings)
        else:
            write_json(beside, {**settings, _STARTED: datetime.now(UTC).isoformat(timespec="seconds")})
    except OSError as error:
        raise cannot_write(out, error, remedy="Choose another --out.") from None
    with LineFile(out) as file:
        if not file.claim():
            raise InputError(f"{out}: another run is writing it. Wait for it or choose another --out.")
        output = Output(file)
        _find_end(output, captions, rules, summary)
        yield output


def manifest_path(out: Path) -> Path:
    """Where the manifest of a file of negatives lies."""
    return out.with_name(out.name + ".manifest.json")


def journal_path(out: Path) -> Path:
    """Where the replies of the language model lie that a file of negatives was made with."""
    return out.with_name(out.name + ".replies.jsonl")


def _compare(out: Path, beside: Path, settings: dict[str, Any]) -> None:
    earlier = read_json_object(beside, remedy="Delete this manifest together with the negatives beside it.")
    names = dict.fromkeys([*settings, *earlier])
    different = [name for name in names if name != _STARTED and earlier.get(name) != settings.get(name)]
    if different:
        listed = "; ".join(f"{name}: {earlier.get(name)!r} there, {settings.get(name)!r} now" for name in different)
        raise InputError(
            f"{out}: made with other settings or captions ({listed}). "
            "Choose another --out, or delete the file and what lies beside it to begin again."
        )


def _find_end(output: Output, captions: CaptionStream, rules: Sequence[str], summary: Summary) -> None:
    """Keep the rows of finished (caption, rule) pairs and cut off what follows.

    The last pair in the file may lack rows, so it is made again; a torn last line belongs to it or follows it.
    """
    current: tuple[str, str] | None = None
    pending: list[NegativeRecord] = []
    texts: FinishedRules = {}  # of the last caption
    end = finished = 0  # where the finished pairs end, in bytes, and how many they are
    for number, position, line in whole_lines(output.file.stream):
        where = f"{output.file.path} line {number}"
        row = _row(line, where)
        pair = (row.caption_id, row.rule)
        if pair != current:
            if any(earlier.reason in _PASSING_REASONS for earlier in pending):
                break
            if current is not None:
                summary.add(pending)
                texts[current[1]] = tuple(row.text for row in pending if row.accepted and row.text is not None)
                finished += 1
            end, current, pending = position, pair, []
            place, rule = divmod(finished, len(rules))
            if place == len(captions) or hash_text(pair[0]) != captions.ids[place] or pair[1] != rules[rule]:
                raise InputError(
                    f"{where}: caption_id and rule are {pair}, not those of caption {place} and rule {rules[rule]}: "
                    "rows were changed or moved. Delete the file and its manifest to begin again."
                )
            if rule == 0:
                texts = {}
        pending.append(row)
    output.file.stream.truncate(end)
    output.captions_done, output.done = finished // len(rules), texts


def _row(line: bytes, where: str) -> NegativeRecord:
    try:
        return NegativeRecord.model_validate_json(line)
    except ValueError:
        remedy = "Delete the file and its manifest to begin again."
        return validate(NegativeRecord, parse_json(line, where=where, remedy=remedy, lines=False), where=where)
