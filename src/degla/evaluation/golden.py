"""Compare a file of someone else's verdicts with ours, item by item.

Three formats are read: a result's own items (`NAME.items.jsonl`), and the tables that BiVLC's authors published for
SugarCrepe (`SUGARCREPE_CORRECT_*.csv`, column `correct`) and BiVLC (`BiVLC_*.csv`, one column per score). Rows of a
table have no id: items are matched by part and by the letters and digits of their texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from degla.errors import InputError
from degla.evaluation.annotations import read_table
from degla.evaluation.benchmark import Entry
from degla.evaluation.data_sets import plain
from degla.pages.words import counted
from degla.parse import describe_json
from degla.records import PairItem
from degla.results import ItemVerdict

_COLUMNS = {
    "correct": "text_ok",
    "text_score": "text_ok",
    "image_score": "image_ok",
    "group_score": "group_ok",
    "text_score_i0": "text_ok.1",
    "text_score_i1": "text_ok.2",
    "image_score_c0": "image_ok.1",
    "image_score_c1": "image_ok.2",
}
"""Column of a published table to the verdict in it."""
_WORTH = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}
_NAMED = 20
"""Number of unmatched rows and items that are named; the rest are counted."""
SMALL = 1e-3
"""Difference of cosines that another summation order, or half precision, can reverse."""


@dataclass(frozen=True)
class _Form:
    """What a message says about a missing file."""

    source: str = "whoever scored the model (SugarCrepe and BiVLC: github.com/IMirandaM/BiVLC, results/)"
    layout: str = "NAME.items.jsonl of a result, or a table with caption, negative_caption, type, subtype and verdicts"


@dataclass(frozen=True)
class GivenVerdict:
    """One row of a file.

    Attributes:
        where: file and row.
        key: an item's id, or its normalised texts.
        file_name: of its image, "" if the row has none.
        ok: verdict's name to its worth.
    """

    where: str
    key: tuple[str, ...]
    file_name: str
    ok: Mapping[str, float]


@dataclass(frozen=True)
class Disagreement:
    """One verdict on one item: worth here and there, and our margin (see `ItemVerdict`)."""

    id: str
    verdict: str
    here: float
    there: float
    margin: float | None


@dataclass
class VerdictComparison:
    """Our verdicts against those of a file.

    Attributes:
        file: the file read.
        items: number of our items with a matching row.
        differing: in the order of the file.
        unknown: rows that match no item of ours, or have none of its verdicts.
        unmatched: our items without a row, in parts that occur in the file.
    """

    file: Path
    items: int = 0
    differing: list[Disagreement] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield every difference, one per line, and a summary."""
        for row in self.differing:
            margin = "" if row.margin is None else f", margin {row.margin:+z.5f}"
            yield f"{row.id} {row.verdict}: {row.here:g} here, {row.there:g} there{margin}"
        for lead, names in (("no such item here", self.unknown), ("not in the file", self.unmatched)):
            # If images are missing, thousands of rows may match nothing that was scored.
            yield from (f"{lead}: {name}" for name in names[:_NAMED])
            if len(names) > _NAMED:
                yield f"{lead}: {len(names) - _NAMED:,} more"
        wrong = len({row.id for row in self.differing})
        yield (
            f"{self.file}: {counted(self.items, 'item compared', 'items compared')}, {self.items - wrong:,} agree, "
            f"{wrong:,} differ; {counted(len(self.unknown), 'row matches', 'rows match')} no item here, "
            f"{counted(len(self.unmatched), 'item is', 'items are')} not in the file."
        )
        large = max((abs(row.margin) for row in self.differing if row.margin is not None), default=0.0)
        if large > SMALL:
            yield (
                f"The largest margin among them is {large:.4f}; rounding changes at most {SMALL:g}. The model, its "
                "activation function (QuickGELU or GELU), its preprocessing or the image reading must differ."
            )
        elif wrong:
            yield f"All their margins are below {SMALL:g}, within rounding: the two scorers are equivalent."


def compare_verdicts(
    items: Iterable[ItemVerdict], entries: Iterable[Entry], verdicts: Iterable[GivenVerdict], *, file: Path
) -> VerdictComparison:
    """Compare verdicts with those of a file.

    Args:
        items: our verdicts.
        entries: the questions that they answer.
        verdicts: the file's verdicts, from `read_verdicts`.
        file: for messages.

    Raises:
        InputError: none of the rows matches an item.
    """
    ours = {row.id: row for row in items}
    by_key: dict[tuple[str, ...], list[PairItem]] = {}
    for item in entries:
        if isinstance(item, PairItem) and item.id in ours:
            by_key.setdefault((str(len(item.images)), item.part, *map(plain, item.texts)), []).append(item)
    comparison = VerdictComparison(file)
    matched: set[str] = set()
    for row in verdicts:
        name = row.key[0] if len(row.key) == 1 else _named(row, by_key.get(row.key, ()), matched)
        # A row without a verdict that ours has would be compared in nothing, and agree.
        if name not in ours or name in matched or not row.ok.keys() & ours[name].ok.keys():
            comparison.unknown.append(f"{row.where} ({' | '.join(row.key)})")
            continue
        matched.add(name)
        verdict = ours[name]
        comparison.differing += [
            Disagreement(name, key, verdict.ok[key], worth, verdict.margin)
            for key, worth in row.ok.items()
            if key in verdict.ok and verdict.ok[key] != worth
        ]
    if not matched:
        raise InputError(
            f"{file}: none of its {counted(len(comparison.unknown), 'row')} matches an item that was scored."
        )
    comparison.items = len(matched)
    parts = {(ours[name].benchmark, ours[name].part) for name in matched}
    comparison.unmatched = [
        row.id for row in ours.values() if (row.benchmark, row.part) in parts and row.id not in matched
    ]
    return comparison


def read_verdicts(file: Path) -> Iterator[GivenVerdict]:
    """Yield every row of a file of verdicts.

    Raises:
        InputError: the file is missing, or a row has neither format.
    """
    for where, row in read_table(file, _Form()):
        if not isinstance(row, dict):
            raise InputError(f"{where}: must be one JSON object, got {describe_json(row)}.")
        if isinstance(row.get("ok"), dict) and isinstance(row.get("id"), str):
            ok = {name: _worth(worth, where) for name, worth in row["ok"].items()}
            yield GivenVerdict(where, (row["id"],), "", ok)
            continue
        ok = {_COLUMNS[name]: _worth(cell, where) for name, cell in row.items() if name in _COLUMNS}
        words = ("caption", "negative_caption", "type", "subtype")
        lacking = [name for name in words if not isinstance(row.get(name), str) or not row[name]]
        if lacking or not ok:
            missing = lacking[0] if lacking else f"verdict ({', '.join(_COLUMNS)})"
            raise InputError(f"{where}: has no {missing}. Needed: {_Form.layout}.")
        count, part = "1" if "correct" in row else "2", f"{row['type']}_{row['subtype']}"
        key = (count, part, plain(row["caption"]), plain(row["negative_caption"]))
        yield GivenVerdict(where, key, str(row.get("filename") or ""), ok)


def _named(verdict: GivenVerdict, items: Sequence[PairItem], matched: set[str]) -> str:
    """Id of the first item with these texts and this image that no earlier row matched; "" if there is none."""
    fitting = (item.id for item in items if item.images[0].path.endswith(verdict.file_name))
    return next((name for name in fitting if name not in matched), "")


def _worth(cell: Any, where: str) -> float:
    if isinstance(cell, bool | int | float) and 0 <= cell <= 1:
        return float(cell)
    worth = _WORTH.get(str(cell).strip().lower())
    if worth is None:
        raise InputError(f"{where}: {str(cell)[:40]!r} is not a verdict. Use 0, 1, True or False.")
    return worth
