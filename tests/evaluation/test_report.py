"""The report: one page that needs nothing else, honest about gains, quick to start."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from degla.cli import main
from degla.errors import InputError
from degla.evaluation import item_difference
from degla.evaluation.comparison import Comparison, compare
from degla.evaluation.item_difference import averaged_scores, lead_variance, question_variance
from degla.evaluation.page import _frontiers
from degla.evaluation.plots import BARS, families, family_bars
from degla.evaluation.report import report, result_files
from degla.evaluation.results import load_result, save_result
from degla.pages.words import UNKNOWN
from degla.shelf import BENCHMARKS
from degla.statistics.seeds import seed_difference, seed_spread
from tests.evaluation.made_up import LEVELS, draw_result, write_results

BASELINE = "clip (no training)"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_results(tmp_path_factory.mktemp("results"), n=30)  # Of fewer than 25 images nothing is significant.


@pytest.fixture(scope="module")
def comparison(results: list[Path]) -> Comparison:
    return compare(results, baseline=BASELINE)


ODD = "<script>alert(1)</script> $x_1$"


@pytest.fixture(scope="module")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reported]:
    """A benchmark's report of two single models, the second far better and with an odd label."""

    @cache
    def written(name: str) -> Reported:
        folder = tmp_path_factory.mktemp(name)
        benchmark = BENCHMARKS.load(name).BENCHMARK
        declared = tuple(part for part in benchmark.parts if "*" not in part.name)
        paths = [folder / "base.json", folder / "odd.json"]
        for path, label, level in zip(paths, ("base", ODD), (0.3, 0.6), strict=True):
            result = draw_result(label, (level,) * 4, None, benchmark=replace(benchmark, parts=declared), n=40)
            save_result(result, path)
        data = report(paths, out=folder / "report.html", baseline="base", published=False)
        return Reported(paths, (folder / "report.html").read_text(), data)

    return written


class Reported(NamedTuple):
    paths: list[Path]
    page: str
    data: dict[str, Any]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.requests: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.names.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.requests.append(value or "")


def test_page_is_whole_and_alone(results: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    data = report(results, out=out, baseline=BASELINE)
    text = out.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.requests == []
    assert not re.search(r"@import|url\(\s*['\"]?https?:", text)
    # A frontier in two widths; replace, swap, add and order inside and outside the vocabulary, recognition, retrieval.
    assert page.tags.count("svg") == 2 + 10
    assert len(set(page.names)) == len(page.names)
    for label in LEVELS:
        assert label in text
        assert label in out.with_suffix(".md").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert "#010203" not in text
    json.dumps(data)
    assert data["methods"][0]["label"] == BASELINE


@pytest.mark.usefixtures("undrawn")
def test_a_paper_gets_plot_tables_and_scores(results: list[Path], tmp_path: Path) -> None:
    names = [str(each) for each in results]
    out = tmp_path / "report.html"
    assert main(["report", *names, "--baseline", BASELINE, "--out", str(out), "--paper", "--no-published"]) == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".md", ".tex", ".csv", ".svg"}
    plot = out.with_suffix(".svg").read_text(encoding="utf-8")
    assert plot.startswith("<svg") and "var(--" not in plot and all(label in plot for label in LEVELS)
    tables = out.with_suffix(".tex").read_text(encoding="utf-8")
    assert tables.count(r"\begin{tabular}") == 1 and "% Only one result for" in tables
    with out.with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    data = report(results, out=out, baseline=BASELINE, published=False)
    assert data["written"] == [str(out), str(out.with_suffix(".md"))]
    assert len(lines) == sum(len(row["cells"]) for row in data["rows"])
    line, row = lines[1], data["rows"][0]
    assert (line["benchmark"], line["name"], line["seeds"]) == (row["benchmark"], row["name"], "3")
    cell = row["cells"][line["method"]]
    assert float(line["mean"]) == cell["mean"] and float(line["gain_low"]) == cell["gain"]["interval"]["low"]


@pytest.mark.usefixtures("undrawn")
def test_texts_of_results_are_neither_tex_nor_formulas(results: list[Path], tmp_path: Path) -> None:
    result = json.loads(results[0].read_text())
    result["model"]["label"] = "=1+1"
    result["benchmarks"][0]["title"] = "Own\n\\input{/etc/passwd}"
    file = tmp_path / results[0].name
    file.write_text(json.dumps({name: value for name, value in result.items() if name != "sha256"}))
    shutil.copy(results[0].parent / result["items_file"], tmp_path)
    out = tmp_path / "out" / "report.html"
    assert main(["report", str(file), "--out", str(out), "--paper", "--no-published"]) == 0
    assert r"% Own \input{/etc/passwd}" in out.with_suffix(".tex").read_text().splitlines()
    assert {row["method"] for row in csv.DictReader(out.with_suffix(".csv").open())} == {"'=1+1"}


def test_files_for_a_paper_replace_no_others(
    report_of: Callable[[str], Reported], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    paths, out = report_of("world").paths, tmp_path / "main.html"
    request.getfixturevalue("undrawn")  # Only now: others read the pictures of that page.
    for ending in ("tex", "csv", "svg"):
        other = tmp_path / f"main.{ending}"
        other.write_text("\\documentclass{article}")
        with pytest.raises(InputError, match=rf"main\.{ending}: already exists and was not written by --paper"):
            report(paths, out=out, baseline="base", published=False, paper=True)
        assert list(tmp_path.iterdir()) == [other] and other.read_text() == "\\documentclass{article}"
        other.unlink()
    for _ in range(2):  # Its own files, it replaces.
        report(paths, out=out, baseline="base", published=False, paper=True)


def test_markdown_beside_a_report_replaces_only_that_of_a_report(results: list[Path], tmp_path: Path) -> None:
    notes, out = tmp_path / "notes.md", tmp_path / "notes.html"
    notes.write_text("# What I found")
    with pytest.raises(InputError, match=r"notes\.md: already exists and was not written by degla report.*--out\."):
        report(results, out=out)
    assert list(tmp_path.iterdir()) == [notes] and notes.read_text() == "# What I found"
    notes.unlink()
    for _ in range(2):  # Its own, it replaces.
        report(results, out=out)


def test_each_of_many_results_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = BENCHMARKS.load("winoground").BENCHMARK
    declared = tuple(part for part in benchmark.parts if "*" not in part.name)
    paths = [tmp_path / f"{number:03}.json" for number in range(140)]
    result = draw_result("0", (0.5,) * 4, None, benchmark=replace(benchmark, parts=declared), n=4)
    for path in paths:
        save_result(result.model_copy(update={"model": result.model.model_copy(update={"label": path.stem})}), path)
        os.utime(path, (1e9, 1e9))
    counts: Counter[Path] = Counter()

    def load(path: Path, *, items: bool = False) -> Any:
        counts[path] += items
        return load_result(path, items=items)

    monkeypatch.setattr(item_difference, "load_result", load)
    compare(paths, baseline="000")
    assert set(counts.values()) == {1}
    ids = [item_difference._ids_and_scores(path)["winoground"][0] for path in paths[:2]]
    assert ids[0] is ids[1], "the items' names are kept once"


@pytest.mark.parametrize(("older", "lacking"), [(("base",), 9), (("base", "tuned"), 9), (("base", "tuned"), 1)])
def test_results_of_versions_with_fewer_metrics_are_reported(
    older: tuple[str, ...], lacking: int, tmp_path: Path
) -> None:
    """They are lacking in all parts or in the first `lacking`."""
    benchmark = BENCHMARKS.load("negbench").BENCHMARK
    old_parts = tuple(replace(part, metrics=part.metrics[:1]) for part in benchmark.parts[:lacking])
    old_parts += benchmark.parts[lacking:]
    results = {}
    for seed in (0, 1):
        for label, level in (("base", 0.3), ("tuned", 0.7)):
            parts = old_parts if label in older and not seed else benchmark.parts
            declared = replace(benchmark, parts=parts)
            results[label, seed] = draw_result(label, (level,) * 4, seed, benchmark=declared, n=30)
            save_result(results[label, seed], tmp_path / f"{label}-{seed}.json")
    data = report(sorted(tmp_path.glob("*.json")), out=tmp_path / "report.html", baseline="base")
    gains = {row["name"]: row["cells"]["tuned"]["gain"] for row in data["rows"] if row["metric"] == "accuracy"}
    assert gains.keys() == {"mcq/coco", "mcq/voc2007"}
    assert {gain["interval"]["method"] for gain in gains.values()} == {"paired t over 2 seeds and questions"}
    scores = averaged_scores([results["base", 1], results["base", 0]], where="base")["negbench"]
    assert {name for name, _ in scores} >= {part.name for part in benchmark.parts}


class Numbers(HTMLParser):
    """Every number of a page that says which row of the results it is, by that row: table cells, bars, columns."""

    def __init__(self) -> None:
        super().__init__()
        self.by_row: dict[str, dict[str, list[str]]] = {}
        self._open: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = dict(attrs).get("data-row")
        if name and tag in ("tr", "td", "figure"):
            self._open.append((tag, name, ""))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            kind, name, text = self._open.pop()
            self.by_row.setdefault(name, {}).setdefault(kind, []).append(text)

    def handle_data(self, data: str) -> None:
        if self._open:
            kind, name, text = self._open[-1]
            self._open[-1] = (kind, name, f"{text} {data}")


@pytest.mark.parametrize("name", ["world", "retrieval", "sugarcrepe", "winoground"])
def test_bars_columns_and_tables_of_a_page_show_one_number(name: str, report_of: Callable[[str], Reported]) -> None:
    paths, text, _ = report_of(name)
    page = Numbers()
    page.feed(text)
    bars = 0
    for row, places in page.by_row.items():
        (table,) = places["tr"]
        # Behind the numbers of the row itself: one a method.
        expected = re.findall(r"\d+\.\d", table)[-2:]
        for figure in places.get("figure", []):
            bars += 1
            assert re.findall(r"(?<![\d.])\d+\.\d(?![\d.])", figure)[:2] == expected, row
        cells = [re.findall(r"\d+\.\d", cell)[0] for cell in places.get("td", [])[:2]]
        assert cells in ([], expected), row
    assert bars > 0
    headline = {row.title: f"{row.benchmark} {row.name} {row.metric}" for row in compare(paths[:1]).headline}
    titles = re.findall(r'<figure class="card" data-row="([^"]*)"><h3>([^<]*)<', text)
    assert all(headline.get(title, row) == row for row, title in titles), "a bar named as a column is that column"


def test_numbers_are_those_of_the_results(results: list[Path], comparison: Comparison) -> None:
    by_title = {row.title: row for row in comparison.headline}
    assert list(by_title) == ["composition", "other words", "swap", "order", "recognition", "retrieval"]
    values = [
        next(score.value for score in result.benchmarks[0].averages if score.name == "composition.id")
        for path in results
        if (result := load_result(path)).model.label == "degla"
    ]
    cell = by_title["composition"].cells["degla"]
    assert cell.mean == pytest.approx(np.mean(values))
    assert cell.deviation == pytest.approx(np.std(values, ddof=1))
    base = by_title["composition"].cells[BASELINE]
    assert base.gain is None
    assert cell.gain is not None
    assert cell.gain.value == pytest.approx(cell.mean - base.mean)
    lost = by_title["recognition"].cells["ce-clip"].gain
    assert lost is not None
    assert lost.significant
    assert lost.value < -0.2


@pytest.mark.parametrize("newer", [0, 1])
def test_a_column_is_filled_from_what_most_methods_have(newer: int, tmp_path: Path) -> None:
    """Another version may fill it from a new average, which results of the earlier one lack."""
    benchmark = BENCHMARKS.load("sugarcrepe").BENCHMARK
    paths = [tmp_path / "0.json", tmp_path / "1.json"]
    for path in paths:
        save_result(draw_result(path.stem, (0.5,) * 4, None, benchmark=benchmark, n=30), path)
    data = json.loads(paths[newer].read_text())
    del data["sha256"]
    (entry,) = data["benchmarks"]
    old = entry["headline"]["composition"]
    entry["averages"] += [row | {"name": "new"} for row in entry["averages"] if row["name"] == old]
    entry["headline"]["composition"] = "new"
    paths[newer].write_text(json.dumps(data))
    row = compare(paths, baseline="0").headline[0]
    assert (row.title, row.name) == ("composition", old) and row.cells["1"].gain is not None


def test_best_is_only_claimed_where_it_is_significant(results: list[Path], tmp_path: Path) -> None:
    close = compare(results)
    order = next(row for row in close.headline if row.title == "order")
    assert not any(cell.best for cell in order.cells.values())
    benchmark = BENCHMARKS.load("sugarcrepe").BENCHMARK
    paths = []
    for label, level in (("high", 0.95), ("low", 0.5)):
        for seed in range(3):
            path = tmp_path / f"{label}-{seed}.json"
            save_result(draw_result(label, (level,) * 4, seed, benchmark=benchmark, n=40), path)
            paths.append(path)
    clear = compare(paths)
    assert all(row.cells["high"].best and not row.cells["low"].best for row in clear.headline)


@pytest.mark.usefixtures("undrawn")
def test_intervals_of_several_seeds_cover_their_questions_too(
    results: list[Path], comparison: Comparison, tmp_path: Path
) -> None:
    (row,) = [row for row in comparison.headline if row.title == "swap"]
    cell = row.cells["degla"]
    assert cell.interval is not None and cell.interval.method == "t over 3 seeds and questions"
    over_seeds = (cell.deviation or 0) / 3**0.5
    assert cell.interval.high - cell.mean > 1.96 * over_seeds
    report(results, out=tmp_path / "report.html", baseline=BASELINE)
    text = f"{100 * cell.mean:.1f} ± {100 * (cell.interval.high - cell.mean):.1f}"
    assert text in (tmp_path / "report.md").read_text(), "± is what it is on the page of a study"
    assert cell.gain is not None and cell.gain.interval is not None
    assert cell.gain.interval.method == "t over 3 seeds and questions", "the baseline is one fixed model"
    # Those of the verdicts averaged over seeds, and of their lead over the baseline's.
    degla, base = (
        [result for path in results if (result := load_result(path, items=True)).model.label == label]
        for label in ("degla", BASELINE)
    )
    own, start = (averaged_scores(each, where="")["world"][row.name, row.metric] for each in (degla, base))
    expected = seed_spread(list(cell.values.values()), question_variance(own)).interval
    assert expected is not None and cell.interval.high == pytest.approx(expected.high)
    lead = lead_variance([(1.0, own, start)])
    (fixed,) = row.cells[BASELINE].values.values()
    expected = seed_difference(dict(enumerate(cell.values.values())), {None: fixed}, lead).interval
    assert expected is not None and cell.gain.interval.low == pytest.approx(expected.low)
    assert cell.gain.interval.high == pytest.approx(expected.high)


def test_seeds_that_one_method_has_alone_do_not_count_in_a_difference(results: list[Path], tmp_path: Path) -> None:
    world = BENCHMARKS.load("world").BENCHMARK
    more = [tmp_path / f"{seed}.json" for seed in (3, 4)]
    for seed, path in enumerate(more, start=3):
        save_result(draw_result("degla", (0.9,) * 4, seed, benchmark=world, n=30), path)
    two = [path for path in results if load_result(path).model.label in ("degla", "negclip")]
    plain, longer = (compare(paths, baseline="negclip") for paths in (two, [*two, *more]))
    for one, other in zip(plain.headline, longer.headline, strict=True):
        assert one.cells["degla"].gain == other.cells["degla"].gain


def test_single_results_are_compared_over_items(report_of: Callable[[str], Reported], tmp_path: Path) -> None:
    paths = report_of("world").paths
    gain = compare(paths, baseline="base").headline[0].cells[ODD].gain
    assert gain is not None
    assert gain.interval is not None
    assert gain.interval.method == "paired bootstrap over images"
    assert gain.interval.low < gain.value < gain.interval.high
    assert gain.significant
    # Without the items, or for a benchmark of another shelf, there is no interval, and nothing is called better.
    copies = [tmp_path / path.name for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.write_text(path.read_text())
    gone = replace(BENCHMARKS.load("winoground").BENCHMARK, name="gone")
    others = [tmp_path / f"{label}.json" for label in ("gone", "lost")]
    for path, label, level in zip(others, ("base", ODD), (0.3, 0.6), strict=True):
        save_result(draw_result(label, (level,) * 4, None, benchmark=gone, n=40), path)
    for files in (copies, others):
        cell = compare(files, baseline="base").headline[0].cells[ODD]
        assert cell.gain is not None
        assert (cell.gain.interval, cell.gain.significant, cell.best) == (None, False, False)


def test_one_seed_is_reported_also_where_no_method_has_more(comparison: Comparison, tmp_path: Path) -> None:
    benchmark = BENCHMARKS.load("winoground").BENCHMARK
    for label, seed in (("base", None), ("clip", 0), ("degla", 0)):
        save_result(draw_result(label, (0.7,) * 4, seed, benchmark=benchmark, n=20), tmp_path / f"{label}.json")
    paths = [tmp_path / f"{label}.json" for label in ("base", "clip", "degla")]
    report(paths, out=tmp_path / "demo.html", baseline="base")
    for shown in (tmp_path / "demo.html", tmp_path / "demo.md"):
        assert "Only one training seed per method" in shown.read_text()
    table = (tmp_path / "demo.md").read_text().split("## At a glance")[1]
    assert f"| base | {UNKNOWN} |" in table and "| clip | 1 |" in table, "the base was not trained"
    assert (tmp_path / "demo.html").read_text().count(">1 seed<") == 2
    several = " ".join(comparison.warnings)
    assert f"Only one result for {BASELINE}" in several and "seed per method" not in several
    assert not any("seed" in warning for warning in compare(paths[:1]).warnings), "one model has nothing to be compared"


def test_unlike_questions_give_no_gain(results: list[Path], tmp_path: Path) -> None:
    result = load_result(results[1], items=True)
    other = result.benchmarks[0].model_copy(
        update={"items_sha256": "b" * 64, "missing_images": 7, "title": result.benchmarks[0].title}
    )
    path = tmp_path / "other.json"
    model = result.model.model_copy(update={"label": "other", "activation": "gelu"})
    save_result(result.model_copy(update={"benchmarks": (other,), "model": model}), path)
    comparison = compare([*results, path], baseline=BASELINE)
    assert all(cell.gain is None and not cell.best for row in comparison.rows for cell in row.cells.values())
    assert comparison.joint is None
    text = " ".join(comparison.warnings)
    assert "the results do not all answer the same questions" in text
    assert "7 images were missing" in text
    assert "activation function: gelu, quick_gelu" in text
    assert "tie exactly" in text


def test_bad_input_is_named(results: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no results given\. Make"):
        report([], out=tmp_path / "r.html")
    with pytest.raises(InputError, match=r"'negclap'.*Did you mean 'negclip'"):
        report(results, out=tmp_path / "r.html", baseline="negclap")
    with pytest.raises(InputError, match=r"must end in \.html"):
        report(results, out=tmp_path / "r.pdf")
    copy = tmp_path / "copy.json"
    copy.write_text(results[1].read_text())
    with pytest.raises(InputError, match=r"copy\.json: label 'fine-tuned clip' with training seed 0 is already in"):
        report([*results, copy], out=tmp_path / "r.html")
    copy.write_text(json.dumps(json.loads(copy.read_text()) | {"training_seed": None, "sha256": ""}))
    with pytest.raises(InputError, match=r"copy\.json: label 'fine-tuned clip' of .*, and only one of them has"):
        report([*results, copy], out=tmp_path / "r.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no results in this folder\. Make one with"):
        result_files([tmp_path / "empty"])


def test_a_baseline_that_was_tuned_from_another_method_is_noted(results: list[Path], tmp_path: Path) -> None:
    base, tuned = (load_result(path).model for path in results[:2])
    changed = json.loads(results[1].read_text()) | {"sha256": ""}
    changed["model"] |= {"base": base.name, "base_fingerprint": base.fingerprint}
    (tmp_path / "tuned.json").write_text(json.dumps(changed))
    both = [results[0], tmp_path / "tuned.json"]
    note = f"{tuned.label}: the baseline ({tuned.name}) was fine-tuned from {base.label} ({base.name}). Are the labels"
    assert any(each.startswith(note) for each in compare(both, baseline=tuned.label).warnings)
    assert not any("swapped" in each for each in compare(both, baseline=base.label).warnings)


def test_labels_are_text_not_markup(report_of: Callable[[str], Reported]) -> None:
    assert "<script" not in report_of("world").page and "alert(1)" in report_of("world").page


def test_start_reads_no_slow_package() -> None:
    """Which packages are read is the report's doing, and how long that takes the machine's."""
    code = "import sys; before = set(sys.modules); import degla.evaluation.report; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {name.partition(".")[0] for name in done.stdout.split() if name[0] != "_"} - sys.stdlib_module_names
    results = {"annotated_types", "markupsafe", "numpy", "PIL", "pydantic", "pydantic_core", "typing_extensions",
               "typing_inspection"}  # fmt: skip
    assert "degla" in packages and packages <= results | {"degla"}


def test_long_names_leave_room_for_bars_and_numbers(report_of: Callable[[str], Reported]) -> None:
    """A name as wide as the picture was cut off at the left, and every number with it at the right."""
    comparison = compare(report_of("world").paths, baseline="base")
    long = "a run of mine with a name that is rather long"
    methods = tuple(
        replace(method, label=long if method.label == ODD else method.label) for method in comparison.methods
    )
    family = families(comparison)[0]
    row = replace(family.row, cells={long if label == ODD else label: cell for label, cell in family.row.cells.items()})
    svg = family_bars(replace(family, row=row, parts=()), replace(comparison, methods=methods), BARS)
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert "".join(texts).count("rather") == 1 and max(map(len, texts)) <= 20
    ends = [float(re.findall(rf'x="([\d.]+)"[^>]*>{tick}</text>', svg)[0]) for tick in (0, 100)]
    assert ends[1] - ends[0] > 0.42 * 72 * BARS, "the bars themselves have room"


def test_plots_of_two_benchmarks_have_two_names(report_of: Callable[[str], Reported]) -> None:
    comparison = compare(report_of("world").paths, baseline="base")
    other = [replace(row, benchmark="other") for row in comparison.headline if row.title == "composition"]
    both = replace(comparison, headline=type(comparison.headline)([*comparison.headline, *other]))
    titles = vars(both)["titles"] = {"world": "Embedded world", "other": "Other"}
    shown = [[part.part.title for part in _frontiers(each, None)] for each in (comparison, both)]  # type: ignore[union-attr]
    assert shown[0] == ["Composition gained, recognition kept"]
    assert shown[1] == [f"Composition ({name}) gained, recognition (Embedded world) kept" for name in titles.values()]


def test_every_picture_of_bars_tells_the_chance_that_it_draws(report_of: Callable[[str], Reported]) -> None:
    captions = re.findall(
        r'<figure class="card" data-row.*?<figcaption>(.*?)</figcaption>', report_of("world").page, re.S
    )
    assert len(captions) > 5 and all("; chance " in caption for caption in captions)


def test_joint_scores_are_both_differences_together(report_of: Callable[[str], Reported]) -> None:
    """Of single models, over the questions of both scores; nothing of it without a baseline."""
    paths, page, data = report_of("world")
    comparison = compare(paths, baseline="base")
    assert comparison.joint is not None
    (difference,) = comparison.joint.methods.values()
    rows = {row.title: row for row in comparison.headline}
    parts = [rows[name].cells[ODD].gain for name in ("composition", "recognition")]
    assert difference.value == pytest.approx(sum(part.value for part in parts if part))
    widths = [part.interval.high - part.interval.low for part in parts if part and part.interval]
    assert len(widths) == 2 and difference.interval is not None
    assert max(widths) < difference.interval.high - difference.interval.low < sum(widths)
    assert data["joint"]["methods"][ODD]["value"] == difference.value
    assert "composition gained minus recognition lost" in page
    assert compare(paths).joint is None


def test_joint_scores_over_seeds(comparison: Comparison) -> None:
    assert comparison.joint is not None
    rows = {row.title: row for row in comparison.headline}
    for label, difference in comparison.joint.methods.items():
        gain, loss = (rows[name].cells[label].gain for name in ("composition", "recognition"))
        assert gain is not None and loss is not None and difference.interval is not None
        assert difference.value == pytest.approx(gain.value + loss.value)
        assert difference.interval.method == gain.interval.method  # type: ignore[union-attr]
