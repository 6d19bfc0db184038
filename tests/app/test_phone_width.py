"""Pages at a phone's width, in a browser: the page never scrolls sideways, and wrapped content stays in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from degla.evaluation.report import report
from degla.evaluation.results import save_result
from degla.pages.page import Fold, Page, Raw, Section
from degla.pages.table import Column, Table, TableCell, TableRow
from degla.shelf import BENCHMARKS
from tests.evaluation.made_up import draw_result

_PATH = "/data/of/a/lab/with-long-names-of-folders/planetoid/cora.npz"
_NAME = "a much longer name of the file of all rules than a phone is wide"


def test_long_paths_and_names_fit_a_phone(browser: Any, tmp_path: Path) -> None:
    heads = ["file", Column("joint", notes=("gained minus lost",)), "other"]
    table = Table(heads, [TableRow([_NAME, "+0.6", "1"])], stacked=True)
    file = tmp_path / "page.html"
    sample = Raw(f'<div class="sample"><span class="tag">{_PATH}</span></div>')
    parts = [table, sample, Fold(_PATH, [_PATH], open=True)]
    file.write_text(Page(_PATH, [Section(_PATH, parts)]).html(), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    tab.goto(file.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.evaluate("getComputedStyle(document.querySelector('tbody th')).textAlign") == "left"
    # The second line of a column's header appears nowhere else.
    shown = [head.inner_text() for head in tab.query_selector_all("thead th") if head.is_visible()]
    assert len(shown) == 1 and "joint" in shown[0] and "gained minus lost" in shown[0]
    tab.close()


def test_a_long_word_stays_in_its_column(browser: Any, tmp_path: Path) -> None:
    word = 90 * "W"
    tag = Raw(f'<div class="card"><table><tr><td class="text words"><span class="tag">{word}</span></table></div>')
    plain, stacked = (Table(["model", word], [[word, "1.0"], ["base", "2.0"]], stacked=each) for each in (False, True))
    (tmp_path / "page.html").write_text(Page("Title", [plain, stacked, tag]).html(), encoding="utf-8")
    for width in (1280, 390):
        tab = browser.new_page(viewport={"width": width, "height": 844})
        tab.goto((tmp_path / "page.html").as_uri())
        assert (
            tab.evaluate("""[...document.querySelectorAll('th, td, .card')]
            .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.outerHTML)""")
            == []
        )
        tab.close()


def test_the_first_table_of_three_benchmarks_fits_the_page(browser: Any, tmp_path: Path) -> None:
    """A single table with all columns would scroll sideways, and its last columns would be overlooked."""
    benchmarks = [BENCHMARKS.load(name).BENCHMARK for name in ("world", "sugarcrepe", "winoground")]
    paths = []
    for label, level in (("base", 0.3), ("tuned", 0.6)):
        results = [draw_result(label, (level,) * 4, None, benchmark=each, n=9) for each in benchmarks]
        joined = tuple(part.benchmarks[0] for part in results), tuple(item for part in results for item in part.items)
        paths.append(tmp_path / f"{label}.json")
        save_result(results[0].model_copy(update=dict(zip(("benchmarks", "items"), joined, strict=True))), paths[-1])
    report(paths, out=tmp_path / "report.html", baseline="base", published=False)
    for width in (1280, 390):
        tab = browser.new_page(viewport={"width": width, "height": 844})
        tab.goto((tmp_path / "report.html").as_uri())
        cards = "[...document.querySelectorAll('.scroll:has(.stacked)')]"
        assert tab.evaluate(f"{cards}.map(card => card.scrollWidth - card.clientWidth)") == [0, 0, 0]
        tab.close()


def test_keys_scroll_a_wide_table_and_paper_shows_all_of_it_and_folded_parts(browser: Any, tmp_path: Path) -> None:
    table = Table(["name", *(f"column {number}" for number in range(30))], [["a", *("1.0",) * 30]])
    (tmp_path / "page.html").write_text(
        Page("Title", [table, Section("S", [Fold("folded", ["text"])])]).html(), encoding="utf-8"
    )
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    tab.goto((tmp_path / "page.html").as_uri())
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.matches('.scroll') && document.activeElement.tabIndex") == 0
    folded = "document.querySelector('details p').checkVisibility({contentVisibilityAuto: true})"
    assert not tab.evaluate(folded)
    tab.emulate_media(media="print")
    tab.wait_for_function(folded)  # The browser may change the medium after the next question.
    assert tab.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    heading = "getComputedStyle(document.querySelector('{}')).breakAfter"
    assert [tab.evaluate(heading.format(each)) for each in ("h2", "summary")] == ["avoid"] * 2, "no heading ends a page"
    tab.close()


def test_a_table_with_intervals_fits_paper(browser: Any, tmp_path: Path) -> None:
    titles = ("zero-shot", "Transfer", "Average", "Last", "forgetting", "recognition at the end", "composition at all")
    cells = [TableCell("45.2", spread=" ± 31.7") for _ in titles]
    table = Table(["arm", "seeds", *titles, "training"], [["plain fine-tuning", "3", *cells, "3.0 min"]])
    (tmp_path / "page.html").write_text(Page("Title", [table]).html(), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 717, "height": 1000})  # A4 between margins of 0.4 inch
    tab.emulate_media(media="print")
    tab.goto((tmp_path / "page.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == 717
    card = "document.querySelector('.scroll')"
    assert tab.evaluate(f"{card}.scrollWidth - {card}.clientWidth") == 0
    tab.close()
