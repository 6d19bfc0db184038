from __future__ import annotations

import numpy as np
import pytest

from degla.world import sprites
from degla.world.domains import DOMAINS, EMOJI, class_slug
from degla.world.draw import SHARES
from degla.world.scenes import stream
from tools.pretrain_world import batches


def test_shares_are_a_distribution_over_all_domains() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(SHARES) == {"scene", *DOMAINS}


@pytest.mark.parametrize("name", DOMAINS)
def test_classes_are_painted_the_same_way_twice(name: str) -> None:
    domain = DOMAINS[name]
    assert len({class_slug(each) for each in domain.classes}) == len(domain.classes)
    assert all(template.count("{}") == 1 for template in domain.templates)
    for each in domain.classes:
        one, other = (domain.paint(each, stream("paint", name, each)) for _ in range(2))
        assert one.caption == other.caption
        assert np.array_equal(one.picture, other.picture)
        assert one.picture.shape == (64, 64, 3)
        assert one.picture.std() > 1


def test_every_sprite_shows_something() -> None:
    for index in range(len(EMOJI)):
        assert np.asarray(sprites.emoji(index))[..., 3].mean() > 20
    for face in range(len(sprites.FACES)):
        for sign in sprites.SIGNS:
            assert np.asarray(sprites.glyph(sign, face)).max() > 200


def test_batch_depends_on_its_number_only() -> None:
    first = batches(size=4, seed=3)
    next(first)
    second = next(first)
    again = next(batches(size=4, seed=3, start=1))
    assert [example.caption for example in second] == [example.caption for example in again]
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(second, again, strict=True))
