"""Scores in print: every name is known, and our own averages of the printed columns are the printed averages."""

from __future__ import annotations

import pytest

from degla.evaluation.benchmark import Benchmark
from degla.evaluation.in_print import PublishedRow, PublishedTable, published_tables
from degla.shelf import BENCHMARKS
from tests.evaluation.made_up import published_scores
from tests.evaluation.shelf_contract import average_columns

COUNTING = ("counting-hard", "counting-small-quant", "counting-adversarial")
ROWS = [(table, row) for table in published_tables() for row in table.row]
DEGLA = "arXiv 2504.16801"
IDS = [f"{table.benchmark}-{row.model}" for table, row in ROWS]


def benchmark_of(table: PublishedTable) -> Benchmark:
    benchmark = BENCHMARKS.load(table.benchmark).BENCHMARK
    assert isinstance(benchmark, Benchmark)
    return benchmark


def test_tables_are_complete() -> None:
    assert len(published_tables()) == 27
    degla = {table.benchmark: table for table in published_tables() if table.source.startswith(DEGLA)}
    assert {name: len(table.row) for name, table in degla.items()} == {
        "valse": 12,
        "sugarcrepe": 9,
        "aro": 10,
        "zeroshot": 5,
    }
    assert all(table.setting and table.source and table.title for table in published_tables())
    labels = [f"{row.model}, {table.source}" for table, row in ROWS if table.benchmark == "aro"]
    assert len(set(labels)) == len(labels) == len(published_scores("aro"))
    assert published_scores("cola") == {}


@pytest.mark.parametrize(("table", "row"), ROWS, ids=IDS)
def test_every_name_is_of_the_benchmark(table: PublishedTable, row: PublishedRow) -> None:
    benchmark = benchmark_of(table)
    averages = {average.name for average in benchmark.averages}
    for name in row.scores:
        part, _, metric = name.partition(":")
        assert part in averages or benchmark.part(part)
        assert not metric or metric in {each.name for each in benchmark.part(part).metrics}
    assert set(row.averages) <= averages
    assert set(row.misprinted) <= set(row.scores) | set(row.averages)
    assert all(0 <= value <= 100 for value in (*row.scores.values(), *row.averages.values()))
    for name, wrong in row.misprinted.items():
        assert wrong != (row.scores | row.averages)[name]
        assert row.note


@pytest.mark.parametrize(("table", "row"), ROWS, ids=IDS)
def test_our_averages_of_the_columns_are_those_in_print(table: PublishedTable, row: PublishedRow) -> None:
    if not row.averages or not row.scores:
        return
    benchmark = benchmark_of(table)
    columns = {name: value / 100 for name, value in row.scores.items()}
    if "counting" in columns:
        columns |= dict.fromkeys(COUNTING, columns.pop("counting"))
    counts = {"vg_attribution": 25}
    if table.benchmark == "sugarcrepe":
        counts |= {part.name: part.n for part in benchmark.parts}
    if table.benchmark == "valse" and not table.source.startswith("arXiv"):
        valid = (505, 851, 868, 900, 691, 535, 648, 949, 708, 104, 943)
        counts = dict(zip(row.scores, valid, strict=True))
    average_of = {average.name: 100 * average.value for average in average_columns(benchmark, columns, counts).averages}
    # Columns and averages are rounded to 0.1, so a mean of two columns may be 0.1 off the print, of eleven hardly.
    tolerance = 0.0551 if table.benchmark == "valse" else 0.1001
    for name, printed in row.averages.items():
        assert average_of[name] == pytest.approx(printed, abs=tolerance), name


def test_exact_averages_of_the_specification() -> None:
    def averages(benchmark: str, model: str) -> dict[str, float]:
        of_degla = [(table, row) for table, row in ROWS if table.source.startswith(DEGLA)]
        (row,) = (row for table, row in of_degla if (table.benchmark, row.model) == (benchmark, model))
        columns = {name: value / 100 for name, value in row.scores.items()}
        if "counting" in columns:
            columns |= dict.fromkeys(COUNTING, columns.pop("counting"))
        table = next(table for table, each in ROWS if each is row)
        scores = average_columns(benchmark_of(table), columns, {"vg_attribution": 25})
        return {average.name: 100 * average.value for average in scores.averages}

    for model, mean in (
        ("DeGLA", 74.08),
        ("CE-CLIP", 72.21),
        ("NegCLIP", 71.73),
        ("CLIP", 65.34),
        ("CyCLIP", 65.52),
        ("Structure-CLIP", 69.09),
        ("XVLM-coco", 69.50),
        ("BEIT3", 70.41),
        ("BLIP2", 65.36),
        ("BLIP", 69.95),
        ("MiniGPT-4", 68.18),
        ("CE-XVLM", 70.35),
    ):
        assert averages("valse", model)["mean11"] == pytest.approx(mean, abs=0.0052)
    assert averages("valse", "MiniGPT-4")["mean9"] == pytest.approx(68.36, abs=0.0052)
    for model, groups in (
        ("CE-CLIP", (86.97, 74.90, 92.90)),
        ("Structure-CLIP", (83.60, 76.60, 83.30)),
        ("DeGLA", (90.43, 81.85, 94.75)),
        ("NegCLIP", (85.03, 75.30, 85.80)),
    ):
        values = averages("sugarcrepe", model)
        assert [values[f"{family}.macro"] for family in ("replace", "swap", "add")] == pytest.approx(groups, abs=0.0052)
    assert averages("sugarcrepe", "CLIP")["swap.macro"] == pytest.approx(62.7, abs=0.0052)
    for model, mean in (("CLIP", 57.40), ("NegCLIP", 82.08), ("Structure-CLIP", 81.98), ("CE-CLIP", 81.23)):
        assert averages("aro", model)["mean4"] == pytest.approx(mean, abs=0.0052)
    assert averages("aro", "DeGLA")["mean4"] == pytest.approx(86.10, abs=0.0052)
    zeroshot = {row.model: row.scores for table, row in ROWS if table.benchmark == "zeroshot" and row.averages}
    means = {model: sum(scores.values()) / 11 for model, scores in zeroshot.items()}
    for model, mean in (("CLIP", 60.99), ("NegCLIP", 58.06), ("Structure-CLIP", 43.82), ("CE-CLIP", 45.68)):
        assert means[model] == pytest.approx(mean, abs=0.0061)
    assert means["DeGLA"] == pytest.approx(58.76, abs=0.0061)


def test_item_weighted_groups_of_sugarcrepe() -> None:
    """SugarCrepe's own table and vl_compo weigh items; the mean of the three groups is vl_compo's."""
    benchmark = BENCHMARKS.load("sugarcrepe").BENCHMARK
    sizes = {part.name: part.n for part in benchmark.parts}
    columns = {name: value for name, value in published_scores("sugarcrepe").popitem()[1].items() if name in sizes}
    averages = {average.name: average.value for average in average_columns(benchmark, columns, sizes).averages}
    for family in ("replace", "swap", "add"):
        names = [name for name in sizes if name.startswith(family)]
        expected = sum(columns[name] * sizes[name] for name in names) / sum(sizes[name] for name in names)
        assert averages[f"{family}.micro"] == pytest.approx(expected)
    mean = sum(averages[f"{family}.micro"] for family in ("replace", "swap", "add")) / 3
    assert averages["macro3"] == pytest.approx(mean)
    assert [round(100 * columns[name], 2) for name in sizes] == [90.92, 80.08, 69.20, 61.22, 63.96, 77.21, 68.79]
