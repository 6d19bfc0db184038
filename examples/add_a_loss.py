"""Two custom losses, one of them with its own input. They need no change to the package.

A loss is a frozen dataclass with its settings as fields and one method. To use it in every recipe and as a flag of
`degla train`, put the class into `mine/losses/my_margin.py` and set `DEGLA_PARTS=mine` (docs/losses.md, "Parts of your own").
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from degla.inputs import Input
from degla.losses import Contrastive, Embeddings, Loss, Objective, Target
from degla.losses.core import Processes


@dataclass(frozen=True)
class MyMargin(Loss):
    """Push each negative at least a margin below its caption in cosine similarity to the image.

    Formula: mean over valid negatives of relu(margin + <v, n> - <v, t>).
    """

    weight: float = 1.0
    margin: float = 0.2
    scaled = False  # Cosines, without the logit scale.

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> torch.Tensor:
        right = (student.image * student.caption).sum(-1, keepdim=True)
        wrong = torch.einsum("bd,bkd->bk", student.image, student.negative)
        return processes.mean(torch.relu(self.margin + wrong - right), student.valid)


@dataclass(frozen=True)
class MyParaphrase(Loss):
    """Pull each paraphrase towards its caption: mean over valid pairs of 1 - <t, p>."""

    weight: float = 1.0
    scaled = False
    # A second text per pair, encoded by the text tower. In training it comes from the captions' column "paraphrase", and
    # pairs without one are masked. A number per pair would be Input("B", "value", column="...").
    inputs = {"paraphrase": Input("BD", "text", column="paraphrase", mask="paraphrase_valid")}  # noqa: RUF012

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> torch.Tensor:
        near = (student.caption * student.require("paraphrase")).sum(-1)
        return processes.mean(1 - near, student.require("paraphrase_valid"))


image, caption, negative = torch.randn(8, 16), torch.randn(8, 16), torch.randn(8, 3, 16)
alone = MyMargin(margin=0.5)(image=image, caption=caption, negative=negative)

v, t, n = normalize(image, dim=-1), normalize(caption, dim=-1), normalize(negative, dim=-1)
by_hand = torch.relu(0.5 + (v[:, None] * n).sum(-1) - (v * t).sum(-1, keepdim=True)).mean()
torch.testing.assert_close(alone, by_hand)

losses = {"contrastive": Contrastive(), "my_margin": MyMargin(weight=2.0), "my_paraphrase": MyParaphrase()}
total, values = Objective(losses)(image=image, caption=caption, negative=negative, paraphrase=2 * caption, scale=10.0)
assert abs(values["my_paraphrase"]) < 1e-6, "a paraphrase equal to its caption has zero loss"
print(f"alone {alone:.4f}, in a sum {total:.4f}:", {name: round(value.item(), 4) for name, value in values.items()})
