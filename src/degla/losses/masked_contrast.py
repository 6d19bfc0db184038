"""Masked contrast: a caption with masked attributes and relations describes its image less well than the caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target, log_partition
from degla.ranges import Factor


@dataclass(frozen=True)
class MaskedContrast(Loss):
    """Match images with captions among masked ones, both texts with their image, and the two texts with each other.

    Formula:  1/2 mean_i -log e^{s<v_i,t_i>} / sum_j (e^{s<v_i,t_j>} + e^{s<v_i,m_j>})
            + 1/2 mean_{x in t, m} -log e^{s<x_i,v_i>} / sum_j e^{s<x_i,v_j>}
            + text (1/2 mean_i -log e^{s<m_i,t_i>} / sum_j e^{s<m_i,t_j>}
                  + 1/2 mean_i -log e^{s<t_i,m_i>} / sum_j e^{s<t_i,m_j>})
              v: images, t: captions, m: captions with masked words, s: `scale`
    Shapes:   see Embeddings; returns a scalar
    Scope:    global - gathers images, captions, masked captions and their mask
    Source:   MACCO, arXiv 2606.13288 (hiker-lw/MACCO 97fbae1), the text half of its two contrasts
    Differs:  MACCO also masks images, which doubles all terms; here images are whole
    Cost:     one encoder pass over the masked captions, minus what they share with the captions
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0 (1 in MACCO)."""
    text: Factor = 0.05
    """Weight of the text-to-text part, >= 0 (0.1 in MACCO for the mean of texts and images)."""
    missing: Literal["left_out", "published"] = "left_out"
    """A caption without masked words has no masked version ("left_out"), or is its own, also as a false candidate
    ("published")."""

    reads = frozenset({"masked"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes."""
        caption, masked, there = student.caption, student.require("masked"), student.require("masked_valid")
        if self.missing == "published":
            masked, there = torch.where(there[:, None], masked, caption), torch.ones_like(there)
        images, captions, twins = map(processes.gather, (student.image, caption, masked))
        twinless = ~processes.gather_constant(there)
        none = torch.zeros_like(twinless)
        place = processes.places(there)
        scale = student.scale
        from_image = log_partition(
            student.image, torch.cat([captions, twins]), scale, absent=torch.cat([none, twinless]), target=place
        )
        from_text = log_partition(torch.cat([caption, masked]), images, scale, target=place.repeat(2))
        from_twin = log_partition(masked, captions, scale, target=place)
        # A row without a twin does not count, but still needs a target if no row has one.
        to_twin = log_partition(caption, twins, scale, absent=lambda part: _others(twinless, place[part]), target=place)
        own = ~none[: len(there)]
        across = processes.mean(from_image) + processes.mean(from_text, torch.cat([own, there]))
        between = processes.mean(from_twin, there) + processes.mean(to_twin, there)
        return (across + self.text * between) / 2


def _others(twinless: Tensor, target: Tensor) -> Tensor:
    """Mask the twins that do not exist, except each row's own."""
    return twinless.expand(len(target), -1).scatter(1, target[:, None], value=False)
