"""Second images of the world: what is true of one is false of the other, and no test scene leaks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from degla.errors import InputError
from degla.records import CaptionRecord, read_jsonl
from degla.world.captions import full_claim
from degla.world.draw import draw_pairs
from degla.world.items import draw_partner
from degla.world.scenes import sample_scene_of, stream
from degla.world.vocabulary import ROOMY_SHAPES


def test_each_full_claim_is_true_of_its_own_picture_alone() -> None:
    changed: Counter[str] = Counter()
    for number in range(400):
        rng = stream("partner test", number)
        scene = sample_scene_of("train", rng)
        partner = draw_partner(scene, rng)
        own, other = full_claim(scene), full_claim(partner)
        assert own.true_of(scene) and other.true_of(partner)
        assert not own.true_of(partner) and not other.true_of(scene)
        assert partner.split == "train" and partner.relation == scene.relation
        assert partner.first.shape != partner.second.shape and partner.first.colour != partner.second.colour
        if partner.relation == "inside":
            assert {partner.first.shape, partner.second.shape} <= ROOMY_SHAPES
        assert (partner.first.x, partner.second.radius) == (scene.first.x, scene.second.radius)
        mine, theirs = (sorted(f"{claim.subject} {claim.object}".split()) for claim in (own, other))
        same_words = mine == theirs
        changed["swap" if same_words else "replace"] += 1
    assert min(changed["swap"], changed["replace"]) > 80, changed


def test_partners_are_the_same_everywhere() -> None:
    scene = sample_scene_of("train", stream("partner test", 0))
    first, second = (draw_partner(scene, stream("partner draw", 5)) for _ in range(2))
    assert first == second
    assert draw_partner(scene, stream("partner draw", 6)) != first


def test_drawn_partners_are_worded_like_their_captions(tmp_path: Path) -> None:
    plain = draw_pairs(tmp_path / "plain", count=6, seed=2, captions_per_image=3)
    drawn = draw_pairs(tmp_path / "partners", count=6, seed=2, captions_per_image=3, partners=True)
    records, without = (list(read_jsonl(CaptionRecord, each.captions)) for each in (drawn, plain))
    assert len(records) == 18
    for record, same in zip(records, without, strict=True):
        assert same.distractor_image is None and (record.id, record.text) == (same.id, same.text)
        assert record.distractor_image is not None and record.distractor_text is not None
        assert record.distractor_text != record.text
        frame = [word for word in ("there", "is", "picture", "shows", "drawing", "see") if word in record.text.split()]
        assert all(word in record.distractor_text.split() for word in frame)
        first, second = ((drawn.images / name).read_bytes() for name in (record.image, record.distractor_image))
        assert first != second and first == (plain.images / record.image).read_bytes()
    with pytest.raises(InputError, match="drawn with"):
        draw_pairs(tmp_path / "plain", count=6, seed=2, captions_per_image=3, partners=True)
