from __future__ import annotations

import string
import unicodedata
from random import Random

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


def test_accents_in_characters_of_their_own_do_not_split_a_word() -> None:
    text = "A Müller bag can't lie on a café's tête-à-tête"
    composed, apart = (words.split(unicodedata.normalize(form, text)) for form in ("NFC", "NFD"))
    assert [unicodedata.normalize("NFC", piece) for piece, _ in apart] == [piece for piece, _ in composed]
    assert [spaced for _, spaced in apart] == [spaced for _, spaced in composed]


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
     ("women", "woman"), ("oxen", "ox"), ("t-shirts", "t-shirt")],
)  # fmt: skip
def test_number(many: str, one: str) -> None:
    assert words.singular(many) == one
    assert words.plural(one) == many


def test_singular_of_a_singular_is_itself() -> None:
    for noun in ("glass", "bus", "lens", "dress", "octopus", "tennis", "grass"):
        assert words.singular(noun) == noun


def made_usage() -> words.WordUsage:
    counter = words.UsageCounter()
    for text in 3 * ["a red dog on the grass"] + 2 * ["a red cat"] + ["a blue dog"]:
        counter.add(words.content(text))
    return counter.usage()


def test_how_likely_words_are_by_hand() -> None:
    """18 words: red 5, dog 4, on and grass 3, cat 2; words seen once count as unseen, and articles not at all."""
    usage = made_usage()
    assert usage.total == 18 and usage.words["blue"] == usage.words["a"] == 0 and ("blue", "dog") not in usage.pairs
    on = (3 + 1) / 18
    dog = (3 + 5 * 5 / 18) / (5 + 5) * (3 + 5 * on) / (5 + 5)
    cat = (2 + 5 * 3 / 18) / (5 + 5) * (0 + 5 * on) / (3 + 5)
    blue = (0 + 5 * 1 / 18) / (5 + 5) * (0 + 5 * on) / (1 + 5)
    name = (0 + 5 * 1 / 18) / (5 + 5) * (3 + 5 * on) / (1 + 5)  # "blue dog": as rare as its rarest word
    weights = usage.weights(("cat", "dog", "blue", "blue dog"), ("red", "on"))
    assert weights == pytest.approx([cat / dog, 1, blue / dog, name / dog])
    assert usage.weights(("cat", "dog"), ("", "")) == pytest.approx([3 / 5, 1])
    assert usage.weights((), ("red", "")) == []
    often = words.WordUsage(usage.words, {("red", "dog"): 10**6}, 18)
    assert often.weights(("cat", "dog"), ("red", "")) == [1e-3, 1]


def test_the_least_likely_words_come_in_no_order_of_their_own() -> None:
    usage = words.WordUsage(made_usage().words, {("red", "dog"): 10**6}, 18)
    orders = [usage.shuffle(*2 * [("ant", "dog", "zebra")], ("red", ""), Random(seed)) for seed in range(1000)]
    assert sum(order.index("ant") < order.index("zebra") for order in orders) == pytest.approx(500, abs=50)
    assert sum(order[0] == "dog" for order in orders) > 980


def test_the_rarest_pairs_are_dropped_until_half_of_the_limit_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST", 10)
    counter = words.UsageCounter()
    counter.add(["red", "dog"] * 4)
    counter.add([*"abcdef"] * 2)
    counter.add([*"ghijklm"] * 2)  # pairs seen twice are too many as well
    assert counter.usage().pairs == {("red", "dog"): 4, ("dog", "red"): 3}
