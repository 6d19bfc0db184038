"""A loss of your own: a frozen dataclass with its settings as fields and one method. It needs no change to the package.

To make it a loss of every recipe and a flag of `degla train`, put the class into `src/degla/losses/my_margin.py`.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from degla.losses import Contrastive, Embeddings, Loss, Objective, Target
from degla.losses.core import Processes


@dataclass(frozen=True)
class MyMargin(Loss):
    """Push each negative below its caption by a margin of cosine similarity, as seen from the image.

    Formula: mean over valid negatives of relu(margin + <v, n> - <v, t>).
    """

    weight: float = 1.0
    margin: float = 0.2

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> torch.Tensor:
        right = (student.image * student.caption).sum(-1, keepdim=True)
        wrong = torch.einsum("bd,bkd->bk", student.image, student.negative)
        return processes.mean(torch.relu(self.margin + wrong - right), student.valid)


image, caption, negative = torch.randn(8, 16), torch.randn(8, 16), torch.randn(8, 3, 16)
alone = MyMargin(margin=0.5)(image=image, caption=caption, negative=negative, scale=1.0)

v, t, n = normalize(image, dim=-1), normalize(caption, dim=-1), normalize(negative, dim=-1)
by_hand = torch.relu(0.5 + (v[:, None] * n).sum(-1) - (v * t).sum(-1, keepdim=True)).mean()
torch.testing.assert_close(alone, by_hand)

objective = Objective({"contrastive": Contrastive(), "my_margin": MyMargin(weight=2.0)})
total, values = objective(image=image, caption=caption, negative=negative, scale=10.0)
print(f"alone {alone:.4f}, in a sum {total:.4f}:", {name: round(value.item(), 4) for name, value in values.items()})
