"""What mteb has measured: its result files enter, main scores by task leave, and a section of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from degla.errors import InputError
from degla.pages.page import Part, Section
from degla.pages.table import Column, Table, TableRow
from degla.pages.words import UNKNOWN, percent
from degla.parse import read_json_object


@dataclass(frozen=True)
class MtebScore:
    """One main score that mteb has written.

    Attributes:
        task: mteb's name of it.
        split: of its data.
        subset: of its data, "default" where it has one alone.
        score: 0 to 1.
    """

    task: str
    split: str
    subset: str
    score: float


def read_mteb_results(path: str | Path) -> list[MtebScore]:
    """The main scores of a result file of mteb, or of all result files below a folder, by task.

    Args:
        path: what mteb writes: `TASK.json`, or a folder of such files (model_meta.json is passed over).

    Raises:
        InputError: there is none, or a file is no result of mteb; names it and the field.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*.json") if p.name != "model_meta.json")
    if not files:
        raise InputError(f"{path}: holds no result of mteb (TASK.json).")
    found = []
    for file in files:
        content = read_json_object(file, constants=True)
        try:
            for split, rows in content["scores"].items():
                for row in rows:
                    score = float(row["main_score"])
                    found.append(MtebScore(str(content["task_name"]), split, str(row["hf_subset"]), score))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{file}: no result of mteb: {type(error).__name__} at {error}.") from None
    return sorted(found, key=lambda each: (each.task, each.split, each.subset))


def mteb_section(results: Mapping[str, Path]) -> Iterator[Section]:
    """The section of what mteb measured, a column a model; none without results.

    Args:
        results: label to a file or folder, as `read_mteb_results` takes it.

    Raises:
        InputError: see `read_mteb_results`.
    """
    if not results:
        return
    by_label = {
        label: {(each.task, each.split, each.subset): each.score for each in read_mteb_results(path)}
        for label, path in results.items()
    }
    lines = []
    for place in sorted(set().union(*by_label.values())):
        found = [scores.get(place) for scores in by_label.values()]
        lines.append(TableRow([*place, *(UNKNOWN if each is None else percent(each) for each in found)]))
    parts: list[Part | str] = [
        "Main score of each task as mteb's own code has it. No gain, best or plot counts these numbers; intervals, "
        "ties and leakage are not known of them.",
        Table(["task", Column("split", align="left"), Column("subset", align="left"), *by_label], lines),
    ]
    yield Section("Measured by mteb", parts)
