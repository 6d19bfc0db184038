"""ExCon (arXiv 2111.14271) applied to CLIP: NegCLIP, and the part of each image with the evidence for its caption."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, EvidenceContrast, losses_by_name
from degla.model.teacher import TeacherConfig
from degla.recipes.negclip import negclip


def excon_clip() -> TrainConfig:
    """`negclip` with `evidence_contrast`, with an EMA teacher of decay 0.9996 as in `degla`.

    The original ExCon, on labelled images, is `degla system excon`; its use for CLIP is this package's own, and its
    settings are untuned starting points. --evidence.by random takes as many random patches, at the same cost.

    Use when: captions should match the part of the image that they describe. In the embedded world it did not differ
    from `negclip`, nor did its loss have an effect in addition to those of `degla`; evidence was not compared with
    random parts.
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
