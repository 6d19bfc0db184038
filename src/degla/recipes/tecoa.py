"""TeCoA (ICLR 2023): attacked images find the text of their class, so that recognition resists small attacks."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.config.sections import DataConfig, LoopConfig, OptimConfig
from degla.losses import ClassContrast, losses_by_name
from degla.model.attack import AttackConfig
from degla.recipes.clip import clip


def tecoa() -> TrainConfig:
    """TeCoA's objective, prompt and attack (arXiv 2212.07016): cross-entropy over the classes' texts, image tower only,
    2 steps of 1/255 within 1/255 from a random start.

    Reads the column `label` and `data.classes`. TeCoA trains with SGD of momentum 0.9 (batch size 256, 10 epochs of
    ImageNet), which is not available here; optimiser, schedule and length are those of its reimplementation for FARE
    (arXiv 2402.12336): AdamW (0.9, 0.999, 1e-8), learning rate 1e-5, weight decay 1e-4, 1,400 warm-up steps, cosine,
    20,000 steps of batch size 128, float32. The scale stays that of the model, which for OpenAI's models is the 100 of
    both. Differs from both in random crops of at least 0.9 of the area (a centre crop in TeCoA), and from the
    reimplementation in the weight decay of vectors and biases, which is 0 here.

    Use when: recognition must resist attacks, and each image has a class label.
    """
    return replace(
        clip(),
        recipe="tecoa",
        data=DataConfig(negatives_per_caption=0, class_template="This is a photo of a {}"),
        objective=losses_by_name(class_contrast=ClassContrast(weight=1.0, smoothing=0.0)),
        attack=AttackConfig(epsilon=1 / 255, steps=2, step_size=1 / 255, momentum=0.0, random_start=True),
        optim=OptimConfig(lr=1e-5, weight_decay=1e-4, beta2=0.999, eps=1e-8, warmup_steps=1400),
        train=LoopConfig(batch_size=128, steps=20_000, precision="fp32", train_text_tower=False, train_scale=False),
    )
