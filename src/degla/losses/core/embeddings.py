"""Embeddings of a batch by student and teacher: what every loss reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

TeacherPart = Literal["image", "caption", "negative", "raw_image"]
"""A part of the teacher's embeddings."""

Extra = Literal["partner", "positive", "tokens", "classes", "text_group", "raw_image"]
"""A part of the student's embeddings that is there only where a loss asks for it (`reads`)."""

EXTRA_FIELDS: dict[Extra, tuple[str, ...]] = {
    "partner": ("partner_image", "partner_caption", "partner_valid"),
    "positive": ("positive", "positive_valid"),
    "tokens": ("patch", "caption_token", "caption_token_valid", "negative_token", "negative_token_valid"),
    "classes": ("classes", "label"),
    "text_group": ("text_group",),
    "raw_image": ("raw_image",),
}
"""The fields of `Embeddings` that belong to each extra part."""

MASKS = {
    "negative": "valid",
    "partner_image": "partner_valid",
    "partner_caption": "partner_valid",
    "positive": "positive_valid",
    "caption_token": "caption_token_valid",
    "negative_token": "negative_token_valid",
}
"""Which mask says where the rows of a field exist."""


@dataclass(frozen=True)
class Embeddings:
    """Unit-length rows in float32. `negative[b, k]` belongs to `caption[b]`; no other layout exists in this package.

    What stands where a mask is False is zeros, without gradient, whatever was given there. All that follows `rule` is
    None unless some active loss reads it.

    Attributes:
        image: image embeddings of this process's pairs.
        caption: caption embeddings, one for each image.
        negative: embeddings of the K negatives of each caption.
        valid: which negatives exist.
        scale: 1 over the temperature, already exponentiated; carries the gradient of the learnt temperature.
        group: equal exactly where two rows show the same image.
        rule: number of the rule that made a negative, -1 where there is none.
        partner_image: embedding of a second image of the row, of which the caption is not true.
        partner_caption: embedding of the text that is true of the second image, and not of the first.
        partner_valid: which rows have a second image.
        positive: embeddings of P further texts that are true of the image.
        positive_valid: which of them exist.
        patch: outputs of the image tower for its patches, in the joint space, not of unit length.
        caption_token: outputs of the text tower for the caption's tokens, in the joint space, not of unit length.
        caption_token_valid: the caption's tokens behind the start token, the end token included.
        negative_token: the same for the tokens of each negative.
        negative_token_valid: False for all tokens of a negative that does not exist.
        classes: embeddings of the texts of C classes, the same in all processes.
        label: number of each image's class, -1 where it has none.
        text_group: equal exactly where two captions are the same text.
        raw_image: image embeddings before they are brought to length one.
    """

    image: Float[Tensor, "batch dim"]
    caption: Float[Tensor, "batch dim"]
    negative: Float[Tensor, "batch negatives dim"]
    valid: Bool[Tensor, "batch negatives"]
    scale: Float[Tensor, ""]
    group: Int[Tensor, " batch"]
    rule: Int[Tensor, "batch negatives"]
    partner_image: Float[Tensor, "batch dim"] | None = None
    partner_caption: Float[Tensor, "batch dim"] | None = None
    partner_valid: Bool[Tensor, " batch"] | None = None
    positive: Float[Tensor, "batch positives dim"] | None = None
    positive_valid: Bool[Tensor, "batch positives"] | None = None
    patch: Float[Tensor, "batch patches dim"] | None = None
    caption_token: Float[Tensor, "batch tokens dim"] | None = None
    caption_token_valid: Bool[Tensor, "batch tokens"] | None = None
    negative_token: Float[Tensor, "batch negatives tokens dim"] | None = None
    negative_token_valid: Bool[Tensor, "batch negatives tokens"] | None = None
    classes: Float[Tensor, "classes dim"] | None = None
    label: Int[Tensor, " batch"] | None = None
    text_group: Int[Tensor, " batch"] | None = None
    raw_image: Float[Tensor, "batch dim"] | None = None

    def __post_init__(self) -> None:
        if self.negative_token_valid is not None:
            object.__setattr__(self, "negative_token_valid", self.negative_token_valid & self.valid[..., None])
        # A masked logit still passes 0 times its input back, which is not 0 where the input is not finite.
        for name, mask in MASKS.items():
            rows, there = getattr(self, name), getattr(self, mask)
            if rows is not None:
                object.__setattr__(self, name, rows.masked_fill(~there[..., None], 0.0))

    def require(self, field: str) -> Tensor:
        """One of the optional fields; a missing one is a mistake of the caller and raises LookupError."""
        value: Tensor | None = getattr(self, field)
        if value is None:
            extra = next(extra for extra, fields in EXTRA_FIELDS.items() if field in fields)
            raise LookupError(f"the batch was not asked for {field}; add {extra!r} to `reads`")
        return value


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
