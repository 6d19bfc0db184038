"""`Teacher`: a copy of the student without gradients, frozen or averaged after each step, always in float32."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from degla.inputs import TowerInput
from degla.model.encoder import Encoder
from degla.model.evidence import patch_evidence
from degla.model.token_mask import significance
from degla.prefixes import PrefixTree
from degla.ranges import Checked, Share


@dataclass(frozen=True)
class TeacherConfig(Checked, section="teacher"):
    """How the teacher follows the student."""

    kind: Literal["average", "frozen"] = "average"
    """The teacher: an exponential moving average (EMA) of the student, or the initial student; "average" or
    "frozen"."""
    decay: Share = 0.9996
    """Share of the OLD teacher kept per step, 0 to 1 (0.9996 in arXiv 2504.16801, for about 8,000 steps)."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Schedule of the decay: constant, or rising from `decay` to 1 at the last step along half a cosine; "constant" or
    "cosine"."""

    def decay_at(self, step: int, *, steps: int) -> float:
        """Return the decay of the update after step `step` (from 0) of a run of `steps` steps."""
        if self.kind == "frozen":
            return 1.0
        if self.schedule == "constant":
            return self.decay
        progress = min(step / max(steps - 1, 1), 1.0)
        return 1.0 - (1.0 - self.decay) * (1.0 + math.cos(math.pi * progress)) / 2


class Teacher(nn.Module):
    """A copy of the student that follows an averaging rule; frozen parameters are shared, not copied.

    Updates match parameters by name over exactly equal sets of names, after the optimiser's step and the clamping of
    the scale; buffers are copied. Parameters stay in float32, in which rounding loses increments below about 6e-8 of a
    parameter, and are updated in place, so that references to them stay valid.

    Args:
        student: the encoder to copy; it is not changed.
        config: the averaging rule.
    """

    def __init__(self, student: Encoder, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        # Frozen parameters never differ from the student's and share their memory.
        shared = {id(value): value for value in student.parameters() if not value.requires_grad}
        self.encoder = copy.deepcopy(student, memo=shared).float()
        self.encoder.requires_grad_(False)
        self.encoder.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode whatever `mode` is: a teacher has no training mode."""
        return super().train(False)

    @torch.no_grad()
    def encode(
        self,
        images: TowerInput | None,
        texts: Int[Tensor, "texts length"] | PrefixTree | None,
    ) -> tuple[Float[Tensor, "batch dim"] | None, Float[Tensor, "texts dim"] | None]:
        """Return unit-length embeddings of the given inputs, without gradients."""
        return (
            None if images is None else self.encoder.encode_images(images),
            None if texts is None else self.encoder.encode_captions(texts),
        )

    @torch.no_grad()
    def encode_raw_images(self, images: TowerInput) -> Float[Tensor, "batch dim"]:
        """Return embeddings of images before normalisation, without gradients."""
        rows: Tensor | None = self.encoder.embed(images, None, raw=True).raw_image
        assert rows is not None
        return rows

    @torch.no_grad()
    def patch_significance(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch patches"]]:
        """Return embeddings of images before normalisation and the significance of each patch, in one pass.

        The image tower must be read at its class token.
        """
        scores: list[Tensor] = []

        def see(row: Tensor, values: Tensor) -> Tensor:
            scores.append(significance(row[:, :, 1:].float(), values[:, :, 1:].float()))
            return row

        raw = self.encoder.see_class_token(images, see)
        return raw.float(), scores[0]

    @torch.no_grad()
    def evidence(
        self, images: Float[Tensor, "batch 3 height width"], captions: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch patches"]:
        """Return how much each patch adds to the similarity of an image and its caption (`attention_evidence`).

        Args:
            images: transformed.
            captions: the teacher's unit-length embeddings of their captions.
        """
        return patch_evidence(self.encoder.see_class_token, images, captions)

    @torch.no_grad()
    def update(self, student: Encoder, *, decay: float) -> None:
        """Move every parameter to ``decay * teacher + (1 - decay) * student`` and copy the buffers.

        Args:
            student: the encoder itself, not a wrapper around it.
            decay: share of the old teacher to keep; 1 leaves it unchanged.

        Raises:
            ValueError: student and teacher differ in their parameters, buffers or shapes.
        """
        if self.config.kind == "frozen":
            return
        mine, yours = self._matched(self.encoder.clip.named_parameters(), student.clip.named_parameters())
        moving = [number for number, own in enumerate(mine) if own is not yours[number]]
        if moving:
            torch._foreach_lerp_([mine[n] for n in moving], [yours[n] for n in moving], 1.0 - decay)
        mine, yours = self._matched(self.encoder.clip.named_buffers(), student.clip.named_buffers())
        for own, other in zip(mine, yours, strict=True):
            own.copy_(other)

    @staticmethod
    def _matched(
        own: Iterable[tuple[str, Tensor]], other: Iterable[tuple[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        mine, yours = dict(own), dict(other)
        if mine.keys() != yours.keys():
            odd = sorted(mine.keys() ^ yours.keys())[:3]
            raise ValueError(f"student and teacher differ in their parameters, for example {', '.join(odd)}")
        for name, value in mine.items():
            if value.shape != yours[name].shape:
                raise ValueError(f"student and teacher differ in the shape of {name}")
        # Each process updates its own slice of sharded parameters.
        pairs = ((_local(value), _local(yours[name])) for name, value in mine.items())
        matched = [(own, other.to(own.dtype)) for own, other in pairs]
        return [own for own, _ in matched], [other for _, other in matched]


def _local(value: Tensor) -> Tensor:
    return cast(Tensor, value.to_local()) if hasattr(value, "to_local") else value
