"""NegBench tuning (arXiv 2501.09425): captions that name what is absent, and multiple choice in a second stream."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import ReplayConfig, ReplayDataConfig, TrainConfig
from degla.losses import Contrastive, ImageGrounded, losses_by_name
from degla.recipes.clip import clip


def negbench() -> TrainConfig:
    """Two streams per step: CLIP's contrast with weight 0.99 on captions that name present and absent objects, and with
    weight 0.01 the choice of one true text among three false ones (m1k2zoo/negbench 2ac009b).

    `degla prepare presence` makes both streams from captions: --data.captions FOLDER/captions.jsonl,
    --replay.data.captions FOLDER/choice.jsonl and --replay.data.negatives FOLDER/choice-negatives.jsonl. The paper's 30
    and 40 million texts of CC12M were paraphrased by a language model.

    AdamW (0.9, 0.98, 1e-6) with weight decay 0.2 and cosine are the released parser's defaults. Its checkpoint names
    say a learning rate of 1e-8, which changes almost nothing: 1e-6 here, --optim.lr 1e-8 there. Warm-up is 50 steps
    (parser: 10,000), batch size 256 per stream (parser: 64 per process); the number of epochs is unpublished. The
    released code uses 35 % of the batches of an epoch (--train.steps), and writes the word "None" where nothing is
    named; here there is no such row.

    Use when: the model should understand negation in captions and questions. In the embedded world, on other questions,
    it gained less composition than contrast alone; on photographs it gained nothing, not even on negation.
    """
    base = clip()
    return replace(
        base,
        recipe="negbench",
        objective=losses_by_name(contrastive=Contrastive(weight=0.99, negative_scope="none")),
        replay=ReplayConfig(
            data=ReplayDataConfig(negatives_per_caption=3),
            objective=losses_by_name(image_grounded=ImageGrounded(weight=0.01)),
        ),
        optim=replace(base.optim, weight_decay=0.2),
    )
