"""PointACL (arXiv 2411.14744) applied to CLIP: NegCLIP on part of each image, without what the teacher attends to."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, ViewContrast, losses_by_name
from degla.model.teacher import TeacherConfig
from degla.model.token_mask import ViewsConfig
from degla.recipes.negclip import negclip


def pointacl_clip() -> TrainConfig:
    """`negclip` in which the student reads 60 % of the patches of each image, with `view_contrast`, weight 0.5, to the
    whole image as embedded by an EMA teacher of decay 0.9996 as in `degla`.

    The original PointACL, on point clouds, is `degla system pointacl`; its use for CLIP is this package's own, and its
    settings are untuned starting points: the paper leaves out 60 % of a cloud. --views.by random costs the same,
    and --views.anneal-steps begins with it.

    Use when: the image tower takes too much of a step's time. Attention masks were no better than random ones, on point
    clouds and in the embedded world, where `view_contrast` without a mask (--views.left-out 0) kept the most
    recognition at equal composition, and leaving out six of 16 patches did harm.
    """
    base = negclip()
    return replace(
        base,
        recipe="pointacl_clip",
        objective=losses_by_name(
            contrastive=Contrastive(negative_scope="batch"), view_contrast=ViewContrast(weight=0.5)
        ),
        teacher=TeacherConfig(kind="average", decay=0.9996),
        views=ViewsConfig(left_out=0.4, by="attention"),
    )
