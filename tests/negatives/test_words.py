from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from degla.negatives.grammar import words

TEXTS = st.text(alphabet=string.ascii_letters + " '’-.,!\"()0123456789é", max_size=60)


@pytest.mark.parametrize(
    ("word", "right"),
    [("umbrella", "an"), ("unicorn", "a"), ("unusual", "an"), ("uniform", "a"), ("untidy", "an"), ("hour", "an"),
     ("one", "a"), ("European", "a"), ("x-ray", "an"), ("ukulele", "a"), ("unripe", "an"), ("orange", "an"),
     ("house", "a"), ("used", "a"), ("ugly", "an"), ("utensil", "a"), ("urban", "an"), ("yellow", "a")],
)  # fmt: skip
def test_article(word: str, right: str) -> None:
    assert words.article(word) == right


def test_repair_articles_changes_nothing_else() -> None:
    assert words.repair_articles("There is  a orange, an dog near A umbrella .") == (
        "There is  an orange, a dog near An umbrella ."
    )
    assert words.repair_articles("A  fine   text") == "A  fine   text"


@given(TEXTS)
def test_split_keeps_every_character_but_spaces(text: str) -> None:
    assert "".join(piece for piece, _ in words.split(text)) == "".join(text.split())


@given(TEXTS)
def test_repaired_articles_fit(text: str) -> None:
    repaired = words.repair_articles(text)
    assert words.articles_fit(repaired)
    assert words.content(repaired) == words.content(text)


def test_content_ignores_case_punctuation_spaces_and_articles() -> None:
    assert words.content('A  dog, near an "Apple".') == words.content("a dog near a apple")
    assert words.content("a dog") != words.content("the dog")
    assert words.content("it isn't") == ("it", "is", "n't")


@pytest.mark.parametrize(
    ("many", "one"),
    [("men", "man"), ("veggies", "veggie"), ("cookies", "cookie"), ("leaves", "leaf"), ("geese", "goose"),
     ("dishes", "dish"), ("knives", "knife"), ("sheep", "sheep"), ("pants", "pants"), ("buses", "bus"),
     ("women", "woman"), ("oxen", "ox")],
)  # fmt: skip
def test_number(many: str, one: str) -> None:
    assert words.singular(many) == one
    assert words.plural(one) == many


def test_singular_of_a_singular_is_itself() -> None:
    for noun in ("glass", "bus", "lens", "dress", "octopus", "tennis", "grass"):
        assert words.singular(noun) == noun
