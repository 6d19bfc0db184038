"""UGCL (arXiv 2210.08792) applied to CLIP: NegCLIP, and images found by captions smoothed over similar captions."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import ContextualContrast, Contrastive, losses_by_name
from degla.model.teacher import TeacherConfig
from degla.recipes.negclip import negclip


def ugcl_clip() -> TrainConfig:
    """`negclip` with `contextual_contrast`, weight 0.5 and one hop, with an EMA teacher of decay 0.9996 as in `degla`.

    The original UGCL, on graphs, is `degla system ugcl`; its use for CLIP is this package's own, and its settings are
    untuned starting points. An edge joins captions that the teacher finds more similar to each other than to each
    other's negatives: for a teacher with little sense of word order, captions that say the same.

    Use when: many captions of a batch say nearly the same, so that contrast pushes true pairs apart. In the embedded
    world it gained nothing over `negclip` at a weight of 0.1, chosen on validation scenes.
    """
    base = negclip()
    return replace(
        base,
        recipe="ugcl_clip",
        objective=losses_by_name(
            contrastive=Contrastive(negative_scope="batch"), contextual_contrast=ContextualContrast(weight=0.5)
        ),
        teacher=TeacherConfig(kind="average", decay=0.9996),
    )
