"""The examples in the tables of docs/negatives.md are what the grammar makes and what the checks say."""

from __future__ import annotations

import re
from pathlib import Path

from degla.api import generate_negatives
from degla.negatives.grammar.phrases import parse
from degla.negatives.rule import judge, load_rule
from degla.shelf import RULES

PAGE = (Path(__file__).parents[2] / "docs" / "negatives.md").read_text(encoding="utf-8")


def test_the_grammar_makes_the_negatives_of_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", PAGE, flags=re.MULTILINE)
    assert sorted(rule for rule, *_ in rows) == sorted(RULES.names())
    for rule, kind, caption, negative in rows:
        (negatives,) = generate_negatives([caption], rules=[rule], per_rule=60)
        assert (kind, negative) in [(each.kind, each.text) for each in negatives]


def test_the_refused_texts_of_the_page_have_their_reasons() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+ → [^|]+) \|$", PAGE, flags=re.MULTILINE)
    assert len(rows) >= 15
    for reason, shown in rows:
        for example in shown.split("; "):
            caption, text = example.split(" → ")
            (tagged,) = parse([caption])
            assert reason in {judge(load_rule(rule), tagged, text).reason for rule in RULES.names()}, example
