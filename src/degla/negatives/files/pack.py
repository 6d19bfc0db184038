"""Packs negatives into one Parquet file that says how it was made: the run's manifest and counts are in its schema.

The manifest of a run and the replies of its language model lie beside a JSONL file (output.py says under which names);
they are read here from either place. Rows keep their order and every field, so that training on the packed file is
training on the original. Only a row group is in memory at a time.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from degla.errors import InputError
from degla.files import whole_file, whole_lines
from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.run.output import journal_path, manifest_path, read_line
from degla.negatives.run.summary import Outcomes
from degla.pages.words import counted
from degla.parse import PARQUET_ENDINGS, open_file, open_parquet, parse_json, read_json_object
from degla.records import NegativeRecord
from degla.version import __version__

MANIFEST_KEY: Final = b"degla.manifest"
OUTCOMES_KEY: Final = b"degla.outcomes"
"""Keys in the metadata of a Parquet file's schema; their values are JSON."""
PACKED_KEY: Final = b"degla.packed"
"""Key in the schema's metadata: what was packed, as JSON."""

_GROUP: Final = 65_536
"""Rows of a row group: some megabytes of text."""
_REPEATING: Final = ("rule", "kind", "source", "reason", "form")
"""Columns of few different values: stored as numbers of a dictionary."""


@dataclass
class PackSummary:
    """What was packed.

    Attributes:
        rows: rows written.
        left_out: rows that were not, by (rule, reason): refused ones, unless all were asked for.
        without_caption: rows whose caption is not in the captions file; not written.
        size: of the file, bytes.
        seconds: wall time.
    """

    rows: int = 0
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    without_caption: int = 0
    size: int = 0
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """JSON values."""
        left_out = {f"{rule}: {reason}": times for (rule, reason), times in sorted(self.left_out.items())}
        return {**vars(self), "left_out": left_out}

    def sentence(self) -> str:
        """For a terminal."""
        text = f"{counted(self.rows, 'row')}, {counted(self.size, 'byte')}, {self.seconds:.1f} s"
        if self.left_out:
            text += (
                f"; {counted(self.left_out.total(), 'refused row is', 'refused rows are')} not in it (--all keeps them)"
            )
        if self.without_caption:
            left_out = counted(self.without_caption, "row is", "rows are")
            text += f"; {left_out} of no caption of the captions file, and not in it"
        return text + "."


def pack(
    records: Iterable[NegativeRecord],
    out: Path,
    *,
    source: Path,
    refused: bool = False,
    captions: CaptionIndex | None = None,
) -> PackSummary:
    """Write negatives as Parquet, complete or not at all.

    Args:
        records: the rows.
        out: the file.
        source: the file that the rows are from; its manifest and journal are looked for beside it.
        refused: keep refused rows too.
        captions: adds the columns caption, image and image_id; rows of other captions are left out.

    Raises:
        InputError: `out` does not end in ".parquet", cannot be written; or nothing is left to pack.
    """
    import pyarrow
    import pyarrow.parquet

    if out.suffix.lower() not in PARQUET_ENDINGS:
        raise InputError(f"{out}: the name of a packed file must end in .parquet.")
    started = time.monotonic()
    summary = PackSummary()
    schema = _schema(captions=captions is not None)
    described = _describe(source)
    kept = _keep(records, refused=refused, captions=captions, summary=summary)
    with whole_file(out, binary=True) as stream:
        with pyarrow.parquet.ParquetWriter(
            stream,
            schema.with_metadata(described),
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=list(_REPEATING),
            write_statistics=["rule", "accepted"],
        ) as writer:
            while group := list(islice(kept, _GROUP)):
                columns = {name: [row[name] for row in group] for name in schema.names}
                writer.write_table(pyarrow.table(columns, schema=schema), row_group_size=_GROUP)
                summary.rows += len(group)
        if not summary.rows:
            raise InputError(
                f"{source}: nothing to pack: {counted(summary.left_out.total(), 'row was', 'rows were')} refused by "
                f"the checks (--all packs them), {summary.without_caption:,} belong to no caption of the captions file."
            )
        summary.size = stream.tell()
    summary.seconds = time.monotonic() - started
    return summary


def _schema(*, captions: bool) -> Any:
    import pyarrow as arrow

    types = dict.fromkeys(_REPEATING, arrow.dictionary(arrow.int32(), arrow.string()))
    types |= {"accepted": arrow.bool_(), "draw": arrow.int32(), "score": arrow.float64()}
    names = [*NegativeRecord.model_fields, *(("caption", "image", "image_id") if captions else ())]
    return arrow.schema([(name, types.get(name, arrow.string())) for name in names])


def _describe(source: Path) -> dict[bytes, bytes]:
    """The schema's metadata: what is known of the run, and of the packing."""
    metadata = {PACKED_KEY: json.dumps({"from": source.name, "degla": __version__}).encode()}
    if (manifest := read_manifest(source)) is not None:
        metadata[MANIFEST_KEY] = json.dumps(manifest).encode()
    if (outcomes := read_outcomes(source)) is not None:
        metadata[OUTCOMES_KEY] = json.dumps(outcomes.plain()).encode()
    return metadata


def _keep(
    records: Iterable[NegativeRecord], *, refused: bool, captions: CaptionIndex | None, summary: PackSummary
) -> Iterator[dict[str, Any]]:
    """The rows to write, as columns to values; the others are counted."""
    for record in records:
        if not record.accepted and not refused:
            summary.left_out[record.rule, record.reason or "unnamed"] += 1
            continue
        row = dict(record.__dict__)
        if captions is not None:
            caption = captions.find(record.caption_id)
            if caption is None:
                summary.without_caption += 1
                continue
            row |= {"caption": caption.text, "image": caption.image, "image_id": caption.image_id}
        yield row


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of the run that made a file; None where there is none.

    Raises:
        InputError: it is there and is no JSON object, or names no rules in it.
    """
    where, remedy = path, "Get or make it again."
    manifest = _of_schema(path, MANIFEST_KEY)
    if manifest is None:
        where, remedy = manifest_path(path), "Delete this manifest to continue without it."
        if not where.is_file():
            return None
        manifest = read_json_object(where, remedy=remedy)
    rules = manifest.get("rules", [])
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise InputError(
            f"{where}: field 'rules' of the manifest must be a list of names (got {rules!r:.80}). {remedy}"
        )
    return manifest


def read_outcomes(path: Path) -> Outcomes | None:
    """What the language model answered; None where no journal lies beside the file and it carries no counts.

    Raises:
        InputError: a line of the journal is no reply (a torn last line is passed over), or the counts are none.
    """
    packed = _of_schema(path, OUTCOMES_KEY)
    if packed is not None:
        try:
            return Outcomes.from_plain(packed)
        except (KeyError, TypeError, ValueError):
            what = f"'{OUTCOMES_KEY.decode()}' in the schema's metadata counts no answers"
            raise InputError(f"{path}: {what}. Get or make it again.") from None
    journal = journal_path(path)
    if not journal.is_file():
        return None
    outcomes = Outcomes()
    with open_file(journal) as stream:
        for number, _, line in whole_lines(stream):
            outcomes.add(*read_line(line, f"{journal} line {number}"))
    return outcomes


def _of_schema(path: Path, key: bytes) -> dict[str, Any] | None:
    """A JSON object out of the metadata of a Parquet file's schema."""
    if path.suffix.lower() not in PARQUET_ENDINGS:
        return None
    metadata = open_parquet(path).schema_arrow.metadata or {}
    if key not in metadata:
        return None
    found = parse_json(metadata[key], where=f"{path}: '{key.decode()}' in the schema's metadata", lines=False)
    if not isinstance(found, dict):
        raise InputError(f"{path}: '{key.decode()}' in the schema's metadata is no JSON object.")
    return found
