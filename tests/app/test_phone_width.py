"""Pages at a phone's width, in a browser: the page itself never scrolls sideways, and what wraps stays in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from degla.pages.page import Fold, Page, Section
from degla.pages.table import Column, Table, TableRow

_PATH = "/data/of/a/lab/with-long-names-of-folders/planetoid/cora.npz"
_NAME = "a much longer name of the file of all rules than a phone is wide"


def test_long_paths_and_names_fit_a_phone(browser: Any, tmp_path: Path) -> None:
    heads = ["file", Column("joint", notes=("gained minus lost",)), "other"]
    table = Table(heads, [TableRow([_NAME, "+0.6", "1"])], stacked=True)
    file = tmp_path / "page.html"
    file.write_text(Page(_PATH, [Section(_PATH, [table, Fold(_PATH, [_PATH], open=True)])]).html(), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    tab.goto(file.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.evaluate("getComputedStyle(document.querySelector('tbody th')).textAlign") == "left"
    # What stands below a column's title in the head is nowhere else.
    shown = [head.inner_text() for head in tab.query_selector_all("thead th") if head.is_visible()]
    assert len(shown) == 1 and "joint" in shown[0] and "gained minus lost" in shown[0]
    tab.close()
