"""C2LIP (arXiv 2603.25722): SigLIP's loss, and the same between images and the noun phrases of all captions."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import ConceptSigmoid, SigmoidContrastive, losses_by_name
from degla.recipes.clip import clip


def c2lip() -> TrainConfig:
    """The released settings (SamsungLabs/concept_centric_clip 9d02526) without the attention loss: SigLIP ViT-B/16,
    fully trained, learning rate 1e-5, weight decay 0.1, batch size 768, 5 epochs, 50 warm-up steps; no negatives.

    Reads the column `concepts`, which `degla prepare units` fills with a grammar; the paper extracts the noun phrases
    of main subjects with its own pipeline, the released code with a language model. A caption without one is its own.

    The loss between phrases and what they attend to in an image (weight 0.01, worth about 0.3 points in the paper) is
    --objective.concept-attention.weight, for models with patch outputs, which SigLIP's towers lack. The released code
    clamps the scale to 100 after the first step, although this model starts above it; here it may stay at its start.

    Use when: the model is a SigLIP and no negatives are available. In the embedded world it gained less composition
    than the sigmoid contrast alone, and on photographs none.
    """
    base = clip()
    return replace(
        base,
        recipe="c2lip",
        model="ViT-B-16-SigLIP:webli",
        objective=losses_by_name(
            sigmoid_contrastive=SigmoidContrastive(negative_scope="none"), concept_sigmoid=ConceptSigmoid()
        ),
        optim=replace(base.optim, lr=1e-5),
        train=replace(base.train, batch_size=768),
    )
