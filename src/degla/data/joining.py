"""Join captions and negatives, given in any order, into the table of training rows, with bounded memory.

Captions are streamed to disk; only 24 bytes of each stay in memory, to find the row of a negative. Negatives are
written to files on disk by ranges of rows; each file is then sorted by row and checked. A report says what was
dropped.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as arrow

from degla.data.pairs import ForeignCheck, normalized_words, seem_foreign
from degla.data.table import (
    NEGATIVES,
    NUMBERS,
    ROWS,
    TEXTS,
    IdIndex,
    PairTable,
    RowIndex,
    caption_batch,
    caption_schema,
    id_hashes,
    numbered,
    row_schema,
)
from degla.errors import InputError
from degla.pages.words import counted
from degla.records import OPTIONAL_FIELDS, CaptionRecord, NegativeRecord, Record, only_negatives

log = logging.getLogger(__name__)

TABLE_NAME: Final = "rows.arrow"
UNNAMED_FILES: Final = ("the captions file", "the negatives file")
_EXAMPLES = 3  # ids shown in a message
_SAMPLE = 1000  # rows whose negatives are compared with their captions
_ALSO_TRUE = "equal to a further true text of their caption"
_UNKNOWN = "of captions that are not in the captions file"

Advance = Callable[[int], None]


class JoinReport(Record):
    """What a join kept and dropped.

    Attributes:
        rows: one per caption.
        images: distinct images among the rows.
        negatives: negatives kept, over all rows.
        per_row: number of negatives -> number of rows with that many.
        per_rule: rule -> number of negatives kept.
        dropped: reason -> number of negatives dropped.
        contradiction: an example of a text given both as a negative and as a true text, with its caption's id.
        foreign: an example of a negative that seems to belong to another caption, if most do.
    """

    rows: int
    images: int
    negatives: int
    per_row: dict[int, int]
    per_rule: dict[str, int]
    dropped: dict[str, int]
    contradiction: str = ""
    foreign: str = ""

    def tell(self) -> None:
        """Write it to the log."""
        log.info("%s", self.summary())
        if self.contradiction:
            log.warning(
                "%s also given as true texts of their captions, for example %s: dropped as negatives. A "
                "text cannot be both: remove it from one of the two files.",
                counted(self.dropped[_ALSO_TRUE], "negative is", "negatives are"),
                self.contradiction,
            )
        if self.foreign:
            log.warning(ForeignCheck.WARNING, self.foreign)

    def summary(self) -> str:
        """Return one sentence for the log."""
        counts = ", ".join(f"{rows:,} with {count}" for count, rows in self.per_row.items())
        dropped = ", ".join(f"{number:,} {reason}" for reason, number in self.dropped.items())
        return (
            f"{counted(self.rows, 'pair')} of {counted(self.images, 'image')} with "
            f"{counted(self.negatives, 'negative')} (rows by number of negatives: {counts}); dropped: "
            f"{dropped or 'nothing'}."
        )

    def require(self, negatives_per_caption: int, *, flag: str) -> None:
        """Refuse a number of negatives per caption, set by a flag, that no row has.

        Raises:
            InputError: no row has that many.
        """
        largest = max(self.per_row)
        if negatives_per_caption > largest:
            raise InputError(
                f"{counted(negatives_per_caption, 'negative per caption is', 'negatives per caption are')} needed, but "
                f"no caption has more than {counted(largest, 'usable one')}. Set {flag} to {largest} or less, "
                "or make more negatives."
            )


def join(
    captions: Iterable[CaptionRecord],
    negatives: Iterable[NegativeRecord] | None,
    *,
    silent: bool = False,
    files: tuple[str, str] = UNNAMED_FILES,
) -> PairTable:
    """As `join_and_report`, but keep the table in memory and log the report, unless silent."""
    with tempfile.TemporaryDirectory() as folder:
        report = join_and_report(captions, negatives, folder=Path(folder), files=files)
        rows = PairTable((Path(folder) / TABLE_NAME).read_bytes())
    if not silent:
        report.tell()
    return rows


def join_and_report(
    captions: Iterable[CaptionRecord],
    negatives: Iterable[NegativeRecord] | None,
    *,
    folder: Path,
    optional: Sequence[str] = OPTIONAL_FIELDS,
    numbers: Collection[str] = (),
    advance: Advance = lambda steps: None,
    files: tuple[str, str] = UNNAMED_FILES,
) -> JoinReport:
    """Join every caption with its accepted negatives, by caption id, in the order of the captions.

    Negatives that repeat their caption, one of its positives or an earlier negative are dropped.

    Args:
        captions: at least one, with unique ids.
        negatives: in any order; None if training uses none (every row then has none).
        folder: receives the table, a file `TABLE_NAME`; nothing else is left there.
        optional: fields of the captions that also become columns.
        numbers: those of them that are numbers.
        advance: called with the number of steps just done: 1 per caption, 2 per negative.
        files: names of the two files, for messages.

    Raises:
        InputError: there are no captions, no negative belongs to any caption, or no negative is usable.
    """
    schema = caption_schema(optional, numbers)
    scratch = folder / "parts"
    scratch.mkdir()
    try:
        index = _write_captions(captions, scratch / "captions.arrow", schema, advance)
        source = arrow.memory_map(str(scratch / "captions.arrow"))
        read = arrow.ipc.open_file(source)
        dropped: Counter[str] = Counter()
        contradictions: list[str] = []
        with PartFiles(scratch, rows=len(index)) as parts:
            unknown = _sort_in(negatives or (), index, parts, dropped, advance)
            examples = read.get_batch(0).column("id").slice(0, _EXAMPLES).to_pylist()
            rules, per_rule = list(parts.rules), np.zeros(len(parts.rules), dtype=np.int64)
            per_row: Counter[int] = Counter()
            images = numbered([read.get_batch(n).column("image_id") for n in range(read.num_record_batches)])
            complete = row_schema(schema, rules)
            with arrow.ipc.new_file(str(folder / TABLE_NAME), complete) as writer:
                for number in range(read.num_record_batches):
                    batch, start = read.get_batch(number), number * ROWS
                    columns = _usable(batch, parts.of(start, len(batch)), dropped, contradictions, advance)
                    counts = np.diff(columns[0].offsets.to_numpy())
                    per_row.update(counts.tolist())
                    per_rule += np.bincount(columns[1].values.to_numpy(), minlength=len(rules))
                    groups = arrow.array(images[start : start + len(batch)])
                    writer.write_batch(arrow.record_batch([*batch.columns, *columns, groups], complete))
        source.close()
        if negatives is not None and not per_rule.sum():
            raise InputError(_nothing_left(examples, unknown if not parts.known else [], dropped, files=files))
    finally:
        shutil.rmtree(scratch)
    table = PairTable(folder / TABLE_NAME)
    return JoinReport(
        rows=len(index), images=int(images.max()) + 1, negatives=int(per_rule.sum()),
        per_row=dict(sorted(per_row.items())), dropped=dict(sorted(dropped.items())),
        per_rule=dict(sorted(zip(rules, per_rule.tolist(), strict=True))), contradiction="".join(contradictions),
        foreign=seem_foreign(table[:: -(-len(table) // _SAMPLE)]),
    )  # fmt: skip


def _write_captions(captions: Iterable[CaptionRecord], path: Path, schema: Any, advance: Advance) -> IdIndex:
    hashes: list[tuple[RowIndex, RowIndex]] = []
    records = iter(captions)
    with arrow.ipc.new_file(str(path), schema) as writer:
        while some := list(islice(records, ROWS)):
            writer.write_batch(caption_batch(some, schema))
            advance(len(some))
            hashes.append(id_hashes([caption.id for caption in some]))
    if not hashes:
        raise InputError("there are no captions to train on: the captions file is empty.")
    return IdIndex(hashes)


def _sort_in(
    negatives: Iterable[NegativeRecord], index: IdIndex, parts: PartFiles, dropped: Counter[str], advance: Advance
) -> list[str]:
    """Write usable negatives to parts; count the others by reason and return the first few unknown caption ids."""
    unknown: dict[str, None] = {}
    remedy = "Pass files of positives with --data.positives-file."
    records = only_negatives(negatives, remedy=remedy)
    while some := list(islice(records, ROWS)):
        rows, usable = [], []
        for negative, row in zip(some, index.rows([each.caption_id for each in some]).tolist(), strict=True):
            parts.known |= row >= 0
            if row < 0:
                dropped[_UNKNOWN] += 1
                if len(unknown) < _EXAMPLES:
                    unknown[negative.caption_id] = None
            elif negative.text is None or not negative.text.strip():
                dropped["without text (nothing to change)"] += 1
            elif not negative.accepted:
                dropped["not accepted by the checks"] += 1
            else:
                rows.append(row)
                usable.append(negative)
        advance(2 * len(some) - len(rows))
        if rows:
            parts.add(rows, usable)
    return list(unknown)


def _usable(
    captions: Any, negatives: Any, dropped: Counter[str], contradictions: list[str], advance: Advance
) -> list[Any]:
    """Lists of texts, rules and scores for a batch of captions, without negatives that repeat another text."""
    rows, texts, rules, scores = (column.to_pylist() for column in negatives.columns)
    caption_texts = captions.column("text")
    true = captions.column("positives") if "positives" in captions.schema.names else None
    start = 0 if not rows else rows[0] - rows[0] % ROWS
    counts = np.zeros(len(captions), dtype=np.int64)
    usable: list[int] = []
    current, own = -1, tuple[str, ...]()
    further, earlier = frozenset[tuple[str, ...]](), set[tuple[str, ...]]()
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if row != current:
            current, own, earlier = row, normalized_words(caption_texts[row - start].as_py()), set()
            further = frozenset(map(normalized_words, true[row - start].as_py())) if true is not None else frozenset()
        words = normalized_words(text)
        if words == own:
            dropped["equal to their caption"] += 1
        elif words in further:
            dropped[_ALSO_TRUE] += 1
            if not contradictions:
                contradictions.append(f"{text!r} of caption {captions.column('id')[row - start].as_py()!r}")
        elif words in earlier:
            dropped["equal to an earlier negative"] += 1
        else:
            earlier.add(words)
            usable.append(number)
            counts[row - start] += 1
    advance(len(rows))
    offsets = arrow.array(np.concatenate([[0], np.cumsum(counts)]))
    kinds = (TEXTS, NUMBERS, NEGATIVES.field("scores").type)
    lists = zip((texts, rules, scores), kinds, strict=True)
    return [
        arrow.LargeListArray.from_arrays(offsets, arrow.array([values[number] for number in usable], kind.value_type))
        for values, kind in lists
    ]


def _nothing_left(
    examples: Sequence[str], unknown: Sequence[str], dropped: Counter[str], *, files: tuple[str, str]
) -> str:
    if not dropped:
        return f"{files[1]} is empty. Make negatives with `degla negatives`, or train without them."
    if unknown:
        return (
            f"no negative belongs to any caption. Caption ids in {files[0]}: "
            f"{', '.join(map(repr, examples[:_EXAMPLES]))}; in {files[1]}: {', '.join(map(repr, unknown))}. "
            "Use the captions file that the negatives were made from, with the same columns."
        )
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(dropped.items()))
    return f"no negative can be used: {reasons}. Make negatives again with other rules or checks."


_PARTS = 256
"""Largest number of part files for the negatives, all open at the same time."""

_PART = arrow.schema(
    [("row", arrow.int64()), ("text", arrow.large_string()), ("rule", arrow.int64()), ("score", arrow.float64())]
)


class PartFiles(ExitStack):
    """Negatives on disk, one part file per range of rows; use it in a ``with`` block."""

    def __init__(self, folder: Path, *, rows: int) -> None:
        super().__init__()
        self.folder = folder
        self.rules: dict[str, int] = {}
        """Number of each rule, in order of first appearance."""
        self.known = False
        """Whether any negative belongs to a caption."""
        self._span = ROWS * -(-rows // (ROWS * _PARTS))
        self._writers: dict[int, Any] = {}
        self._held: tuple[int, Any] = (-1, None)

    def add(self, rows: Sequence[int], records: Sequence[NegativeRecord]) -> None:
        """Append negatives to the parts of their rows."""
        rules = [self.rules.setdefault(record.rule, len(self.rules)) for record in records]
        texts, scores = [record.text for record in records], [record.score for record in records]
        batch = arrow.record_batch(
            [arrow.array(values, kind) for values, kind in zip((rows, texts, rules, scores), _PART.types, strict=True)],
            _PART,
        )
        of = np.asarray(rows, dtype=np.int64) // self._span
        for part in np.unique(of).tolist():
            if part not in self._writers:
                writer = arrow.ipc.new_stream(str(self.folder / f"{part}.arrows"), _PART)
                self._writers[part] = self.enter_context(writer)
            self._writers[part].write_batch(batch.take(arrow.array(np.flatnonzero(of == part))))

    def of(self, start: int, count: int) -> Any:
        """Return the negatives of `count` rows from `start` on, by row and then in order of arrival.

        Every range must lie in one part, and ranges must be requested in order.
        """
        part = start // self._span
        if part != self._held[0]:
            table = _PART.empty_table()
            if part in self._writers:
                self._writers[part].close()
                with arrow.ipc.open_stream(str(self.folder / f"{part}.arrows")) as stream:
                    table = stream.read_all().combine_chunks()
                (self.folder / f"{part}.arrows").unlink()
            order = np.argsort(table.column("row").to_numpy(), kind="stable")
            self._held = (part, table.take(arrow.array(order)))
        table = self._held[1]
        first, last = table.column("row").to_numpy().searchsorted([start, start + count])
        return table.slice(first, last - first)
