"""Sheets for human readers: sampled negatives, shuffled and blinded, and counts of the readers' verdicts.

A sheet is a TSV file with the columns of `COLUMNS`. The reader writes y or n into "different" (is it grammatical and
really different from the caption?) and "plausible" (could there be such an image?), and remarks into "note". The sheet
names neither rule nor file: both are in a separate key file, which has one line for each file that a text came from.
Several readers get the same texts in different orders, so their agreement can be measured.

Filled sheets give shares for each file and rule, every miss, and agreement. A text with several readers counts once,
as good only if all of them say so. Agreement is the share of equal answers, and Cohen's kappa (1960).
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from degla.errors import InputError
from degla.files import whole_file
from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.report.counts import Drawn
from degla.negatives.report.tables import with_interval
from degla.pages.words import cell_of, counted
from degla.parse import read_text
from degla.records import NegativeRecord
from degla.shelf import POSITIVES
from degla.statistics.proportions import cohen_kappa, wilson

COLUMNS: Final = ("id", "caption", "negative", "different", "plausible", "note")
KEY_COLUMNS: Final = ("id", "file", "rule", "source", "form", "caption_id")

_READER: Final = re.compile(r"\.\d+$")


def key_path(sheet: Path) -> Path:
    """Return the path of a sheet's key: ``x.key.tsv`` for ``x.tsv``, ``x.1.tsv`` and ``x.2.tsv``."""
    return sheet.with_name(f"{_READER.sub('', sheet.stem)}.key{sheet.suffix}")


def reader_paths(sheet: Path, readers: int) -> list[Path]:
    """Return the sheet itself for one reader; ``sheet.1.tsv``, ``sheet.2.tsv``, ... for several."""
    if readers == 1:
        return [sheet]
    return [sheet.with_name(f"{sheet.stem}.{number}{sheet.suffix}") for number in range(1, readers + 1)]


def draw_sheet(
    records: Iterable[NegativeRecord], captions: CaptionIndex, *, per_rule: int, seed: int, where: Path
) -> dict[str, list[Drawn]]:
    """Sample accepted negatives of each rule by the hash of their caption.

    Several files are thus sampled on the same captions as far as they cover them.

    Args:
        records: the records of one file.
        captions: the captions that they were made from.
        per_rule: maximum negatives per rule.
        seed: seed of the draw.
        where: the file, for messages.

    Raises:
        InputError: no accepted negative belongs to any caption.
    """
    samples: dict[str, list[tuple[bytes, Drawn]]] = {}
    for record in records:
        if not record.accepted or record.text is None or (caption := captions.find(record.caption_id)) is None:
            continue
        lot = hashlib.sha256(f"{seed}\n{record.rule}\n{record.caption_id}".encode()).digest()[:8]
        own = samples.setdefault(record.rule, [])
        insort(own, (lot, Drawn(caption, record)), key=itemgetter(0))
        del own[per_rule:]
    if not samples:
        raise InputError(
            f"{where}: nothing to read: no accepted negative matches a caption in the captions file. "
            "Give the captions that the negatives were made from."
        )
    return {rule: [drawn for _, drawn in own] for rule, own in samples.items()}


def write_sheet(
    drawn: Mapping[str, Mapping[str, Sequence[Drawn]]], sheet: Path, *, seed: int, readers: int = 1
) -> list[Path]:
    """Write a sheet for each reader and their common key; a text found in several files is listed once.

    Args:
        drawn: sampled negatives by file label and rule.
        sheet: the TSV file; see `reader_paths`.
        seed: seed of the orders.
        readers: number of people who read the same texts.

    Returns:
        The paths of the sheets, then that of the key.

    Raises:
        InputError: a sheet or the key already exists or cannot be written.
    """
    sheets = reader_paths(sheet, readers)
    key = key_path(sheets[0])  # the path that `count_verdicts` looks for, even if the name ends in a number
    for path in (*sheets, key):
        if path.exists():
            raise InputError(f"{path}: already exists and may hold verdicts. Move it or choose another --sheet.")
    origins: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for label, rules in drawn.items():
        for rule, rows in rules.items():
            for row in rows:
                text = (cell_of(row.caption.text), cell_of(row.negative))
                origin = (label, rule, row.record.source, row.record.form, row.record.caption_id)
                origins.setdefault(text, []).append(origin)
    texts = sorted(origins)
    Random(seed).shuffle(texts)
    width = len(str(len(texts)))
    entries = [(f"{number:0{width}}", text) for number, text in enumerate(texts, start=1)]
    _write(key, KEY_COLUMNS, ((name, *origin) for name, text in entries for origin in origins[text]))
    for number, path in enumerate(sheets):
        order = list(entries)
        if number:
            Random(f"{seed} {number}").shuffle(order)
        _write(path, COLUMNS, ((name, *text, "", "", "") for name, text in order))
    return [*sheets, key]


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with whole_file(path, newline="", remedy="Choose another --sheet.") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_sheet(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a sheet or key; columns may be in any order, extra columns are allowed.

    Raises:
        InputError: the file cannot be read, lacks a column, or a row has too many cells.
    """
    # Editors and spreadsheets strip empty cells from the end of a line.
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t", strict=True, restval="")
    try:
        header = reader.fieldnames or ()
        if lacking := [name for name in columns if name not in header]:
            raise InputError(
                f"{path} line 1: column {lacking[0]!r} is missing. Give a tab-separated table with the columns "
                f"{', '.join(columns)}."
            )
        for row in reader:
            more = row.pop(None, ())  # cells beyond the header's
            if not any(cell.strip() for cell in (*row.values(), *more)):
                continue
            if more:
                cells = len(header) + len(more)
                raise InputError(
                    f"{path} line {reader.line_num}: {counted(cells, 'cell')}, but the header has {len(header)}."
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(
            f"{path} line {reader.reader.line_num}: invalid TSV: {error}. A cell that begins with a quotation mark "
            "must end with one and double those inside it: remove quotation marks from the note."
        ) from None


ALL: Final = "all"
"""Name of the total over rules, and of the file if a sheet has no key."""

_ANSWERS: Final = {"y": True, "yes": True, "n": False, "no": False, "": None}


@dataclass(frozen=True)
class Agreement:
    """Agreement of two readers on one question about the same texts.

    Attributes:
        first: name of the first reader's sheet.
        second: name of the second reader's sheet.
        question: column of the sheet.
        n: texts that both read.
        same: texts with the same answer.
        kappa: Cohen's kappa, agreement beyond chance: 1 is complete, 0 is chance level. None if both readers give the
            same single answer to everything, where chance agreement is complete too.
        low: lower end of kappa's 95 % interval (large-sample, Fleiss, Cohen and Everitt 1969); None without kappa.
        high: upper end of the interval.
    """

    first: str
    second: str
    question: str
    n: int
    same: int
    kappa: float | None
    low: float | None
    high: float | None

    def line(self) -> str:
        """Return one line of a Markdown table."""
        kappa = "–" if self.kappa is None else f"{self.kappa:.2f} [{self.low:.2f}, {self.high:.2f}]"
        share = f"{100 * self.same / self.n:.0f}"
        return f"| {self.first}, {self.second} | {self.question} | {self.n} | {share} | {kappa} |"


@dataclass(frozen=True)
class Miss:
    """A negative that a reader judged ungrammatical or not really different."""

    id: str
    rule: str
    caption: str
    negative: str
    note: str


@dataclass
class VerdictCount:
    """Counts of verdicts on the negatives of one file and rule.

    Attributes:
        file: label of the file.
        rule: name of the rule, or `ALL`.
        n: texts with verdicts.
        different: texts that every reader judged grammatical and really different.
        plausible: those that every reader also judged a plausible scene.
        unread: texts without a verdict.
        misses: texts that are not different.
    """

    file: str
    rule: str
    n: int = 0
    different: int = 0
    plausible: int = 0
    unread: int = 0
    misses: list[Miss] = field(default_factory=list)

    def plain(self) -> dict[str, object]:
        """Return the results as JSON values."""
        return {
            "file": self.file,
            "rule": self.rule,
            "different": wilson(self.different, self.n).plain(),
            "plausible": wilson(self.plausible, self.n).plain(),
            "unread": self.unread,
            "misses": [asdict(miss) for miss in self.misses],
        }


@dataclass(frozen=True)
class Reading:
    """Results of filled sheets.

    Attributes:
        counts: one entry for each file and rule, sorted by name, with the total over all rules last for each file.
        agreements: one entry for each question and pair of sheets with texts in common.
    """

    counts: tuple[VerdictCount, ...]
    agreements: tuple[Agreement, ...]

    def plain(self) -> dict[str, object]:
        """Return the results as JSON values."""
        return {
            "counts": [count.plain() for count in self.counts],
            "agreement": [asdict(agreement) for agreement in self.agreements],
        }

    def markdown(self) -> str:
        """Return tables of shares in percent with 95 % Wilson intervals and of agreement, and a list of misses."""
        # For true texts, the column `different` asks whether they are true. A sheet without a key names no rule.
        rules = {count.rule for count in self.counts} - {ALL}
        criterion = "true" if rules and rules <= set(POSITIVES.names()) else "really different"
        lines = [
            f"| file | rule | read | grammatical and {criterion}, % | also a plausible scene, % |",
            "|---|---|---:|---:|---:|",
        ]
        for count in self.counts:
            cells = [with_interval(wilson(good, count.n), digits=0) for good in (count.different, count.plausible)]
            rule = f"**{count.rule}**" if count.rule == ALL else f"`{count.rule}`"
            lines.append(f"| {count.file} | {rule} | {count.n} | {cells[0]} | {cells[1]} |")
        lines += ["", "Brackets are 95 % Wilson intervals."]
        if self.agreements:
            lines[-1] += " A text with several readers counts only if all of them say yes."
        unread = {count.file: count.unread for count in self.counts if count.rule == ALL and count.unread}
        if unread:
            lines[-1] += " Not read yet: " + ", ".join(f"{file} {number}" for file, number in unread.items()) + "."
        if self.agreements:
            lines += ["", "| readers | question | texts | agreement, % | Cohen's kappa |", "|---|---|---:|---:|---:|"]
            lines += [agreement.line() for agreement in self.agreements]
        # The total over rules repeats their misses, but a sheet without a key has nothing else.
        by_rule = {count.file for count in self.counts if count.rule != ALL}
        counts = [count for count in self.counts if count.rule != ALL or count.file not in by_rule]
        misses = [(count.file, miss) for count in counts for miss in count.misses]
        if misses:
            lines += ["", f"Not grammatical, or not {criterion}:", ""]
            lines += [
                f"* {file}, `{miss.rule}`: {miss.caption} → {miss.negative}" + (f" ({miss.note})" if miss.note else "")
                for file, miss in misses
            ]
        return "\n".join(lines) + "\n"


class _Verdict(NamedTuple):
    """One reader's verdict on one text; None if it was not read."""

    different: bool | None
    plausible: bool | None
    note: str

    def says(self, question: str) -> bool:
        """Return the answer to a column's question; a text that is not different is not a plausible negative."""
        return bool(self.different and getattr(self, question))


@dataclass
class _Text:
    """One row of a sheet, with the verdicts of all its readers."""

    id: str
    caption: str
    negative: str
    origins: list[tuple[str, str]]
    """File and rule."""
    verdicts: dict[Path, _Verdict] = field(default_factory=dict)
    """By sheet."""


def count_verdicts(sheets: Sequence[Path]) -> Reading:
    """Count the verdicts of filled sheets; keys are looked up next to the sheets.

    Raises:
        InputError: a sheet or key is invalid; a verdict is neither y nor n, is incomplete, or its id is not in the
            key; two sheets with one key hold different texts under one id.
    """
    texts: dict[tuple[Path, str], _Text] = {}
    sheets = tuple(dict.fromkeys(sheets))  # Whoever is named twice is one reader.
    for sheet in sheets:
        _read(sheet, texts)
    counts: dict[tuple[str, str], VerdictCount] = {}
    for text in texts.values():
        rules = {(file, rule): rule for file, rule in text.origins} | {(file, ALL): ALL for file, _ in text.origins}
        for (file, name), rule in rules.items():
            _add(counts.setdefault((file, name), VerdictCount(file, name)), text, rule)
    if not any(count.n for count in counts.values()):
        raise InputError(
            f"{', '.join(map(str, sheets))}: no verdicts yet. Write y or n into 'different' and 'plausible'."
        )
    ordered = sorted(counts.values(), key=lambda count: (count.file, count.rule == ALL, count.rule))
    return Reading(tuple(ordered), tuple(_agreements(sheets, texts.values())))


def _read(sheet: Path, texts: dict[tuple[Path, str], _Text]) -> None:
    origins = _origins(sheet)
    key = sheet if origins is None else key_path(sheet)
    for line, row in read_sheet(sheet, COLUMNS):
        where = f"{sheet} line {line}"
        if origins is not None and row["id"] not in origins:
            raise InputError(f"{where}: id {row['id']!r} is not in the key {key.name}.")
        # Sheets of degla 0.1 before two readers had a rule column, and no rule in the key.
        own = row.get("rule") or ALL
        whence = [(ALL, own)] if origins is None else [(file, rule or own) for file, rule in origins[row["id"]]]
        text = texts.setdefault((key, row["id"]), _Text(row["id"], row["caption"], row["negative"], whence))
        if (text.caption, text.negative) != (row["caption"], row["negative"]):
            raise InputError(f"{where}: the text of id {row['id']!r} differs from another sheet of {key.name}.")
        if sheet in text.verdicts:
            raise InputError(f"{where}: id {row['id']!r} occurs twice. Remove one of the two lines.")
        different, plausible = (_verdict(row[name], where=where, column=name) for name in ("different", "plausible"))
        if (different is None and plausible is not None) or (different and plausible is None):
            raise InputError(f"{where}: incomplete verdict: 'different' and 'plausible' both need y or n.")
        text.verdicts[sheet] = _Verdict(different, plausible, row["note"].strip())


def _add(count: VerdictCount, text: _Text, rule: str) -> None:
    verdicts = [verdict for verdict in text.verdicts.values() if verdict.different is not None]
    if not verdicts:
        count.unread += 1
        return
    count.n += 1
    different = all(verdict.different for verdict in verdicts)
    count.different += different
    # A text that is ungrammatical or still true is not a plausible negative.
    count.plausible += different and all(verdict.plausible for verdict in verdicts)
    if not different:
        note = "; ".join(verdict.note for verdict in verdicts if verdict.note and not verdict.different)
        count.misses.append(Miss(text.id, rule, text.caption, text.negative, note))


def _verdict(cell: str, *, where: str, column: str) -> bool | None:
    answer = cell.strip().lower()
    if answer not in _ANSWERS:
        raise InputError(f"{where}: column {column!r} is {cell!r}. Write y, n or nothing; remarks go into 'note'.")
    return _ANSWERS[answer]


def _origins(sheet: Path) -> dict[str, list[tuple[str, str]]] | None:
    """Return the file and rule ("" in old keys) that each text came from, by id; None if there is no key."""
    key = key_path(sheet)
    if not key.is_file():
        return None
    origins: dict[str, list[tuple[str, str]]] = {}
    for _, row in read_sheet(key, [name for name in KEY_COLUMNS if name != "rule"]):
        origins.setdefault(row["id"], []).append((row["file"], row.get("rule", "")))
    return origins


def _agreements(sheets: Sequence[Path], texts: Iterable[_Text]) -> Iterator[Agreement]:
    """Yield the agreement of each pair of readers on both questions, over the texts that both read."""
    verdicts = [text.verdicts for text in texts]
    for first, second in combinations(sheets, 2):
        both = [(each[first], each[second]) for each in verdicts if {first, second} <= each.keys()]
        common = [pair for pair in both if all(verdict.different is not None for verdict in pair)]
        for question in ("different", "plausible") if common else ():
            pairs = [(one.says(question), other.says(question)) for one, other in common]
            same = sum(one == other for one, other in pairs)
            yield Agreement(first.name, second.name, question, len(pairs), same, *cohen_kappa(pairs))
