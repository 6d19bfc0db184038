"""Scores in print: the tables of the DeGLA paper with what is wrong in them, and reference values of OpenAI's weights.

They were measured by others, on other code and often with another activation function; whoever shows them beside
scores of their own says so.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from pydantic import Field

from degla.records import Record, validate

_FOLDER = "published_tables"
Percents = dict[str, float]


class PublishedRow(Record):
    """One model's scores, in percent, corrected where the print is wrong.

    Attributes:
        model: the method's name in the table.
        scores: name of a part, or of an average that stands for a printed column, to its score. Where a part has
            several metrics the first is meant; another is named "part:metric".
        averages: name of an average of the benchmark to its value as printed, or as its columns give it.
        misprinted: what is printed where `scores` or `averages` differ from the print.
        note: what a reader must know, "" for nothing.
    """

    model: str = Field(min_length=1)
    scores: Percents
    averages: Percents = Field(default_factory=dict)
    misprinted: Percents = Field(default_factory=dict)
    note: str = ""


class PublishedTable(Record):
    """One table.

    Attributes:
        title: what was measured.
        benchmark: name on the shelf.
        source: paper and table, or file.
        setting: how it was measured, as far as that is known.
        row: one a model.
    """

    title: str
    benchmark: str
    source: str
    setting: str
    row: tuple[PublishedRow, ...] = Field(min_length=1)


class _File(Record):
    table: tuple[PublishedTable, ...] = Field(min_length=1)


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All tables, in the order of their files' names."""
    folder = resources.files("degla.evaluation") / _FOLDER
    found: list[PublishedTable] = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            content = tomllib.loads(file.read_text(encoding="utf-8"))
            found += validate(_File, content, where=f"{_FOLDER}/{file.name}").table
    return tuple(found)


def published_scores(benchmark: str) -> dict[str, dict[str, float]]:
    """A benchmark's scores in print, from 0 to 1: "model, source" to name of part or average to value.

    Args:
        benchmark: name on the shelf; one without scores in print gives an empty dict.
    """
    return {
        f"{row.model}, {table.source}": {name: percent / 100 for name, percent in (row.scores | row.averages).items()}
        for table in published_tables()
        if table.benchmark == benchmark
        for row in table.row
    }
