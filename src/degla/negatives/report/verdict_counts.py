"""What readers said of the negatives in their sheets (sheet.py): shares of each file and rule, and every miss.

A text that several people read counts once, as good only where all of them say so; how far they agree is told by
agreement.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from degla.errors import InputError
from degla.negatives.report.agreement import Agreement, agreements
from degla.negatives.report.sheet import COLUMNS, KEY_COLUMNS, key_path, read_table
from degla.statistics.proportions import Proportion, wilson

ALL: Final = "all"
"""Name of the sum over rules, and of the file where a sheet has no key."""

_YES: Final = frozenset({"y", "yes"})
_NO: Final = frozenset({"n", "no"})


@dataclass(frozen=True)
class Miss:
    """A negative that a reader calls ungrammatical or not really different."""

    id: str
    rule: str
    caption: str
    negative: str
    note: str


@dataclass
class VerdictCount:
    """Verdicts on the negatives of one file and rule.

    Attributes:
        file: label of the file.
        rule: name of the rule, or `ALL`.
        n: texts with verdicts.
        different: of them, those that every reader calls grammatical and really different.
        plausible: of them, those that every reader calls a plausible scene as well.
        unread: texts without a verdict.
        misses: those that are not different.
    """

    file: str
    rule: str
    n: int = 0
    different: int = 0
    plausible: int = 0
    unread: int = 0
    misses: list[Miss] = field(default_factory=list)

    def plain(self) -> dict[str, object]:
        """JSON values."""
        return {
            "file": self.file,
            "rule": self.rule,
            "different": wilson(self.different, self.n).plain(),
            "plausible": wilson(self.plausible, self.n).plain(),
            "unread": self.unread,
            "misses": [vars(miss) for miss in self.misses],
        }


@dataclass(frozen=True)
class Reading:
    """What filled sheets say.

    Attributes:
        counts: one for each file and rule, by name, and for each file a last one over all rules.
        agreements: of every two sheets with texts in common.
    """

    counts: tuple[VerdictCount, ...]
    agreements: tuple[Agreement, ...]

    def plain(self) -> dict[str, object]:
        """JSON values."""
        return {
            "counts": [count.plain() for count in self.counts],
            "agreement": [agreement.plain() for agreement in self.agreements],
        }


@dataclass(frozen=True)
class _Verdict:
    """One reader's word on one text; None where it was not read."""

    sheet: Path
    different: bool | None
    plausible: bool | None
    note: str


@dataclass
class _Text:
    """One row of a sheet, with the words of all its readers."""

    id: str
    caption: str
    negative: str
    origins: list[tuple[str, str]]
    """File and rule."""
    verdicts: list[_Verdict] = field(default_factory=list)


def count_verdicts(sheets: Sequence[Path]) -> Reading:
    """Count the verdicts of filled sheets; keys are looked for beside them.

    Raises:
        InputError: a sheet or key is not one, a verdict is neither y nor n, is half filled, or has no line in the key;
            two sheets with one key hold different texts under one id.
    """
    texts: dict[tuple[Path, str], _Text] = {}
    for sheet in sheets:
        _read(sheet, texts)
    counts: dict[tuple[str, str], VerdictCount] = {}
    for text in texts.values():
        rules = {(file, rule): rule for file, rule in text.origins} | {(file, ALL): ALL for file, _ in text.origins}
        for (file, name), rule in rules.items():
            _add(counts.setdefault((file, name), VerdictCount(file, name)), text, rule)
    if not any(count.n for count in counts.values()):
        raise InputError(
            f"{', '.join(map(str, sheets))}: no verdict yet: write y or n into 'different' and 'plausible'."
        )
    ordered = sorted(counts.values(), key=lambda count: (count.file, count.rule == ALL, count.rule))
    words: list[dict[str, dict[Hashable, bool]]] = [
        {
            name: {place: said for place, text in texts.items() for said in _said(text, sheet, name)}
            for name in ("different", "plausible")
        }
        for sheet in sheets
    ]
    return Reading(tuple(ordered), tuple(agreements([sheet.name for sheet in sheets], words)))


def _said(text: _Text, sheet: Path, column: str) -> Iterator[bool]:
    """What the reader of one sheet says in one column; an implausible text is one that is not different as well."""
    for verdict in text.verdicts:
        if verdict.sheet == sheet and verdict.different is not None:
            yield verdict.different if column == "different" else bool(verdict.different and verdict.plausible)


def _read(sheet: Path, texts: dict[tuple[Path, str], _Text]) -> None:
    origins = _origins(sheet)
    key = sheet if origins is None else key_path(sheet)
    for line, row in read_table(sheet, COLUMNS):
        where = f"{sheet} line {line}"
        if origins is not None and row["id"] not in origins:
            raise InputError(f"{where}: id {row['id']!r} is not in the key {key.name}.")
        # Sheets of degla 0.1 before two readers had the rule in a column of their own, and not in the key.
        own = row.get("rule") or ALL
        whence = [(ALL, own)] if origins is None else [(file, rule or own) for file, rule in origins[row["id"]]]
        text = texts.setdefault((key, row["id"]), _Text(row["id"], row["caption"], row["negative"], whence))
        if (text.caption, text.negative) != (row["caption"], row["negative"]):
            raise InputError(f"{where}: id {row['id']!r} has another text here than in another sheet of {key.name}.")
        if any(verdict.sheet == sheet for verdict in text.verdicts):
            raise InputError(f"{where}: id {row['id']!r} stands twice. Remove one of the two lines.")
        different, plausible = (_verdict(row[name], where=where, column=name) for name in ("different", "plausible"))
        if (different is None and plausible is not None) or (different and plausible is None):
            raise InputError(f"{where}: half filled: 'different' and 'plausible' both need y or n.")
        text.verdicts.append(_Verdict(sheet, different, plausible, row["note"].strip()))


def _add(count: VerdictCount, text: _Text, rule: str) -> None:
    read = [verdict for verdict in text.verdicts if verdict.different is not None]
    if not read:
        count.unread += 1
        return
    count.n += 1
    different = all(verdict.different for verdict in read)
    count.different += different
    # An ungrammatical text, or one that is still true, is no plausible negative.
    count.plausible += different and all(verdict.plausible for verdict in read)
    if not different:
        note = "; ".join(verdict.note for verdict in read if verdict.note and not verdict.different)
        count.misses.append(Miss(text.id, rule, text.caption, text.negative, note))


def _verdict(cell: str, *, where: str, column: str) -> bool | None:
    said = cell.strip().lower()
    if said in _YES or said in _NO:
        return said in _YES
    if said:
        raise InputError(f"{where}: column {column!r} is {cell!r}; write y, n or nothing. Remarks belong into 'note'.")
    return None


def _origins(sheet: Path) -> dict[str, list[tuple[str, str]]] | None:
    """File and rule ("" in old keys) that each text came from, by its id; None where there is no key."""
    key = key_path(sheet)
    if not key.is_file():
        return None
    origins: dict[str, list[tuple[str, str]]] = {}
    for _, row in read_table(key, [name for name in KEY_COLUMNS if name != "rule"]):
        own = origins.setdefault(row["id"], [])
        origin = (row["file"], row.get("rule", ""))
        if origin not in own:
            own.append(origin)
    return origins


def render_markdown(reading: Reading) -> str:
    """A table of shares in percent with their 95 % intervals (Wilson), the readers' agreement, and the misses."""
    lines = [
        "| file | rule | read | grammatical and really different, % | a plausible scene as well, % |",
        "|---|---|---:|---:|---:|",
    ]
    for count in reading.counts:
        cells = [_share(wilson(count.different, count.n)), _share(wilson(count.plausible, count.n))]
        rule = f"**{count.rule}**" if count.rule == ALL else f"`{count.rule}`"
        lines.append(f"| {count.file} | {rule} | {count.n} | {cells[0]} | {cells[1]} |")
    lines += ["", "95 % intervals by Wilson's method."]
    if reading.agreements:
        lines[-1] += " A text that several people read counts where all of them say yes."
    unread = {count.file: count.unread for count in reading.counts if count.rule == ALL and count.unread}
    if unread:
        lines[-1] += " Not read yet: " + ", ".join(f"{file} {number}" for file, number in unread.items()) + "."
    if reading.agreements:
        lines += ["", "| readers | question | texts | same answer, % | Cohen's kappa |", "|---|---|---:|---:|---:|"]
        lines += [agreement.line() for agreement in reading.agreements]
    missed = [(count.file, miss) for count in reading.counts if count.rule != ALL for miss in count.misses]
    if missed:
        lines += ["", "Not grammatical, or not really different:", ""]
        lines += [
            f"* {file}, `{miss.rule}`: {miss.caption} → {miss.negative}" + (f" ({miss.note})" if miss.note else "")
            for file, miss in missed
        ]
    return "\n".join(lines) + "\n"


def _share(share: Proportion) -> str:
    if not share.n:
        return "-"
    return f"{100 * share.share:.0f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"
