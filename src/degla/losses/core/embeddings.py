"""Embeddings of a batch by student and teacher: what every loss reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from degla.inputs import INPUTS

TeacherPart = Literal["image", "caption", "negative", "raw_image"]
"""A part of the teacher's embeddings."""


@dataclass(frozen=True)
class Embeddings:
    """Unit-length rows in float32. `negative[b, k]` belongs to `caption[b]`; no other layout exists in this package.

    What stands where a mask is False is zeros, without gradient, whatever was given there.

    Attributes:
        image: image embeddings of this process's pairs.
        caption: caption embeddings, one for each image.
        negative: embeddings of the K negatives of each caption.
        valid: which negatives exist.
        scale: 1 over the temperature, already exponentiated; carries the gradient of the learnt temperature.
        group: equal exactly where two rows show the same image.
        rule: number of the rule that made a negative, -1 where there is none.
        extra: the optional inputs that some active loss reads, by their names in `degla.inputs.LossTensors`.
    """

    image: Float[Tensor, "batch dim"]
    caption: Float[Tensor, "batch dim"]
    negative: Float[Tensor, "batch negatives dim"]
    valid: Bool[Tensor, "batch negatives"]
    scale: Float[Tensor, ""]
    group: Int[Tensor, " batch"]
    rule: Int[Tensor, "batch negatives"]
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Embeddings:
        """From all inputs by name."""
        own = {entry.name for entry in fields(cls)}
        always: dict[str, Any] = {name: value for name, value in tensors.items() if name in own}
        return cls(**always, extra={name: value for name, value in tensors.items() if name not in own})

    def __post_init__(self) -> None:
        extra = dict(self.extra)
        if "negative_token_valid" in extra:
            extra["negative_token_valid"] = extra["negative_token_valid"] & self.valid[..., None]
        object.__setattr__(self, "extra", extra)
        # A masked logit still passes 0 times its input back, which is not 0 where the input is not finite.
        object.__setattr__(self, "negative", self.negative.masked_fill(~self.valid[..., None], 0.0))
        for name in extra:
            if mask := INPUTS[name].mask:
                extra[name] = extra[name].masked_fill(~extra[mask][..., None], 0.0)

    def tensors(self) -> dict[str, Tensor]:
        """All inputs by name, as `of` takes them."""
        return {name: value for name, value in vars(self).items() if name != "extra"} | dict(self.extra)

    def require(self, name: str) -> Tensor:
        """One of the optional inputs; a missing one is a mistake of the caller and raises LookupError."""
        if name not in self.extra:
            raise LookupError(f"the batch was not asked for {name}; add {INPUTS[name].part!r} to `reads`")
        return self.extra[name]


@dataclass(frozen=True)
class Target:
    """What the teacher says about the same batch, without gradient; only the parts that some loss needs are there."""

    image: Float[Tensor, "batch dim"] | None = None
    caption: Float[Tensor, "batch dim"] | None = None
    negative: Float[Tensor, "batch negatives dim"] | None = None
    raw_image: Float[Tensor, "batch dim"] | None = None

    def require(self, part: TeacherPart) -> Float[Tensor, "*shape"]:
        """Return one part, cut off from any graph; a missing one is a mistake of the caller and raises LookupError."""
        value: Tensor | None = getattr(self, part)
        if value is None:
            raise LookupError(f"the teacher was not asked for its {part} embeddings; add it to `needs`")
        return value.detach()
