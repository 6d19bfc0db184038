"""What UGCL (arXiv 2210.08792) gives a CLIP: NegCLIP, and images found by captions smoothed over captions like them."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import ContextualContrast, Contrastive, losses_by_name
from degla.model.teacher import TeacherConfig
from degla.recipes.negclip import negclip


def ugcl_clip() -> TrainConfig:
    """`negclip` with `contextual_contrast` 0.5 of one hop, by a teacher averaged with decay 0.9996 as in `degla`.

    UGCL itself, on graphs, is `degla system ugcl`; what it gives a CLIP is this package's own, and its numbers are
    starting points and not chosen. An edge joins captions that the teacher finds more alike than either and its own
    negatives: for a teacher that hardly knows word order, captions that say the same.

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
