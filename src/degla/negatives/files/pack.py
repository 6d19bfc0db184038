"""Pack negatives into one Parquet file with their provenance: the run's manifest and counts are in its schema.

A JSONL file has the run's manifest and the language model's replies next to it (output.py defines their names); both
are read here from either place. Rows keep their order and all fields, so training on the packed file equals training
on the original. Only one row group is in memory at a time.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from degla.data.prepared import fetched
from degla.errors import InputError
from degla.files import whole_file, whole_lines
from degla.negatives.run.output import journal_path, manifest_path, parse_line
from degla.negatives.run.summary import Outcomes
from degla.pages.words import counted
from degla.parse import FORM, PARQUET_ENDINGS, open_file, open_parquet, parse_json, read_json_object, require_form
from degla.records import NegativeRecord
from degla.version import __version__

MANIFEST_KEY: Final = b"degla.manifest"
OUTCOMES_KEY: Final = b"degla.outcomes"
"""Keys in the metadata of a Parquet file's schema; their values are JSON."""
PACKED_KEY: Final = b"degla.packed"
"""Key in the schema's metadata for what was packed, as JSON."""

_GROUP: Final = 65_536
"""Rows per row group: a few megabytes of text."""
_REPEATING: Final = ("rule", "kind", "source", "reason", "form")
"""Columns with few different values, stored dictionary-encoded."""


@dataclass
class PackSummary:
    """Counts of a packed file.

    Attributes:
        rows: rows written.
        left_out: rows not written, refused or without text, by (rule, reason).
        without_text: those of them that have no text, mostly because the rule had nothing to change.
        size: size of the file in bytes.
        seconds: wall time.
    """

    rows: int = 0
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    without_text: int = 0
    size: int = 0
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        left_out = {f"{rule}: {reason}": times for (rule, reason), times in sorted(self.left_out.items())}
        return {**vars(self), "left_out": left_out}

    def sentence(self) -> str:
        """Return the counts as one sentence for a terminal."""
        text = f"{counted(self.rows, 'row')}, {counted(self.size, 'byte')}, {self.seconds:.1f} s"
        if self.left_out:
            text += f"; omitted: {self.omitted} (--all keeps them)"
        return text + "."

    @property
    def omitted(self) -> str:
        """What was not written, with the numbers."""
        refused = self.left_out.total() - self.without_text
        parts = [counted(refused, "refused row")] * bool(refused)
        parts += [f"{counted(self.without_text, 'row')} without text"] * bool(self.without_text)
        return ", ".join(parts)


def pack(records: Iterable[NegativeRecord], out: Path, *, source: Path, refused: bool = False) -> PackSummary:
    """Write negatives as Parquet, atomically.

    Args:
        records: the rows.
        out: the file.
        source: the file that the rows are from; its manifest and journal are looked up next to it.
        refused: whether to keep refused rows too.

    Raises:
        InputError: `out` does not end in ".parquet" or cannot be written, or there is nothing to pack.
    """
    import pyarrow
    import pyarrow.parquet

    if out.suffix.lower() not in PARQUET_ENDINGS:
        raise InputError(f"{out}: the name of a packed file must end in .parquet.")
    started = time.monotonic()
    summary = PackSummary()
    schema = _schema()
    metadata = _describe(source)
    rows = _keep(records, refused=refused, summary=summary)
    with whole_file(out, binary=True) as stream:
        with pyarrow.parquet.ParquetWriter(
            stream,
            schema.with_metadata(metadata),
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=list(_REPEATING),
            write_statistics=["rule", "accepted"],
        ) as writer:
            while group := list(islice(rows, _GROUP)):
                columns = {name: [row[name] for row in group] for name in schema.names}
                writer.write_table(pyarrow.table(columns, schema=schema), row_group_size=_GROUP)
                summary.rows += len(group)
        if not summary.rows:
            raise InputError(f"{source}: nothing to pack, only {summary.omitted} (--all packs them).")
        summary.size = stream.tell()
    summary.seconds = time.monotonic() - started
    return summary


def _schema() -> Any:
    import pyarrow as arrow

    types = dict.fromkeys(_REPEATING, arrow.dictionary(arrow.int32(), arrow.string()))
    types |= {"accepted": arrow.bool_(), "draw": arrow.int32(), "score": arrow.float64()}
    return arrow.schema([(name, types.get(name, arrow.string())) for name in NegativeRecord.model_fields])


def _describe(source: Path) -> dict[bytes, bytes]:
    """Return the schema's metadata about the run and the packing."""
    metadata = {PACKED_KEY: json.dumps({**FORM, "from": source.name, "degla": __version__}).encode()}
    if (manifest := read_manifest(source)) is not None:
        metadata[MANIFEST_KEY] = json.dumps(manifest).encode()
    if (outcomes := read_outcomes(source)) is not None:
        metadata[OUTCOMES_KEY] = json.dumps(outcomes.plain()).encode()
    return metadata


def _keep(records: Iterable[NegativeRecord], *, refused: bool, summary: PackSummary) -> Iterator[dict[str, Any]]:
    """Yield the rows to write, as column-to-value mappings; count the others."""
    for record in records:
        if not record.accepted and not refused:
            summary.left_out[record.rule, record.reason or "unnamed"] += 1
            summary.without_text += record.text is None
            continue
        yield dict(record.__dict__)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of the run that made a file; None if there is none.

    Raises:
        InputError: the manifest is not a JSON object, or of another version, or its rules are not a list of names.
    """
    where, remedy = path, "Download or create it again."
    manifest = _of_schema(path, MANIFEST_KEY)
    if manifest is None:
        where, remedy = manifest_path(path), "Delete this manifest to continue without it."
        if (here := _found(where)) is None:
            return None
        manifest = read_json_object(here, remedy=remedy)
    require_form(manifest, where=where, remedy=remedy)
    rules = manifest.get("rules", [])
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise InputError(
            f"{where}: field 'rules' of the manifest must be a list of names (got {rules!r:.80}). {remedy}"
        )
    return manifest


def read_outcomes(path: Path) -> Outcomes | None:
    """Return the outcomes of the language model; None if the file has neither a journal next to it nor counts.

    Raises:
        InputError: a line of the journal is not a reply (a truncated last line is ignored), or the counts are invalid.
    """
    plain = _of_schema(path, OUTCOMES_KEY)
    if plain is not None:
        try:
            return Outcomes.from_plain(plain)
        except (KeyError, TypeError, ValueError):
            what = f"'{OUTCOMES_KEY.decode()}' in the schema's metadata has no valid counts"
            raise InputError(f"{path}: {what}. Download or create it again.") from None
    if (journal := _found(journal_path(path))) is None:
        return None
    outcomes = Outcomes()
    with open_file(journal) as stream:
        for number, _, line in whole_lines(stream):
            outcomes.add(*parse_line(line, f"{journal} line {number}"))
    return outcomes


def _found(path: Path) -> Path | None:
    """Return a file, or the copy of one at an address; None if there is none."""
    with suppress(InputError):
        path = fetched(path)
    return path if path.is_file() else None


def _of_schema(path: Path, key: bytes) -> dict[str, Any] | None:
    """Read a JSON object from the metadata of a Parquet file's schema."""
    if path.suffix.lower() not in PARQUET_ENDINGS:
        return None
    metadata = open_parquet(fetched(path)).schema_arrow.metadata or {}
    if key not in metadata:
        return None
    value = parse_json(metadata[key], where=f"{path}: '{key.decode()}' in the schema's metadata", lines=False)
    if not isinstance(value, dict):
        raise InputError(f"{path}: '{key.decode()}' in the schema's metadata is not a JSON object.")
    return value
