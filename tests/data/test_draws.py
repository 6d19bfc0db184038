"""The shelf of draws: the contract of all members, and what each one returns."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from degla.config.run import TrainConfig
from degla.config.sections import DataConfig
from degla.data.dataset import RandomCrop
from degla.data.draws import Draw, Offer, open_draw
from degla.data.pairs import PairRow
from degla.data.randomness import random_for
from degla.data.table import table_of
from degla.errors import InputError
from degla.losses.core import Processes
from degla.model.load import load_encoder
from degla.records import CaptionRecord
from degla.shelf import DRAWS, RECIPES
from degla.training.pairs import image_transform, open_pairs
from tests.training.configs import tiny_config

RULES = ("swap", "swap", "swap", "noun", "noun", "relation")
SCORES = (-3.0, -1.0, -2.0, -1.0, -0.5, -4.0)
OFFER = Offer(RULES, SCORES)
CAPTION = CaptionRecord(id="7", image="7.jpg", text="A dog on a sofa.", image_id="7")


def chance(epoch: int = 0) -> random.Random:
    return random_for("negatives", seed=0, epoch=epoch, index=3)


def member(name: str) -> Draw:
    return open_draw(name, table_of([PairRow(CAPTION, tuple("abcdef"), RULES, SCORES)]))


@pytest.mark.parametrize("name", DRAWS.names())
@pytest.mark.parametrize("count", [0, 1, 4, 6, 9])
def test_every_draw_gives_k_different_places_and_depends_on_its_arguments_alone(name: str, count: int) -> None:
    draw = member(name)
    for epoch in range(10):
        places = list(draw(OFFER, count, chance(epoch)))
        assert len(places) == len(set(places)) == min(count, len(OFFER)) and set(places) <= set(range(len(OFFER)))
        random.seed(epoch)
        assert places == list(draw(OFFER, count, chance(epoch)))
    assert list(draw(Offer((), ()), count, chance())) == []


def test_random_is_the_draw_of_earlier_versions_bit_for_bit() -> None:
    """Runs started before the shelf existed resume with the same negatives."""
    draws = [list(member("random")(OFFER, 4, chance(epoch))) for epoch in range(3)]
    assert draws == [random_for("negatives", seed=0, epoch=epoch, index=3).sample(range(6), 4) for epoch in range(3)]
    assert draws == [[3, 5, 1, 0], [5, 2, 0, 3], [5, 1, 2, 3]]


def test_first_is_the_order_of_the_file_in_every_epoch() -> None:
    assert [list(member("first")(OFFER, 4, chance(epoch))) for epoch in range(3)] == [[0, 1, 2, 3]] * 3


def test_by_rule_takes_one_of_each_rule_in_turn() -> None:
    draw, firsts = member("by_rule"), Counter[int]()
    for epoch in range(300):
        places = list(draw(OFFER, 6, chance(epoch)))
        rules = [RULES[place] for place in places]
        assert set(rules[:3]) == {"swap", "noun", "relation"}
        assert set(rules[3:5]) == {"swap", "noun"} and rules[5] == "swap"
        firsts.update(places[:1])
    # Each negative comes first sometimes; a rule comes first as often as its share of negatives.
    assert min(firsts[place] for place in range(6)) > 20


def test_by_score_takes_the_most_likely_and_keeps_the_order_of_equal_ones() -> None:
    assert list(member("by_score")(OFFER, 4, chance())) == [4, 1, 3, 2]


def test_by_score_refuses_negatives_without_a_score() -> None:
    rows = [
        PairRow(CAPTION, ("A cat.", "A fish."), ("noun", "noun"), (-1.0, None)),
        PairRow(CAPTION, ("a",), ("swap",)),
    ]
    message = r"by_score: 2 of 3 negatives have no score, for example 'A fish\.' of caption '7' \(rule noun\)"
    with pytest.raises(InputError, match=message):
        open_draw("by_score", table_of(rows))


def test_an_unknown_draw_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"unknown draw of negatives 'by_rules'\. Did you mean 'by_rule'"):
        open_draw("by_rules", table_of([]))
    config = TrainConfig(data=DataConfig(draw="by_rules"))
    with pytest.raises(InputError, match=r"Did you mean 'by_rule'"):
        config.check()


def drawn(config: TrainConfig, *, epochs: int) -> list[list[Any]]:
    encoder = load_encoder(config.model)
    dataset = open_pairs(config, encoder=encoder, processes=Processes()).dataset
    return [[dataset[epoch, index].negative.tolist() for index in range(len(dataset))] for epoch in range(epochs)]


def test_degla_published_reads_the_first_negatives_of_each_row(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    assert RECIPES.load("degla_published").degla_published().data.draw == "first"
    config = tiny_config("degla_published", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, negatives_per_caption=1))
    epochs = drawn(config, epochs=6)
    assert all(epoch == epochs[0] for epoch in epochs)
    by_chance = dataclasses.replace(config, data=dataclasses.replace(config.data, draw="random"))
    assert len({str(epoch) for epoch in drawn(by_chance, epochs=6)}) > 1


def test_order_crops_and_draws_are_those_of_the_seed(
    tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path
) -> None:
    encoder = load_encoder(str(tiny_model))

    def found(seed: int) -> dict[str, Any]:
        config = tiny_config("negclip_hard_images", model=tiny_model, pairs=tiny_pairs, out=tmp_path, seed=seed)
        pull = dataclasses.replace(config.objective["text_pull"], weight=1.0)
        config = dataclasses.replace(config, objective=config.objective | {"text_pull": pull})
        pairs = open_pairs(config, encoder=encoder, processes=Processes())
        assert pairs.neighbours is not None
        rows = [pairs.dataset[0, index] for index in range(len(pairs.dataset))]
        return {
            "order": [rows.tolist() for rows in pairs.plan.global_batches(0)],
            "crops": [row.image.sum().item() for row in rows],
            "negatives": [row.negative.tolist() for row in rows],
            "positives": [torch.as_tensor(row.extra["positive"]).tolist() for row in rows],
            "neighbours": [pairs.neighbours.draw(0, index) for index in range(len(rows))],
        }

    one, again, other = (found(seed) for seed in (3, 3, 4))
    assert one == again
    assert [name for name in one if one[name] == other[name]] == []


def test_crops_are_as_the_flags_say(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    config = tiny_config("clip", model=tiny_model, pairs=tiny_pairs, out=tmp_path)
    data = dataclasses.replace(config.data, smallest_crop=0.3, scaled_decoding=False)
    dataset = open_pairs(dataclasses.replace(config, data=data), encoder=encoder, processes=Processes()).dataset
    assert dataset.transform == RandomCrop(image_transform(encoder), scale=(0.3, 1.0), scaled=False)


def test_a_share_of_the_rows_uses_its_negatives(tiny_model: Path, tiny_pairs: dict[str, Path], tmp_path: Path) -> None:
    config = tiny_config("negclip", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run")
    whole, half = (
        open_pairs(
            dataclasses.replace(config, data=dataclasses.replace(config.data, negatives_share=share)),
            encoder=load_encoder(str(tiny_model)),
            processes=Processes(),
        ).dataset
        for share in (1.0, 0.5)
    )
    used = []
    for epoch in range(12):
        for row in range(len(whole)):
            all_of_them, some = whole[epoch, row].valid, half[epoch, row].valid
            assert torch.equal(some, all_of_them) or not some.any()
            used += [bool(some.any())] if all_of_them.any() else []
    assert 0.4 < sum(used) / len(used) < 0.6
    assert len({tuple(used[start : start + 20]) for start in range(0, 100, 20)}) > 1
