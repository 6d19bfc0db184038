"""Classes of misses: what must not move, orders with the same meaning, and additions that may be true."""

from __future__ import annotations

from random import Random

import pytest

from degla.negatives.grammar import words
from degla.negatives.grammar.phrases import parse_one
from degla.negatives.rule import ReplacingRule, judge, load_rule

CASES = [
    # symmetric relations in other clothing
    ("reshuffle_order", "The lamp has a radio next to it.", "A radio has the lamp next to it.", "same_meaning"),
    ("swap_nouns", "The lamp has a radio next to it.", "The radio has a lamp next to it.", "same_meaning"),
    ("swap_phrases", "a tall plant in a room next to a door", "a door in a room next to a tall plant", "same_meaning"),
    ("reshuffle_order", "two tulips in a jar with sand", "sand in a jar with two tulips", "same_meaning"),
    ("swap_phrases", "two tulips in a big jar with sand", "two tulips in sand with a big jar", "same_meaning"),
    ("swap_phrases", "two red cars on a road with a man", "a man on a road with two red cars", "same_meaning"),
    ("swap_nouns", "two boys with dogs", "two dogs with boys", "same_meaning"),
    ("reshuffle_order", "a bowl of beans, cheese and rice with a spoon",
     "a bowl of beans, a spoon and rice with cheese", "same_meaning"),
    ("reshuffle_order", "a woman in front of a mirror", "a mirror in front of a woman", "same_meaning"),
    ("swap_nouns", "a woman standing next to a horse next to her saddle",
     "a woman standing next to a saddle next to her horse", "same_meaning"),
    # the same connectors, but another scene
    ("reshuffle_order", "a man riding a horse next to a dog", "a dog riding a horse next to a man", ""),
    ("swap_nouns", "two dogs next to a cat", "two cats next to a dog", ""),
    ("swap_nouns", "a red ball next to a blue box", "a red box next to a blue ball", ""),
    ("reshuffle_order", "a dog in front of a cat on a mat", "a mat in front of a cat on a dog", ""),
    # what must stay where it is
    ("reshuffle_order", "Two boys playing tennis", "Tennis playing two boys", "word_order"),
    ("reshuffle_order", "a shelf full of toys like a doll and a drum", "a doll full of toys like a shelf and a drum",
     "word_order"),
    ("swap_nouns", "a man by a shelf with mixing equipment", "a man by equipment with mixing shelf", "not_rule"),
    ("swap_phrases", "three old chairs lined in rows", "rows lined in three old chairs", "not_rule"),
    ("reshuffle_order", "three old chairs lined in rows", "rows lined in three old chairs", "word_order"),
    ("reshuffle_order", "a girl on a swing doing a trick", "a trick on a swing doing a girl", "word_order"),
    ("swap_nouns", "two people behind a woman", "two women behind a person", "hypernym"),
    ("swap_nouns", "a shelf with old cups, plates and other things", "a shelf with old plates, cups and other things",
     "word_order"),
    ("swap_phrases", "a tall judge watches a game of tennis", "a game of tennis watches a tall judge", "not_rule"),
    # words of a compound
    ("replace_adjectives", "a middle aged man on a bench", "a middle young man on a bench", "not_rule"),
    ("replace_adjectives", "a big, white dog", "a big, black dog", ""),
    ("change_number", "a mat with a fork and knife", "a mat with three forks and knife", "not_rule"),
    # attributes that may be true unsaid
    ("add_attribute", "a bowl of carrots", "a bowl of roasted carrots", "still_true"),
    ("add_attribute", "a cup on a mat", "a white cup on a mat", "still_true"),
    ("add_attribute", "a skateboard on a ramp", "a wooden skateboard on a ramp", "still_true"),
    ("add_attribute", "a cup on a mat", "a striped cup on a mat", ""),
    # prepositions, and rooms that may hold more
    ("replace_nouns", "a boy on a street", "a boy on a park", "word_order"),
    ("replace_nouns", "a boy in a park", "a boy in a desert", ""),
    ("replace_nouns", "a bathroom with a tub, a toilet and a sink", "a bathroom with a shower, a toilet and a sink",
     "still_true"),
    ("replace_nouns", "a kitchen with a stove and a sink", "a kitchen with a microwave and a sink", "still_true"),
    ("replace_nouns", "a kitchen with a stove and a sink", "a kitchen with a bicycle and a sink", ""),
    ("replace_nouns", "a light on a table with a book on it", "a light on a man with a book on it", "word_order"),
    # adjectives that do not exclude each other
    ("swap_adjectives", "a beautiful bench by a small tree", "a small bench by a beautiful tree", "compatible"),
    ("swap_adjectives", "a black dog by large trees", "a large dog by black trees", "compatible"),
    ("swap_adjectives", "a green bench by a brown tree", "a brown bench by a green tree", ""),
    # relations that can be true together
    ("replace_relation", "a sign near a tree", "a sign in front of a tree", "compatible"),
    ("replace_relation", "a sign near a tree", "a sign far from a tree", ""),
    ("replace_relation", "a boat passing under a bridge", "a boat passing past a bridge", "compatible"),
    ("replace_relation", "a clock sits on a tower", "a clock hangs on a tower", "synonym"),
    ("replace_relation", "a boy rides on a skateboard", "a boy walks on a skateboard", "compatible"),
    ("replace_relation", "a boy holding a cup to a dog", "a boy buying a cup to a dog", "compatible"),
    # one of several
    ("negation", "two boys, one of which is holding a kite", "two boys, one of which is not holding a kite",
     "not_rule"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "caption", "negative", "reason"), CASES)
def test_classes_of_misses(name: str, caption: str, negative: str, reason: str) -> None:
    rule, tagged = load_rule(name), parse_one(caption)
    assert judge(rule, tagged, negative).reason == reason
    proposed = {words.content(text) for seed in range(8) for text in rule.propose(tagged, Random(seed), 20)}
    assert reason == "" or words.content(negative) not in proposed


def test_no_word_of_a_language_model_is_asked_for_where_only_the_rules_own_list_is_accepted() -> None:
    rule, caption = load_rule("add_attribute"), parse_one("a cup on a mat")
    assert isinstance(rule, ReplacingRule)
    assert rule.slots(caption) == ()
    assert rule.ask(caption, ()) is not None


def test_those_that_can_act_come_first() -> None:
    caption = parse_one("a woman covering a dog next to a bench under a tree")
    for name in ("swap_nouns", "reshuffle_order"):
        for seed in range(8):
            first, *_, last = load_rule(name).propose(caption, Random(seed), 20)
            assert first.split(" covering")[0] in ("a woman", "a dog")
            assert last.split(" covering")[0] in ("a bench", "a tree")


def test_rooms_get_what_is_seldom_there() -> None:
    caption = parse_one("a kitchen with a stove and a sink")
    rule = load_rule("replace_nouns")
    texts = {text for seed in range(8) for text in rule.propose(caption, Random(seed), 20)}
    assert "a kitchen with a ladder and a sink" in texts
    assert not any("microwave" in text or "oven" in text for text in texts)


def test_a_pile_is_one() -> None:
    texts = load_rule("negation").propose(parse_one("A pile of old bags on a floor"), Random(0), 20)
    assert "There is no pile of old bags on a floor" in texts
