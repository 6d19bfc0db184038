"""C2LIP (arXiv 2603.25722): SigLIP's loss, and the same between images and the noun phrases of all captions."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import ConceptSigmoid, SigmoidContrastive, losses_by_name
from degla.recipes.clip import clip


def c2lip() -> TrainConfig:
    """The released settings (SamsungLabs/concept_centric_clip 9d02526) without its attention: SigLIP ViT-B/16, all of
    it trained, learning rate 1e-5, weight decay 0.1, batch 768, 5 epochs, 50 steps of warm-up; no negatives.

    Reads the column concepts, which `degla prepare units` fills by grammar; the paper takes the noun phrases of the
    main subjects by its own pipeline, the release by a language model's prompt. A caption without one is its own.

    The loss between phrases and what they look at in an image (weight 0.01, worth about 0.3 points in the paper) is
    --objective.concept-attention.weight, for models whose towers give patches; those of SigLIP do not. The release
    clamps the scale to 100 after the first step, although this model starts above it; here it may stay where it starts.

    Use when: the model is a SigLIP and there is no file of negatives. In the embedded world it gained less composition
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
