"""MACCO (arXiv 2606.13288), its text half: words of attributes and relations are masked, and read from the image."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import MaskedContrast, MaskedText, losses_by_name
from degla.recipes.clip import clip


def macco() -> TrainConfig:
    """The released settings (hiker-lw/MACCO 97fbae1) without what masks images, which needs the boxes of a detector:
    contrast with masked captions 1, between texts 0.05 (half of the 0.1 for texts and images), masked words 20;
    learning rate 5e-7 and weight decay 0.2 of the model, 1e-3 and 0.01 of mask token and predictor; no negatives.

    Reads the column masked_words, which `degla prepare units` fills by grammar; the release takes the words of a
    scene-graph parser. The paper has no ablation of this half alone: its nearest row masks images in the contrast.

    Use when: there are no negatives, and the towers give patches and tokens. In the embedded world it gained less
    composition than contrast alone, and forgot more; on photographs it gained none.
    """
    base = clip()
    return replace(
        base,
        recipe="macco",
        objective=losses_by_name(masked_contrast=MaskedContrast(missing="published"), masked_text=MaskedText()),
        optim=replace(base.optim, lr=5e-7, weight_decay=0.2),
    )
