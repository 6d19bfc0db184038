"""ARO's word orders: a literal twin with the global random streams, fake taggers, word splitting, known captions."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from degla.evaluation.perturb import TaggedCaption, perturb, prepare, split_words, tag
from tests.official import SHARED

NOUNS, ADJECTIVES = {"NN", "NNS", "NNP", "NNPS"}, {"JJ", "JJR", "JJS"}
DICTIONARY = {"dog": "NN", "cats": "NNS", "tree": "NN", "red": "JJ", "small": "JJ", "bigger": "JJR"}


def fake_tagger(captions: Sequence[str]) -> list[TaggedCaption]:
    return [
        TaggedCaption(tuple(text.split()), tuple(DICTIONARY.get(word, "XX") for word in text.split()))
        for text in captions
    ]


def literal_prepare(caption: str) -> str:
    for mark in '.!"()*#:;~':
        caption = caption.replace(mark, " ")
    caption = re.sub(r"\s{2,}", " ", caption.lower()).rstrip("\n").strip(" ")
    return " ".join(caption.split(" ")[:30])


def literal_orders(captions: list[str], tagged: Sequence[TaggedCaption], seed: int) -> list[list[str]]:
    """The protocol as it is written down: global streams seeded once, arrays of words, one caption after the other."""
    np.random.seed(seed)
    random.seed(seed)
    result = []
    for caption, (words, tags) in zip(captions, ((row.words, row.tags) for row in tagged), strict=True):
        nouns = [place for place, name in enumerate(tags) if name in NOUNS]
        adjectives = [place for place, name in enumerate(tags) if name in ADJECTIVES]
        first = np.array(words)
        first[nouns] = np.random.permutation(first[nouns])
        first[adjectives] = np.random.permutation(first[adjectives])
        second = np.array(words)
        rest = np.array([place not in nouns and place not in adjectives for place in range(len(words))])
        second[rest] = np.random.permutation(second[rest])
        tokens = split_words(caption)
        inside = [tokens[start : start + 3] for start in range(0, len(tokens), 3)]
        for group in inside:
            random.shuffle(group)
        groups = [tokens[start : start + 3] for start in range(0, len(tokens), 3)]
        random.shuffle(groups)
        third, fourth = (" ".join(" ".join(group) for group in order) for order in (inside, groups))
        result.append([literal_prepare(text) for text in (" ".join(first), " ".join(second), third, fourth)])
    return result


def test_equals_the_literal_protocol_on_captions_of_coco(data_root: Path) -> None:
    file = data_root / "coco" / "annotations" / "captions_val2017.json"
    captions = [row["caption"] for row in json.loads(file.read_text())["annotations"]]
    assert len(captions) == (425 if data_root == SHARED else 31)
    tagged = tag(tuple(captions))  # importing spaCy itself draws from the global stream
    for seed, tagger in ((2, lambda _: tagged), (1, tag)):
        state, numpy_state = random.getstate(), np.random.get_state()
        got = [list(row) for row in perturb(captions, seed=seed, tagger=tagger)]
        assert random.getstate() == state
        assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy_state, strict=True))
        assert got == literal_orders(captions, tagged, seed)
    true = [prepare(caption) for caption in captions]
    assert true == [literal_prepare(caption) for caption in captions]
    if data_root != SHARED:
        return
    # In about a fifth of COCO's captions a shuffle gives the caption back.
    same = sum(caption in row for caption, row in zip(true, got, strict=True)) / len(true)
    assert 0.12 < same < 0.26
    fewer = sum(len({caption, *row}) < 5 for caption, row in zip(true, got, strict=True)) / len(true)
    assert fewer == pytest.approx(0.19, abs=0.06)


def test_seeds_differ_and_repeat() -> None:
    captions = ["the red dog chases small cats near the bigger tree"] * 5
    runs = [list(perturb(captions, seed=seed, tagger=fake_tagger)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert len({row for run in runs for row in run}) > 5


def test_each_order_moves_what_it_says() -> None:
    caption = "the red dog chases small cats near the bigger tree"
    words = caption.split()
    content = [place for place, word in enumerate(words) if word in DICTIONARY]
    moved = set()
    for seed in range(20):
        ((first, second, third, fourth),) = perturb([caption], seed=seed, tagger=fake_tagger)
        for text in (first, second, third, fourth):
            assert sorted(text.split()) == sorted(words)
        for place, word in enumerate(first.split()):
            assert DICTIONARY.get(word, "XX")[:2] == DICTIONARY.get(words[place], "XX")[:2]
            assert place in content or word == words[place]
        assert all(second.split()[place] == words[place] for place in content)
        for start in range(0, len(words), 3):
            assert sorted(third.split()[start : start + 3]) == sorted(words[start : start + 3])
        groups = [" ".join(words[start : start + 3]) for start in range(0, len(words), 3)]
        assert all(group in fourth for group in groups)
        moved |= {number for number, text in enumerate((first, second, third, fourth)) if text != caption}
    assert moved == {0, 1, 2, 3}


def test_a_caption_of_one_word_comes_back() -> None:
    assert list(perturb(["Dog."], seed=1, tagger=fake_tagger)) == [("dog", "dog", "dog", "dog")]


def test_prepared_text() -> None:
    assert prepare('A "red" DOG, (small): it\'s here!  \n') == "a red dog, small it's here"
    assert prepare(" ".join(["w"] * 40)) == " ".join(["w"] * 30)
    assert prepare("a ~ b; c# d*") == "a b c d"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog's bone, isn't it?", "A|dog|'s|bone|,|is|n't|it|?"),
        ('He says "stop" (now).', "He|says|``|stop|''|(|now|)|."),
        ("The dogs' tails at 3:30 cost $1,000.50.", "The|dogs|'|tails|at|3:30|cost|$|1,000.50|."),
        ("A St. Bernard -- a dog... cannot fit", "A|St.|Bernard|--|a|dog|...|can|not|fit"),
        ("A dog sits. A cat runs.", "A|dog|sits|.|A|cat|runs|."),
        ("someone’s hat; we'll see", "someone|’|s|hat|;|we|'ll|see"),
        ("", ""),
    ],
)
def test_words_are_split_as_in_the_treebank(text: str, words: str) -> None:
    assert split_words(text) == (words.split("|") if words else [])


if find_spec("nltk"):  # Where it is not installed, the table above holds.

    def test_words_are_split_as_by_nltk(data_root: Path) -> None:
        """Where NLTK is installed: on every caption of one sentence of the real files."""
        from nltk.tokenize import destructive as nltk

        splitter = nltk.NLTKWordTokenizer()
        captions = {
            row[name]
            for file in (data_root / "sugarcrepe").glob("*.json")
            for row in json.loads(file.read_text()).values()
            for name in ("caption", "negative_caption")
        }
        single = [caption for caption in captions if not re.search(r"\. +[A-Z]", caption)]
        assert len(single) > (10000 if data_root == SHARED else 50)
        assert [text for text in single if splitter.tokenize(text) != split_words(text)] == []
