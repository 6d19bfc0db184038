"""Hard positives (arXiv 2409.17958): TSVLC's losses with small true rewrites of the captions as positives."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.model.adapters import AdapterConfig
from degla.recipes.tsvlc import tsvlc


def hard_positives() -> TrainConfig:
    """One hard negative and one hard positive per caption, with NegCLIP's contrast, own negatives and both contrasts of
    the positives, each with weight 1.

    The authors released data and checkpoints but no training code (amitakamath/hard_positives 33addaa). The losses are
    TSVLC's, as the paper says; the checkpoints are full open_clip models without adapters; learning rate, batch size
    and epochs are unpublished and TSVLC's here, weight decay and warm-up are those of `clip`. The released checkpoints
    load as ViT-B-32, so they compute GELU with weights that were trained with QuickGELU.

    Reads the column `positives`: rewrites that change as little as a hard negative but stay true: the words around
    "and" swapped, or a word, verb or preposition replaced by a synonym. Ordinary paraphrases did not help in the paper.
    --data.negatives-share sets how many captions use their negative, as the paper varies it.

    Use when: a model rejects true captions because hard negatives taught it to reject every small change. On
    photographs it gained about as much composition as `structure_clip` and lost more recognition and retrieval; in the
    embedded world its joint score did not differ significantly from that of `negclip`.
    """
    base = tsvlc()
    return replace(base, recipe="hard_positives", adapter=AdapterConfig(), train=replace(base.train, train_scale=True))
