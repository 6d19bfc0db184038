from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from degla.world.captions import full_caption, loose_caption
from degla.world.painting import OUTLINES, render
from degla.world.scenes import is_out_of_domain, sample_scene, sample_scene_of, stream
from degla.world.vocabulary import FULL, IN_DOMAIN, ROOMY_SHAPES, SHAPES, WORDINGS
from tests.world.reading import RELATIONS, read, true_of


def test_same_seed_gives_the_same_scene_and_picture() -> None:
    one, other = (sample_scene(stream("test", 7)) for _ in range(2))
    assert one == other
    assert np.array_equal(render(one), render(other))
    assert sample_scene(stream("test", 8)) != one


def test_pictures_are_64_pixels_and_never_empty() -> None:
    for number in range(50):
        picture = render(sample_scene(stream("picture", number)))
        assert picture.shape == (64, 64, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 5


def test_things_differ_in_shape_and_colour() -> None:
    for number in range(300):
        scene = sample_scene(stream("differ", number))
        assert scene.first.shape != scene.second.shape
        assert scene.first.colour != scene.second.colour


def test_inside_gives_no_thing_away_by_its_shape() -> None:
    inner, outer = Counter[str](), Counter[str]()
    for number in range(4000):
        scene = sample_scene(stream("roomy", number))
        if scene.relation == "inside":
            inner[scene.first.shape] += 1
            outer[scene.second.shape] += 1
    assert set(inner) == set(outer) == ROOMY_SHAPES


def test_splits_are_disjoint_in_content() -> None:
    contents = {
        split: {sample_scene_of(split, stream("split", split, number)).content for number in range(400)}
        for split in ("train", "validation", "test")
    }
    assert not contents["train"] & contents["test"]
    assert not contents["train"] & contents["validation"]
    assert not contents["validation"] & contents["test"]


def test_shares_of_the_splits() -> None:
    counts = Counter(sample_scene(stream("shares", number)).split for number in range(3000))
    assert counts["train"] / 3000 == pytest.approx(2 / 3, abs=0.04)
    assert counts["test"] / 3000 == pytest.approx(1 / 6, abs=0.03)


def test_vocabularies() -> None:
    assert len(IN_DOMAIN.shapes) == len(IN_DOMAIN.colours) == 8
    assert len(FULL.shapes) == 14
    assert len(FULL.colours) == 12
    assert set(OUTLINES) == set(SHAPES)
    scene = sample_scene_of("test", stream("ood"), vocabulary=FULL, accept=is_out_of_domain)
    words = {scene.first.shape, scene.second.shape, scene.first.colour, scene.second.colour}
    assert not all(map(IN_DOMAIN.knows, words))


def test_reader_knows_every_wording() -> None:
    assert {word for words in WORDINGS.values() for word in words} == set(RELATIONS)


@pytest.mark.parametrize("vocabulary", [IN_DOMAIN, FULL], ids=["id", "full"])
def test_captions_are_true(vocabulary: object) -> None:
    count = 0
    for number in range(500):
        rng = stream("captions", number)
        scene = sample_scene(rng, vocabulary=FULL if vocabulary is FULL else IN_DOMAIN)
        full = full_caption(scene, rng)
        assert len(read(full).phrases) == 2
        assert read(full).relation is not None, full
        assert true_of(full, scene), (full, scene.content)
        loose = loose_caption(scene, rng)
        assert true_of(loose, scene), (loose, scene.content)
        count += read(loose).relation is not None
    assert count / 500 == pytest.approx(0.25 * 2 / 3, abs=0.06)
