"""NegBench's tuning (arXiv 2501.09425): captions that name what is absent, and multiple choice in a second stream."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import ReplayConfig, ReplayDataConfig, TrainConfig
from degla.losses import Contrastive, ImageGrounded, losses_by_name
from degla.recipes.clip import clip


def negbench() -> TrainConfig:
    """Two streams a step: CLIP's contrast with factor 0.99 on captions that name present and absent things, and with
    factor 0.01 the choice of one true text among three false ones (m1k2zoo/negbench 2ac009b).

    `degla prepare presence` makes both streams from captions: --data.captions FOLDER/captions.jsonl,
    --replay.data.captions FOLDER/choice.jsonl and --replay.data.negatives FOLDER/choice-negatives.jsonl. The paper's 30
    and 40 million texts of CC12M were paraphrased by a language model.

    AdamW (0.9, 0.98, 1e-6) with weight decay 0.2 and cosine are the released parser's. Its names of checkpoints say a
    learning rate of 1e-8, with which hardly anything moves: 1e-6 here, --optim.lr 1e-8 there. Warm-up is 50 steps (its
    parser: 10,000), batch 256 of each stream (its parser: 64 a process); epochs were not published. The release uses
    35 % of the batches of an epoch (--train.steps), and writes the word "None" where nothing is named, where here is no
    row.

    Use when: denials in captions and questions are to be understood. In the embedded world, asked about other
    things, it gained less composition than contrast alone; on photographs nothing, on questions of negation neither.
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
