"""FARE (ICML 2024): attacked images keep the embeddings that the model before fine-tuning gives the clean ones."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import RawDistillation, losses_by_name
from degla.model.attack import AttackConfig
from degla.model.teacher import TeacherConfig
from degla.recipes.tecoa import tecoa


def fare() -> TrainConfig:
    """The settings of FARE within 2/255 (arXiv 2402.12336): squared distance of unnormalised embeddings to those of the
    frozen model, image tower only; 10 steps of 1/255 with momentum 0.9 from a random start.

    Reads neither labels nor texts, and embeds no text; the captions file only names the images. AdamW (0.9, 0.999,
    1e-8), learning rate 1e-5, weight decay 1e-4, 1,400 warm-up steps, cosine, 20,000 steps of batch size 128, float32.
    The paper's model is ViT-L/14, and its crops are not random; the weight decay of vectors and biases is 0 here. The
    released code (chs20/RobustVLM 7de10ee) sets the rate after each step, so its first update has the full rate, and
    uses the random start once before clamping it to the range of pixels; neither happens here.

    Use when: recognition must resist attacks, and the images have neither labels nor texts.
    """
    base = tecoa()
    return replace(
        base,
        recipe="fare",
        objective=losses_by_name(raw_distillation=RawDistillation(weight=1.0)),
        teacher=TeacherConfig(kind="frozen"),
        attack=AttackConfig(epsilon=2 / 255, steps=10, step_size=1 / 255, momentum=0.9, random_start=True),
    )
