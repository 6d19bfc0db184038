"""What ExCon (arXiv 2111.14271) gives a CLIP: NegCLIP, and the part of each image with the evidence for its caption."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, EvidenceContrast, losses_by_name
from degla.model.teacher import TeacherConfig
from degla.recipes.negclip import negclip


def excon_clip() -> TrainConfig:
    """`negclip` with `evidence_contrast`, by a teacher averaged with decay 0.9996 as in `degla`.

    ExCon itself, on labelled pictures, is `degla system excon`; what it gives a CLIP is this package's own, and its
    numbers are starting points and not chosen. --evidence.by random takes as many patches by chance, at the same cost.

    Use when: captions should be found by the part of the image that they are about. In the embedded world it did not
    differ from `negclip`, nor did its loss show beside those of `degla`; whether evidence is better than a part drawn
    by chance was not asked.
    """
    base = negclip()
    return replace(
        base,
        recipe="excon_clip",
        objective=losses_by_name(
            contrastive=Contrastive(negative_scope="batch"), evidence_contrast=EvidenceContrast(weight=1.0)
        ),
        teacher=TeacherConfig(kind="average", decay=0.9996),
    )
