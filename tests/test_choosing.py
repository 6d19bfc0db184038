"""The advice of `degla choose`: every row of its tables matches a committed study, and everything it names exists."""

from __future__ import annotations

import io
import re
from importlib.resources import files

import pytest

from degla.cli import main
from degla.config.fields import known_fields
from degla.shelf import RECIPES, VERBS
from tests.study.committed import ROOT, read, score_cells, tables

PAGE = ROOT / "docs" / "choosing.md"


def test_every_row_is_of_the_study_that_its_section_names() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", text, flags=re.MULTILINE))
    rows = 0
    for heading, heads, lines in tables(text):
        if heads[0] != "model":
            continue
        (folder,) = re.findall(r"\]\((studies/\w+)/study\.md\)", sections[heading])
        study = read(ROOT / "docs" / folder / "study.json")
        for line in lines:
            rows += 1
            assert line[1:] == score_cells(heads[1:], study.rows[line[0]], study.data["plan"], {}), (heading, line[0])
    assert rows > 20


def test_who_is_first_and_last_is_so_in_the_study_of_the_row() -> None:
    rows = re.findall(
        r"^\|([^|]+\]\(studies/\w+/study\.md\)[^|]*)\|([^|]+)\|([^|]+)\|",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 6
    for where, first, last in rows:
        folders = re.findall(r"\((studies/\w+)/study\.md\)", where)
        models = {k: row for folder in folders for k, row in read(ROOT / "docs" / folder / "study.json").rows.items()}
        score = "joint, other words" if "other words" in where else "joint"
        ranked = sorted(models.keys() - {"base"}, key=lambda label: -models[label].scores[score][0])
        # A method counts once, at its best: averaged, with adapters, or only its last block trained.
        methods = list(dict.fromkeys(re.split(r" averaged|,", label)[0] for label in ranked))
        named = [re.findall(r"`(\w+)`", names) for names in (first, last)]
        assert (methods[: len(named[0])], methods[-len(named[1]) :]) == (named[0], named[1]), where


def test_it_names_recipes_verbs_and_flags_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    recipes = set(re.findall(r"`(\w+)`", "\n".join(line for line in text.splitlines() if "|" in line)))
    assert {"con_clip", "degla_plus"} <= recipes <= set(RECIPES.names())
    fields = set(known_fields())
    for flag in re.findall(r"--([a-z.-]+\.[a-z-]+)", text):
        assert flag.replace("-", "_") in fields, flag
    for verb in re.findall(r"`degla (\w+)", text):
        assert any(name.split("_")[0] == verb for name in VERBS.names()), verb


def test_the_package_carries_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert files("degla").joinpath("choosing.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    assert main(["choose"]) == 0
    assert capsys.readouterr().out.startswith("# Which method")


def test_no_word_is_cut_on_a_narrow_terminal() -> None:
    from rich.console import Console

    from degla.verbs.choose import _rendered

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(
        _rendered(
            "| train | needs |\n|---|---|\n"
            + f"| {'words ' * 9} `--objective.contrastive.negative-scope` | {'x ' * 40} |\n"
        )
    )
    shown = console.export_text()
    assert "…" not in shown
    assert "--objective.contrastive.negative-scope" in "".join(line[:40].strip() for line in shown.splitlines())


def test_links_are_shown_as_their_text_and_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose"]) == 0
    text = capsys.readouterr().out
    assert "](" not in text
    assert "gains less composition in the world [docs/results.md] than" in text
    assert "text gives the answer away. Where" in text  # A link within the page.
    pages = re.findall(r"\[(docs/[^]]+)\]", text)
    assert len(pages) > 20
    assert all((ROOT / page).is_file() for page in pages)
