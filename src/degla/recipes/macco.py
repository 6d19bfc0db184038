"""MACCO (arXiv 2606.13288), its text half: attribute and relation words are masked and predicted from the image."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import MaskedContrast, MaskedText, losses_by_name
from degla.recipes.clip import clip


def macco() -> TrainConfig:
    """The released settings (hiker-lw/MACCO 97fbae1) without image masking, which needs the boxes of a detector: weight
    1 for contrast with masked captions, 0.05 between texts (half of the 0.1 for texts and images), 20 for masked words;
    learning rate 5e-7 and weight decay 0.2 for the model, 1e-3 and 0.01 for mask token and predictor; no negatives.

    Reads the column `masked_words`, which `degla prepare units` fills with a grammar; the released code uses a
    scene-graph parser. The paper has no ablation of this half alone; its closest row masks images in the contrast.

    Use when: no negatives are available, and the towers give patch and token outputs. In the embedded world it gained
    less composition than contrast alone, and forgot more; on photographs it gained none.
    """
    base = clip()
    return replace(
        base,
        recipe="macco",
        objective=losses_by_name(masked_contrast=MaskedContrast(missing="published"), masked_text=MaskedText()),
        optim=replace(base.optim, lr=5e-7, weight_decay=0.2),
    )
