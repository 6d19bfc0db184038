"""What readers said of the negatives in their sheets (sheet.py): shares of each file and rule, and every miss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from degla.errors import InputError
from degla.negatives.report.proportions import Proportion, wilson
from degla.negatives.report.sheet import COLUMNS, KEY_COLUMNS, key_path, read_table

ALL: Final = "all"
"""Name of the sum over rules, and of the file where a sheet has no key."""

_YES: Final = frozenset({"y", "yes"})
_NO: Final = frozenset({"n", "no"})


@dataclass(frozen=True)
class Miss:
    """A negative that is not grammatical or not really different."""

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
        n: negatives with verdicts.
        different: of them, those that are grammatical and really different.
        plausible: of them, those that are a plausible scene as well.
        unread: negatives without a verdict.
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


def count_verdicts(sheets: Sequence[Path]) -> list[VerdictCount]:
    """Count the verdicts of filled sheets; keys are looked for beside them.

    Returns:
        One count for each file and rule, by name, and for each file a last one over all rules.

    Raises:
        InputError: a sheet or key is not one, a verdict is neither y nor n, is half filled, or has no line in the key.
    """
    counts: dict[tuple[str, str], VerdictCount] = {}
    for sheet in sheets:
        origins = _origins(sheet)
        for line, row in read_table(sheet, COLUMNS):
            where = f"{sheet} line {line}"
            if origins is not None and row["id"] not in origins:
                raise InputError(f"{where}: id {row['id']!r} is not in the key {key_path(sheet).name}.")
            files = [ALL] if origins is None else origins[row["id"]]
            different, plausible = (
                _verdict(row[name], where=where, column=name) for name in ("different", "plausible")
            )
            if (different is None and plausible is not None) or (different and plausible is None):
                raise InputError(f"{where}: half filled: 'different' and 'plausible' both need y or n.")
            for file in files:
                for rule in (row["rule"], ALL):
                    found = counts.setdefault((file, rule), VerdictCount(file, rule))
                    _add(found, row, different=different, plausible=plausible)
    if not any(found.n for found in counts.values()):
        raise InputError(
            f"{', '.join(map(str, sheets))}: no verdict yet: write y or n into 'different' and 'plausible'."
        )
    return sorted(counts.values(), key=lambda found: (found.file, found.rule == ALL, found.rule))


def _add(found: VerdictCount, row: dict[str, str], *, different: bool | None, plausible: bool | None) -> None:
    if different is None:
        found.unread += 1
        return
    found.n += 1
    found.different += different
    # An ungrammatical text, or one that is still true, is no plausible negative.
    found.plausible += bool(different and plausible)
    if not different:
        found.misses.append(Miss(row["id"], row["rule"], row["caption"], row["negative"], row["note"].strip()))


def _verdict(cell: str, *, where: str, column: str) -> bool | None:
    said = cell.strip().lower()
    if said in _YES or said in _NO:
        return said in _YES
    if said:
        raise InputError(f"{where}: column {column!r} is {cell!r}; write y, n or nothing. Remarks belong into 'note'.")
    return None


def _origins(sheet: Path) -> dict[str, list[str]] | None:
    """The files that each text came from, by its id; None where there is no key."""
    key = key_path(sheet)
    if not key.is_file():
        return None
    found: dict[str, list[str]] = {}
    for _, row in read_table(key, KEY_COLUMNS):
        labels = found.setdefault(row["id"], [])
        if row["file"] not in labels:
            labels.append(row["file"])
    return found


def render_markdown(counts: Iterable[VerdictCount]) -> str:
    """A table of shares in percent with their 95 % intervals (Wilson), and the misses."""
    counts = list(counts)
    lines = [
        "| file | rule | read | grammatical and really different, % | a plausible scene as well, % |",
        "|---|---|---:|---:|---:|",
    ]
    for found in counts:
        cells = [_share(wilson(found.different, found.n)), _share(wilson(found.plausible, found.n))]
        rule = f"**{found.rule}**" if found.rule == ALL else f"`{found.rule}`"
        lines.append(f"| {found.file} | {rule} | {found.n} | {cells[0]} | {cells[1]} |")
    lines += ["", "95 % intervals by Wilson's method."]
    unread = {found.file: found.unread for found in counts if found.rule == ALL and found.unread}
    if unread:
        lines[-1] += " Not read yet: " + ", ".join(f"{file} {number}" for file, number in unread.items()) + "."
    missed = [(found.file, miss) for found in counts if found.rule != ALL for miss in found.misses]
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
