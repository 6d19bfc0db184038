"""Hinge on the hardest of the batch: a pair must beat the most similar wrong caption and image by a fixed margin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from degla.losses.core import Embeddings, LossValue, Processes, StatefulLoss, Target
from degla.ranges import CosineMargin, Count, Factor


@dataclass(frozen=True)
class HardestHinge(StatefulLoss):
    """Push the most similar wrong caption of an image, and the most similar wrong image of a caption, below the pair.

    Formula:  mean_i relu(margin + max_{j!=i} <v_i,t_j> - <v_i,t_i>) + relu(margin + max_{j!=i} <t_i,v_j> - <v_i,t_i>)
              in the first `mean_steps` steps the second maximum is the mean over all j, i included
              v: images, t: captions of the global batch
    Shapes:   see Embeddings; cosines, without the scale; the memory counts steps; returns a scalar, the mean over pairs
    Scope:    global - gathers images and captions
    Source:   Structure-CLIP, arXiv 2305.06152; the hardest instead of the sum comes from VSE++, arXiv 1707.05612
    Differs:  the released code adds a knowledge encoder's output to the captions of this loss only, encodes the images
              twice, and counts the first steps again at each start of the program; here the checkpoint has the count
    Cost:     none beyond the shared encoder pass
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0 (1 in arXiv 2305.06152)."""
    margin: CosineMargin = 0.2
    """Margin between the cosines, 0 to 2 (0.2 in arXiv 2305.06152)."""
    mean_steps: Count = 100
    """First steps, in which a caption is compared with the mean over all images, >= 0 (100 in the released code)."""
    mask_same_image: bool = False
    """Leave out other pairs of the same image, which are not negatives; true or false."""

    scaled = False

    def start(self, rules: int) -> Tensor:
        """Return the step count before the first step: 0."""
        return torch.zeros(1, dtype=torch.float32)

    def value(
        self, student: Embeddings, teacher: Target, processes: Processes, memory: Tensor
    ) -> tuple[LossValue, Tensor]:
        """Return the loss at the step that the memory counts, and the count for the next step."""
        images, captions = processes.gather(student.image), processes.gather(student.caption)
        positive = (student.image * student.caption).sum(-1)
        wrong = self._wrong(student, processes, columns=len(images))
        to_captions = student.image @ captions.T
        to_images = student.caption @ images.T
        from_image = torch.relu(self.margin + _largest(to_captions, wrong) - positive)
        # Decided on the device: reading the count on the host would wait.
        memory = memory.to(to_images.device)
        early = memory[:1] < self.mean_steps
        second = torch.where(early, to_images.mean(dim=1), _largest(to_images, wrong))
        loss = processes.mean(from_image + torch.relu(self.margin + second - positive))
        return loss, memory + 1

    def _wrong(self, student: Embeddings, processes: Processes, *, columns: int) -> Bool[Tensor, "batch all"]:
        """Return which pairs of the global batch do not match a row."""
        own = processes.places(student.image)[:, None]
        wrong = torch.ones(len(own), columns, dtype=torch.bool, device=own.device).scatter_(1, own, value=False)
        if self.mask_same_image:
            wrong &= student.group[:, None] != processes.gather_constant(student.group)[None, :]
        return wrong


def _largest(similarities: Tensor, wrong: Tensor) -> Tensor:
    """Return each row's largest similarity among the wrong ones; -1, the lowest cosine, where there is none."""
    largest = similarities.masked_fill(~wrong, -torch.inf).amax(dim=1)
    return torch.where(wrong.any(dim=1), largest, torch.full_like(largest, -1.0))
