"""Cross-modal ranking of CE-CLIP: a caption must beat each of its negatives by a margin that adapts to each rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from degla.errors import InputError
from degla.losses.core import Embeddings, LossValue, Processes, StatefulLoss, Target
from degla.ranges import Factor


@dataclass(frozen=True)
class CrossModalRank(StatefulLoss):
    """Push each negative's similarity to the image below its caption's, by the gap measured in the previous step.

    Formula:  mean_{i,k} relu(theta_r(i,k) + s<v_i,n_ik> - s<v_i,t_i>)
              next theta_r = clamp(mean_i s<v_i,t_i> - mean_{(i,k) of rule r} s<v_i,n_ik>, 0, upper), no gradient
              v: images, t: captions, n: valid negatives, s: `scale`, r: rule that made the negative; theta starts at 0
              `threshold` "max": next theta_r = clamp(max_{(i,k) of rule r} (s<v_i,t_i> - s<v_i,n_ik>) / 5, 0, upper);
              "fixed": theta = upper
    Shapes:   see Embeddings; the memory is [rules]; returns a scalar, the mean over valid negatives
    Scope:    local - each image is compared only with its caption and that caption's negatives; thresholds are shared
    Source:   CE-CLIP, arXiv 2306.08832, cross-modal rank with adaptive threshold
    Differs:  the released code recognises missing negatives by a logit of exactly 0, divides 0 by 0 where a type has
              none (CE-4 in docs/decisions), and resets the thresholds at each epoch and on resuming (CE-7). Here
              missing negatives are masked, a rule without a negative in the batch keeps its threshold, and the memory
              is part of the checkpoint. `reduction="all"` divides by all B K places, as published (CE-6).
    Cost:     none beyond the shared encoder pass
    """

    weight: Factor = 0.4
    """Weight of the loss, >= 0 (0.4 in DeGLA's reproduction of CE-CLIP, 0.2 in CE-CLIP's script)."""
    upper: Factor = 10.0
    """Largest threshold, in logits, >= 0 (10 in CE-CLIP's script)."""
    threshold: Literal["mean", "max", "fixed"] = "mean"
    """Threshold of the next step: the "mean" gap (CE-CLIP), a fifth of the largest gap ("max"), or "fixed" at `upper`;
    the last two are CE-CLIP's alternatives."""
    reduction: Literal["valid", "all"] = "valid"
    """Mean over valid negatives, or over all B K places as published; "valid" or "all"."""

    of_negatives = True

    def start(self, rules: int) -> Tensor:
        """Return the thresholds before the first step: 0 for each rule, `upper` if they are fixed."""
        first = self.upper if self.threshold == "fixed" else 0.0
        return torch.full((max(rules, 1),), first, dtype=torch.float32)

    def value(
        self, student: Embeddings, teacher: Target, processes: Processes, memory: Tensor
    ) -> tuple[LossValue, Tensor]:
        """Return the loss under the current thresholds, and the thresholds for the next step."""
        memory = memory.to(student.image.device)
        positive = student.scale * (student.image * student.caption).sum(-1)
        negative = student.scale * torch.einsum("bd,bkd->bk", student.image, student.negative)
        rule = student.rule.clamp(min=0)
        try:
            threshold = memory[rule]
        except IndexError:
            raise InputError(
                f"CrossModalRank: a rule has number {int(rule.max())}, but the memory is for {len(memory)}. Give the "
                "number of rules: start(rules=5), or Objective(losses, rules=5)."
            ) from None
        hinge = torch.relu(threshold + negative - positive[:, None])
        if self.reduction == "all":
            hinge = torch.where(student.valid, hinge, torch.zeros_like(hinge))
            loss = processes.mean(hinge)
        else:
            loss = processes.mean(hinge, student.valid)
        return loss, self._next(positive.detach(), negative.detach(), student, processes, memory)

    def _next(
        self, positive: Tensor, negative: Tensor, student: Embeddings, processes: Processes, memory: Tensor
    ) -> Tensor:
        if self.threshold == "fixed":
            return memory
        # Indexing with a mask would make the host wait for the device; the mask is used as a factor of 0 or 1 instead.
        valid = student.valid.flatten()
        rule = student.rule.clamp(min=0).flatten()
        if self.threshold == "max":  # A fifth of each rule's largest gap over all processes; -inf: it has no negative.
            gaps = (positive[:, None] - negative).flatten().masked_fill(~valid, -torch.inf)
            largest = torch.full_like(memory, -torch.inf).scatter_reduce(0, rule, gaps.to(memory.dtype), "amax")
            largest = processes.gather_constant(largest[None]).amax(dim=0)
            return torch.where(largest.isfinite(), (largest / 5).clamp(0, self.upper), memory)
        # "mean": the mean over all captions minus that over each rule's negatives, in all processes.
        terms = torch.where(valid, negative.flatten(), torch.zeros_like(negative).flatten())
        sums = torch.zeros_like(memory).index_add_(0, rule, terms.to(memory.dtype))
        counts = torch.zeros_like(memory).index_add_(0, rule, valid.to(memory.dtype))
        captions = torch.stack([positive.sum(), torch.full_like(positive.sum(), len(positive))])
        sums, counts, (caption_sum, caption_count) = (processes.total(value) for value in (sums, counts, captions))
        gap = caption_sum / caption_count - sums / counts.clamp(min=1)
        return torch.where(counts > 0, gap.clamp(0, self.upper), memory)
