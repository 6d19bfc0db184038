"""GIFT (arXiv 2503.04229): one task of a sequence, with replay of generated pairs and adaptive consolidation."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import ReplayConfig, TrainConfig
from degla.config.sections import L2SPConfig
from degla.losses import ClassContrast, LogitDistillation, SoftAlignment, losses_by_name
from degla.model.teacher import TeacherConfig
from degla.recipes.clip import clip


def gift() -> TrainConfig:
    """The paper's and the released code's settings for one task; `degla continual` trains one task after another.

    Paper and code: images of the task against the texts of its classes with label smoothing 0.2; as many generated
    pairs as task images, with distillation in both directions at temperature 2 (weight 1) and alignment with label
    smoothing 0.2 (weight 0.25); consolidation with weight 1; 1,000 steps of batch size 64; learning rate 1e-5 (5e-5 for
    Aircraft and MNIST), weight decay 0; the teacher is the model before the task. Only in the code: beta2 0.999, 100
    warm-up steps and then half a cosine, frozen scale, float32.

    Reads the column `label` and --data.classes of the task, and generated pairs (--replay.data.captions and
    --replay.data.images), which `degla draw` makes: 1,000 in the paper, from a text-to-image model with prompts
    "a photo of a {}." for classes of ImageNet and of the previous tasks. The model is ViT-B/16; epsilon 1e-8 is
    AdamW's default, and crops are those of all recipes here.

    Use when: tasks with labelled images are learnt one after another (`degla continual`), and generated pairs are
    available. In the embedded world it forgot less than plain fine-tuning.
    """
    base = clip()
    return replace(
        base,
        recipe="gift",
        model="ViT-B-16-quickgelu:openai",
        objective=losses_by_name(class_contrast=ClassContrast(weight=1.0, smoothing=0.2)),
        replay=ReplayConfig(
            batch_size=64,
            objective=losses_by_name(
                logit_distillation=LogitDistillation(weight=1.0, temperature=2.0),
                soft_alignment=SoftAlignment(weight=0.25, smoothing=0.2),
            ),
        ),
        l2_sp=L2SPConfig(weight=1.0, importance="adaptive"),
        teacher=TeacherConfig(kind="frozen"),
        optim=replace(base.optim, lr=1e-5, weight_decay=0.0, beta2=0.999, eps=1e-8, warmup_steps=100),
        train=replace(base.train, batch_size=64, steps=1000, precision="fp32", train_scale=False),
    )
