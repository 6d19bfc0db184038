"""The checks common to all rules, whoever wrote the text."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from random import Random

import pytest

from degla.negatives.checks import REASONS, check_caption, check_text, estimate_tokens, refused
from degla.negatives.grammar import words
from degla.negatives.grammar.meaning import says_the_same
from degla.negatives.grammar.phrases import parse_one
from degla.negatives.llm import ReplyStatus
from degla.negatives.rule import MOST_CANDIDATES, judge, load_rule
from degla.shelf import RULES


@pytest.mark.parametrize(
    ("caption", "negative", "reason"),
    [
        ("a dog on a sofa", "", "empty"),
        ("a dog on a sofa", "A dog, on a sofa!", "same_text"),
        ("a dog on a sofa", "the dog is on the sofa", "near_paraphrase"),
        ("a man riding a horse", "a horse is being ridden by a man", "near_paraphrase"),
        ("a cup near a plate", "the cup is next to the plate", "near_paraphrase"),
        ("a dog on a sofa", "a dog on a a sofa", "doubled_word"),
        ("a dog on a sofa", "two dog on a sofa", "agreement"),
        ("a dog on a sofa", "a dogs on a sofa", "agreement"),
        ("a dog on a sofa", "a naked dog on a sofa", "banned_word"),
        ("a dog on a sofa", "sorry, a cat", "banned_word"),
        ("a dog on a sofa", "a orange on a sofa", "article"),
        ("a dog on a sofa", "a dog on a sofa " * 3, "too_long"),
        ("a dog on a sofa", "a big old red cat on a sofa", ""),  # three words more
        ("a dog on a sofa", "a big old red cat on a small sofa", "too_long"),
        ("a dog and a cat sleep on an old sofa", "a dog and a big old wet red small lion sleep on an old sofa", ""),
        (
            "a dog and a cat sleep on an old sofa",
            "a dog and a big old wet red small brown lion sleep on an old sofa",
            "too_long",
        ),  # more than half as many again
        ("a dog on a sofa", "one dogs on a sofa", "agreement"),
        ("a dog on a sofa", "a cat on a sofa", ""),
        ("a nude statue in a park", "a nude statue in a desert", ""),
        ("two sheep in a field", "three sheep in a field", ""),
        ("a glass on a table", "two glass tables", ""),
        ("a dog on a sofa", "a scissors on a sofa", "agreement"),
        ("a dog on a sofa", "two scissors on a sofa", ""),
        ("two dog on a sofa", "two dog on a bed", ""),  # what is wrong in the caption is not held against it
        ("a man riding a horse", "a horse riding a man", ""),
        ("a dog under a bed", "a dog on a bed", ""),
    ],
)
def test_text(caption: str, negative: str, reason: str) -> None:
    assert check_text(parse_one(caption), negative).reason == reason


def test_texts_over_the_context_are_refused() -> None:
    start, repeated = "a dog on a sofa next to ", "a cat and a skateboarder and "
    caption = start + repeated * 11 + "a lamp"
    assert len(words.content(caption)) < 80
    assert check_caption(caption).reason == "over_context"
    fitting = start + repeated * 9 + "a lamp"
    assert check_caption(fitting).accepted
    longer = fitting.replace("a lamp", "a zyxwvutsrqponmlk qwertzuiopasdfgh")
    assert check_text(parse_one(fitting), longer).reason == "over_context"
    # Few words may be many tokens.
    assert check_caption("a phone with the number " + "1234567890 " * 8).reason == "over_context"
    assert check_text(parse_one("a dog on a sofa"), "a dog on a " + "bed " + "!" * 75).reason == "over_context"


def test_a_caption_may_have_eighty_words() -> None:
    assert check_caption("a " * 80).reason != "long_caption"
    assert check_caption("a " * 81).reason == "long_caption"


def test_tokens_are_estimated_like_clips_tokenizer() -> None:
    tokenizer = pytest.importorskip("open_clip").get_tokenizer("ViT-B-32")
    texts = [
        "A young boy in a red shirt is throwing a ball to a small dog.",
        "Two black cats are sleeping on a wooden bench, under an umbrella!",
        "THREE WOMEN ARE PLAYING TENNIS ON A GREEN COURT",
        "a photo of route 66 in 1995",
    ]
    for text in texts:
        exact = int((tokenizer([text])[0] != 0).sum()) - 2
        assert abs(estimate_tokens(text) - exact) <= 1, text


def test_saying_the_same_is_symmetric() -> None:
    pairs = [("a young man holding a red cup", "a red cup held by a young man"), ("a dog on a sofa", "a sofa on a dog")]
    for (one, other), same in zip(pairs, (True, False), strict=True):
        for first, second in ((one, other), (other, one)):
            assert says_the_same(words.content(first), words.content(second)) is same


def test_every_outcome_of_a_language_model_has_a_reason() -> None:
    for outcome in typing.get_args(ReplyStatus):
        assert outcome == "answered" or refused(f"model_{outcome}").reason in REASONS
    assert refused("implausible").reason == "implausible"


def test_letters_outside_ascii_are_estimated_by_their_bytes() -> None:
    assert estimate_tokens("猫 und 犬") >= 6 and estimate_tokens("café") == 3


@pytest.mark.parametrize(
    ("caption", "denied"),
    [
        ("there are no dogs on the sofa", True),
        ("No dog is on a sofa.", True),
        ("There is not a dog on the sofa.", True),
        ("a dog isn't on a mat", True),
        ("a dog isn’t on a mat", True),
        ("nobody is on a mat", True),
        ("None of the dogs is on a mat.", True),
        ("a man cannot dance on a mat", True),
        ("a large no parking sign is on a pole", False),
        ("a man does not ride a horse", True),
        ("a man wearing no shirt climbs a rock", False),
        ("a train with no cars stands in a station", False),
        ("a river is not wide and has a bridge", False),
        ("a dog runs on a beach. It is not on a mat.", False),
    ],
)
def test_a_sentence_that_denies_something_has_no_negatives(caption: str, denied: bool) -> None:
    tagged = parse_one(caption)
    reasons = {
        judge(load_rule(name), tagged, text).reason
        for name in RULES.names()
        for text in load_rule(name).propose(tagged, Random(0), MOST_CANDIDATES)
    }
    assert reasons == {"still_true" if denied else ""}


def test_every_reason_is_explained_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "negatives.md").read_text(encoding="utf-8")
    _, _, section = page.partition("\n## Reasons\n")
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section.partition("\n## ")[0], re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(cells))) == sorted(REASONS)
