from __future__ import annotations

import pytest

from degla.world.items import FAMILIES, make_contrast
from degla.world.scenes import sample_scene, stream
from degla.world.vocabulary import FULL, IN_DOMAIN, Vocabulary
from tests.world.reading import read, true_of

SAME_WORDS = {"swap_noun", "swap_adjective", "swap_phrase", "order"}


@pytest.mark.parametrize("vocabulary", [IN_DOMAIN, FULL], ids=["id", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_positives_are_true_and_negatives_false(family: str, vocabulary: Vocabulary) -> None:
    for number in range(300):
        rng = stream("contrast", family, number)
        scene = sample_scene(rng, vocabulary=vocabulary)
        contrast = make_contrast(scene, family, vocabulary=vocabulary, rng=rng)
        assert contrast.positive != contrast.negative
        assert true_of(contrast.positive, scene), (contrast, scene.content)
        if family != "order":
            assert len(read(contrast.negative).phrases) == 2, contrast
            assert not true_of(contrast.negative, scene), (contrast, scene.content)
        same = sorted(contrast.positive.split()) == sorted(contrast.negative.split())
        assert same == (family in SAME_WORDS), contrast


def test_shuffled_captions_are_no_true_sentences() -> None:
    for number in range(300):
        rng = stream("shuffle", number)
        scene = sample_scene(rng)
        text = make_contrast(scene, "order", vocabulary=FULL, rng=rng).negative
        try:
            statement = read(text)
        except AssertionError:  # "an" before a consonant is not English
            continue
        assert not (len(statement.phrases) == 2 and statement.relation and true_of(text, scene)), text


def test_replacements_stay_in_the_vocabulary() -> None:
    for number in range(200):
        rng = stream("stay", number)
        scene = sample_scene(rng, vocabulary=IN_DOMAIN)
        for family in ("replace_noun", "replace_adjective", "add_attribute"):
            text = make_contrast(scene, family, vocabulary=IN_DOMAIN, rng=rng).negative
            for _, colour, shape in read(text).phrases:
                assert shape in IN_DOMAIN.shapes
                assert colour is None or colour in IN_DOMAIN.colours


@pytest.mark.parametrize("family", ["replace_noun", "replace_adjective"])
def test_no_negative_names_two_things_alike(family: str) -> None:
    """Every scene shows two shapes and two colours: a text with one shape twice could be rejected without the image."""
    for number in range(200):
        rng = stream("alike", family, number)
        text = make_contrast(sample_scene(rng), family, vocabulary=FULL, rng=rng).negative
        (_, colour, shape), (_, other_colour, other_shape) = read(text).phrases
        assert shape != other_shape and colour != other_colour, text
