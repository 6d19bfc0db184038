"""The shipped recipes have the settings of their papers and released scripts."""

from __future__ import annotations

from typing import Any

import pytest

from degla.config.run import TrainConfig
from degla.shelf import RECIPES

# lr, weight decay, beta2, eps, warm-up, batch, epochs or steps, negatives a caption; weights of the active terms.
PUBLISHED: dict[str, tuple[tuple[float, ...], dict[str, float]]] = {
    "clip": ((1e-6, 0.1, 0.98, 1e-6, 50, 256, 5, 0), {"contrastive": 1}),
    "negclip": ((1e-6, 0.2, 0.98, 1e-6, 50, 256, 5, 4), {"contrastive": 1}),
    "negclip_hard_images": ((1e-6, 0.2, 0.98, 1e-6, 50, 256, 5, 1), {"contrastive": 1}),
    "ce_clip": (
        (1e-6, 0.1, 0.98, 1e-6, 50, 256, 5, 4),
        {"contrastive": 1, "intra_modal": 0.2, "cross_modal_rank": 0.4},
    ),
    "degla": (
        (1e-6, 0.1, 0.98, 1e-6, 50, 256, 5, 4),
        {"contrastive": 1, "image_grounded": 0.1, "text_grounded": 0.1, "self_distillation": 1},
    ),
    "con_clip": ((1e-6, 0.2, 0.999, 1e-8, 50, 200, 5, 0), {"distractor": 1}),
    "fsc_clip": (
        (5e-6, 0.1, 0.98, 1e-6, 50, 256, 5, 3),
        {"contrastive": 1, "image_grounded": 0.5, "dense_grounded": 0.2},
    ),
    "fsc_clip_lora": (
        (5e-5, 0.1, 0.98, 1e-6, 50, 256, 5, 3),
        {"contrastive": 1, "image_grounded": 0.5, "dense_grounded": 0.2},
    ),
    "structure_clip": ((5e-6, 0.1, 0.999, 1e-8, 0, 64, 10, 1), {"hardest_hinge": 1, "own_hinge": 5}),
    "tsvlc": ((5e-6, 0.1, 0.98, 1e-6, 50, 128, 5, 1), {"contrastive": 1, "image_grounded": 1, "text_contrast": 1}),
    "read_clip": ((1e-5, 0.1, 0.999, 1e-8, 50, 256, 1, 3), {"contrastive": 1, "text_contrast": 0.5}),
    "hard_positives": (
        (5e-6, 0.1, 0.98, 1e-6, 50, 128, 5, 1),
        {"contrastive": 1, "image_grounded": 1, "text_contrast": 1},
    ),
    "negbench": ((1e-6, 0.2, 0.98, 1e-6, 50, 256, 5, 0), {"contrastive": 0.99}),
    "cs_clip": ((5e-7, 0.01, 0.98, 1e-6, 0, 128, 5, 1), {"contrastive": 1, "unit_contrast": 0.5}),
    "cs_clip_sg": ((1e-5, 0.1, 0.98, 1e-6, 50, 128, 10, 1), {"contrastive": 1, "own_hinge": 1}),
    "c2lip": ((1e-5, 0.1, 0.98, 1e-6, 50, 768, 5, 0), {"sigmoid_contrastive": 1, "concept_sigmoid": 1}),
    "clic": (
        (1e-6, 0.1, 0.98, 1e-8, 50, 800, 1, 1),
        {
            "contrastive": 0.125,
            "positive_contrast": 0.375,
            "image_grounded": 0.125,
            "positive_grounded": 0.375,
            "text_pull": 1,
        },
    ),
    "macco": ((5e-7, 0.2, 0.98, 1e-6, 50, 256, 5, 0), {"masked_contrast": 1, "masked_text": 20}),
    "labclip": ((1e-3, 0.0, 0.999, 1e-8, 0, 1024, 10, 1), {"contrastive": 1}),
    "triplet_clip": ((1e-6, 0.1, 0.98, 1e-6, 50, 256, 5, 1), {"contrastive": 1, "distractor_contrastive": 1}),
    "gift": ((1e-5, 0.0, 0.999, 1e-8, 100, 64, 1000, 0), {"class_contrast": 1}),
    "tecoa": ((1e-5, 1e-4, 0.999, 1e-8, 1400, 128, 20_000, 0), {"class_contrast": 1}),
    "fare": ((1e-5, 1e-4, 0.999, 1e-8, 1400, 128, 20_000, 0), {"raw_distillation": 1}),
}


def recipe(name: str) -> TrainConfig:
    config: TrainConfig = getattr(RECIPES.load(name), name)()
    return config


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name: str) -> None:
    config = recipe(name)
    settings, weights = PUBLISHED[name]
    optim, loop = config.optim, config.train
    assert (
        optim.lr, optim.weight_decay, optim.beta2, optim.eps, optim.warmup_steps,
        loop.batch_size, loop.steps or loop.epochs, config.data.negatives_per_caption,
    ) == pytest.approx(settings)  # fmt: skip
    assert optim.beta1 == 0.9
    active = {name: term.weight for name, term in config.objective.items() if term.weight > 0}
    assert active == weights


def test_what_the_tables_do_not_hold() -> None:
    degla = recipe("degla")
    # 0.005 as a sum over 256 images, and over 256 captions with four negatives each.
    distillation: Any = degla.objective["self_distillation"]
    assert (distillation.image, distillation.text) == pytest.approx((1.28, 6.4))
    assert (degla.teacher.kind, degla.teacher.decay, degla.teacher.schedule) == ("average", 0.9996, "constant")
    gift = recipe("gift")
    assert {name: term.weight for name, term in gift.replay.objective.items() if term.weight} == {
        "logit_distillation": 1,
        "soft_alignment": 0.25,
    }
    assert (gift.teacher.kind, gift.l2_sp.weight) == ("frozen", 1)
    for name, epsilon, steps in (("tecoa", 1 / 255, 2), ("fare", 2 / 255, 10)):
        attack = recipe(name).attack
        assert (attack.epsilon, attack.steps, attack.step_size) == pytest.approx((epsilon, steps, 1 / 255))
        assert not recipe(name).train.train_text_tower
    negbench = recipe("negbench").replay
    assert {name: term.weight for name, term in negbench.objective.items() if term.weight} == {"image_grounded": 0.01}
    assert negbench.data.negatives_per_caption == 3
    assert (recipe("fsc_clip_lora").adapter.rank, recipe("fsc_clip_lora").adapter.alpha) == (4, 1)
