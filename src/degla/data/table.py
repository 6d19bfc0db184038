"""Training rows as Arrow columns in a memory-mapped file: all processes that read it share one copy."""

from __future__ import annotations

import hashlib
import io
import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from numpy.typing import NDArray

from degla.data.pairs import PairRow
from degla.data.prepared import open_batches
from degla.records import LISTS, OPTIONAL_FIELDS, ROW_COLUMNS, CaptionRecord

ROWS: Final = 1 << 16
"""Rows per record batch: the number held in memory at a time while a table is made."""

_TEXT = arrow.large_string()
TEXTS = arrow.large_list(_TEXT)
NUMBERS = arrow.large_list(arrow.int64())
_UNITS = arrow.large_list(arrow.struct([("text", _TEXT), ("foils", TEXTS), ("kind", _TEXT)]))
_SEVERAL: Final = {**dict.fromkeys(LISTS, TEXTS), "units": _UNITS}
CAPTION_FIELDS: Final = ("id", "image", "text", "image_id")
NEGATIVES = arrow.schema(
    list(zip(ROW_COLUMNS, (TEXTS, NUMBERS, arrow.large_list(arrow.float64()), arrow.int64()), strict=True))
)

RowIndex = NDArray[np.int64]


class ColumnFile:
    """Columns of equal length in an Arrow file.

    Args:
        source: the file, or its bytes.
        kept: numbers of the rows to keep, ascending; all by default.
        about: the result of `describe` for the same rows, which saves reading them again.
    """

    def __init__(
        self, source: Path | bytes, *, kept: RowIndex | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        self.source, self.kept, self._about = source, kept, about
        schema, batches = open_batches(source)
        self.metadata: Mapping[bytes, bytes] = schema.metadata or {}
        self._columns = {name: [batch.column(name) for batch in batches] for name in schema.names}
        self._starts = np.cumsum([0, *map(len, batches)])

    def __reduce__(self) -> tuple[Any, ...]:
        # Spawned processes map the file themselves.
        return partial(type(self), kept=self.kept, about=self._about), (self.source,)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.kept is None else len(self.kept)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self._columns)

    @property
    def digests(self) -> Mapping[str, str]:
        """The first 32 hexadecimal digits of each column's sha256, as if it were one Arrow array."""
        return self._digested() if self._about is None else self._about["digests"]

    def describe(self) -> dict[str, Any]:
        """Return what can only be known by reading all rows, as plain values."""
        return {"digests": dict(self.digests)}

    def at(self, name: str, index: int) -> Any:
        """Return one value as a Python object."""
        row = index if self.kept is None else int(self.kept[index])
        number = bisect_right(self._starts, row) - 1
        return self._columns[name][number][row - int(self._starts[number])].as_py()

    def chunks(self, name: str) -> Iterator[Any]:
        """Yield the column as Arrow arrays of at most `ROWS` rows, in order."""
        for number, chunk in enumerate(self._columns[name]):
            if self.kept is not None:
                first, last = self.kept.searchsorted(self._starts[number : number + 2])
                chunk = chunk.take(arrow.array(self.kept[first:last] - self._starts[number]))
            yield chunk

    def _digested(self) -> dict[str, str]:
        return {name: digest(list(self.chunks(name))) for name in self._columns}


class PairTable(ColumnFile, Sequence[PairRow]):
    """The training rows: captions with their usable negatives, in the captions' order.

    The columns are the requested fields of `CaptionRecord` and the lists `negatives`, `rules` (a number each, see
    `rule_of`) and `scores`. Row objects are created on access.

    Args:
        source: as in `ColumnFile`.
        kept: as in `ColumnFile`.
        about: as in `ColumnFile`.
    """

    def __init__(
        self, source: Path | bytes, *, kept: RowIndex | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(source, kept=kept, about=about)
        self._names: list[str] = json.loads(self.metadata[b"rules"])
        if about is not None:
            self.rules = tuple(about["rules"])
        else:
            used = [np.unique(chunk.flatten().to_numpy()) for chunk in self.chunks("rules")]
            numbers = np.unique(np.concatenate([np.zeros(0, np.int64), *used]))
            self.rules = tuple(sorted(self._names[number] for number in numbers))
        """Names of the rules that made a negative, sorted; `Pair.rule` is an index into them."""
        place = {name: number for number, name in enumerate(self.rules)}
        self.rule_of = np.array([place.get(name, -1) for name in self._names], dtype=np.int64)
        """Index in `rules` of each number of the column."""

    def __getitem__(self, index: Any) -> Any:
        """Return the row at an index as an object, or a list of rows for a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        fields = {name: self.at(name, index) for name in (*CAPTION_FIELDS, *OPTIONAL_FIELDS) if name in self._columns}
        rules = tuple(self._names[number] for number in self.at("rules", index))
        negatives, scores = (tuple(self.at(name, index)) for name in ("negatives", "scores"))
        return PairRow(CaptionRecord(**fields), negatives, rules, scores)

    def images(self) -> set[str]:
        """Return the paths of all images of the rows, including second images."""
        columns = [name for name in ("image", "distractor_image") if name in self._columns]
        values = (chunk.unique().to_pylist() for name in columns for chunk in self.chunks(name))
        return set(chain.from_iterable(values)) - {None}

    def groups(self) -> RowIndex:
        """Return a number for each row, equal if and only if two rows have the same image (`image_id`)."""
        groups = np.concatenate([np.zeros(0, np.int64), *(chunk.to_numpy() for chunk in self.chunks("groups"))])
        return groups if self.kept is None else numbered(groups)

    def lengths(self, name: str) -> RowIndex:
        """Return the number of values of each row in a column of lists."""
        lengths = [compute.list_value_length(chunk).to_numpy() for chunk in self.chunks(name)]
        return np.concatenate([np.zeros(0, np.int64), *lengths])

    def select(self, kept: RowIndex, about: Mapping[str, Any] | None = None) -> PairTable:
        """Return the same file restricted to some of its rows."""
        return PairTable(self.source, kept=kept if self.kept is None else self.kept[kept], about=about)

    def describe(self) -> dict[str, Any]:
        """See `ColumnFile.describe`."""
        return {**super().describe(), "rules": list(self.rules)}

    def _digested(self) -> dict[str, str]:
        columns = {"ids": "id", "images": "image", "captions": "text", "negatives": "negatives", "scores": "scores"}
        digests = {name: digest(list(self.chunks(column))) for name, column in columns.items()}
        # Rules are digested as their sorted names, then indices into these.
        rules = [
            arrow.LargeListArray.from_arrays(chunk.offsets, self.rule_of[chunk.values.to_numpy()])
            for chunk in self.chunks("rules")
        ]
        digests["rules"] = digest(rules, hashlib.sha256("\n".join(self.rules).encode()))
        digests["groups"] = digest([arrow.array(self.groups())])
        return digests


def numbered(values: Any) -> RowIndex:
    """Number the values in order of first appearance; equal values get equal numbers."""
    column = encoded(arrow.chunked_array(values if isinstance(values, list) else [values]))
    return np.asarray(column.indices.to_numpy(), dtype=np.int64)


def encoded(column: Any) -> Any:
    """Dictionary-encode a column: its distinct values and each row's index into them, as one array."""
    if len(column):
        return column.dictionary_encode().combine_chunks()
    return arrow.array([], column.type).dictionary_encode()  # pyarrow < 25 cannot combine a column without chunks.


def caption_schema(optional: Iterable[str], numbers: Collection[str] = ()) -> Any:
    """Return the Arrow schema of captions with some of their optional fields, of which some are numbers."""
    kinds = {**_SEVERAL, **dict.fromkeys(numbers, arrow.float64())}
    return arrow.schema([(name, kinds.get(name, _TEXT)) for name in (*CAPTION_FIELDS, *optional)])


def caption_batch(captions: Sequence[CaptionRecord], schema: Any) -> Any:
    """Convert captions to a record batch with a schema from `caption_schema`."""
    values = {name: [getattr(caption, name) for caption in captions] for name in schema.names}
    if "units" in values:
        values["units"] = [[unit.model_dump() for unit in units] for units in values["units"]]
    return arrow.record_batch(values, schema)


def table_of(rows: Sequence[PairRow], optional: Sequence[str] = OPTIONAL_FIELDS) -> PairTable:
    """Convert row objects to a table in memory."""
    names = sorted({rule for row in rows for rule in row.rules})
    schema = caption_schema(optional)
    captions = caption_batch([row.caption for row in rows], schema)
    columns = [
        arrow.array([row.negatives for row in rows], TEXTS),
        arrow.array([[names.index(rule) for rule in row.rules] for row in rows], NUMBERS),
        arrow.array([row.scores for row in rows], NEGATIVES.field("scores").type),
        arrow.array(numbered(captions.column("image_id"))),
    ]
    stream = io.BytesIO()
    schema = row_schema(schema, names)
    with arrow.ipc.new_file(stream, schema) as writer:
        writer.write_batch(arrow.record_batch([*captions.columns, *columns], schema))
    return PairTable(stream.getvalue())


def row_schema(captions: Any, rules: Sequence[str]) -> Any:
    """Return the schema of a `PairTable`, with the names of the rules as metadata."""
    return arrow.schema([*captions, *NEGATIVES], metadata={"rules": json.dumps(list(rules))})


def write_columns(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write columns, all in chunks of the same lengths, as a column file."""
    batches = (
        arrow.record_batch(dict(zip(columns, chunks, strict=True))) for chunks in zip(*columns.values(), strict=True)
    )
    first = next(batches)
    with arrow.ipc.new_file(str(path), first.schema) as writer:
        for batch in chain([first], batches):
            writer.write_batch(batch)


def digest(chunks: list[Any], started: Any = None) -> str:
    """Return the sha256 of a column's buffers (32 digits), as if its chunks were one contiguous array.

    Args:
        chunks: Arrow arrays of one type.
        started: a hash to continue; a new one by default.
    """
    state = started or hashlib.sha256()
    for size, parts in _buffers(chunks):
        state.update(f"{size};".encode())
        for part in parts:
            state.update(part)
    return str(state.hexdigest()[:32])


def _buffers(chunks: list[Any]) -> Iterator[tuple[int, Iterable[Any]]]:
    """Sizes and contents of the buffers of all chunks as one array, in Arrow's order."""
    kind = chunks[0].type
    if any(chunk.null_count for chunk in chunks):
        valid = np.concatenate([chunk.is_valid().to_numpy(zero_copy_only=False) for chunk in chunks])
        bits = np.packbits(valid, bitorder="little")
        yield bits.nbytes, [bits]
    if arrow.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _buffers([chunk.field(number) for chunk in chunks])
    elif arrow.types.is_large_list(kind) or arrow.types.is_large_string(kind):
        listed = arrow.types.is_large_list(kind)
        measure = compute.list_value_length if listed else compute.binary_length
        lengths = [measure(chunk).fill_null(0).to_numpy() for chunk in chunks]
        total = sum(int(length.sum()) for length in lengths)
        yield 8 * (1 + sum(map(len, lengths))), _offsets(lengths)
        if listed:
            yield from _buffers([chunk.flatten() for chunk in chunks])
        else:
            yield total, map(_characters, chunks)
    else:
        values = [chunk.fill_null(0).to_numpy() for chunk in chunks]
        yield sum(value.nbytes for value in values), map(np.ascontiguousarray, values)


def _offsets(lengths: Iterable[NDArray[Any]]) -> Iterator[RowIndex]:
    end = np.zeros(1, dtype=np.int64)
    yield end
    for length in lengths:
        ends = end[-1] + np.cumsum(length, dtype=np.int64)
        yield ends
        end = ends if len(ends) else end


def _characters(chunk: Any) -> Any:
    """Only the bytes of the texts: a buffer from a file is padded and may contain other rows."""
    _, offsets, content = chunk.buffers()
    if content is None or not len(chunk):
        return b""
    places = np.frombuffer(offsets, dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
    return content.slice(int(places[0]), int(places[-1] - places[0]))


def id_hashes(names: Sequence[str]) -> tuple[RowIndex, RowIndex]:
    """Return two 64-bit hashes of each name; two names that share both are practically impossible."""
    both = (map(hash, names), (hash(f"/{name}") for name in names))
    first, second = (np.fromiter(each, dtype=np.int64, count=len(names)) for each in both)
    return first, second


class IdIndex:
    """Maps caption ids to row numbers."""

    def __init__(self, hashes: Sequence[tuple[RowIndex, RowIndex]]) -> None:
        first, second = (np.concatenate(each) for each in zip(*hashes, strict=True))
        self._rows = np.argsort(first, kind="stable")
        self._first, self._second = first[self._rows], second[self._rows]
        self._most = int(np.unique(self._first, return_counts=True)[1].max())

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, names: Sequence[str]) -> RowIndex:
        """Return the row of each id, -1 if no caption has it."""
        first, second = id_hashes(names)
        place, numbers = self._first.searchsorted(first), np.full(len(names), -1)
        for step in range(self._most):  # One step, unless two captions share their first hash.
            at = np.minimum(place + step, len(self._first) - 1)
            same = (self._first[at] == first) & (self._second[at] == second)
            numbers[same] = self._rows[at[same]]
        return numbers
