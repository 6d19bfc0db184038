"""The table of all inputs of losses: shape, kind, mask, and the column that each comes from.

The data set, collation, batches and embeddings derive from it what to read, stack, embed and mask. A new input is
therefore one entry of `LossTensors`, plus a field of `CaptionRecord` if it comes from a new column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Required, TypedDict, get_type_hints

from jaxtyping import Bool, Float, Int
from torch import Tensor

from degla.records import ROW_COLUMNS, CaptionRecord
from degla.shelf import did_you_mean

ImageInput = Float[Tensor, "batch 3 height width"] | Float[Tensor, "batch dim"] | Float[Tensor, "batch rows dim"]
"""Images of a batch: normalised pixels or, if the tower is frozen and images are embedded only once, its stored
outputs: unit embeddings, or embeddings followed by patch outputs."""


@dataclass(frozen=True)
class FrozenStates:
    """States of images after the frozen first blocks of a vision transformer.

    Attributes:
        values: a row per token.
        blocks: number of these blocks.
    """

    values: Float[Tensor, "batch tokens width"]
    blocks: int

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> FrozenStates:
        return replace(self, values=self.values[rows])


TowerInput = ImageInput | FrozenStates
"""What an image tower takes."""


@dataclass(frozen=True)
class Input:
    """Description of one input.

    Attributes:
        shape: shape that a loss receives, one letter per axis: B pairs, K negatives, P positives, M noun phrases,
            C classes, N patches, T tokens, L decoder tokens, Q masked tokens, W and D dimensions, E the teacher's
            dimensions. Inputs that begin with B have one row per pair.
        kind: "image" and "text" pass through a tower, and losses receive unit embeddings; "output" is another output
            of a tower; "value" is taken from the batch as it is; "model" is a number of the model; "teacher" is an
            output of the teacher.
        part: name that a loss lists in `reads` to receive it; "" for inputs that are always present.
        mask: input that says where it exists; elsewhere it is zero, without gradient.
        column: field of `CaptionRecord` that an image or text is read from. A pair without it repeats its own image or
            caption, and its mask is False. "" for images that a training step derives from others, and for texts made
            from the caption. Any other field is a column of the captions with one number or text per pair; pairs
            without it are refused if the input has no mask.
        may_repeat: whether a text may equal the caption; otherwise its mask is False if it does.
    """

    shape: str
    kind: Literal["image", "text", "output", "value", "model", "teacher"]
    part: str = ""
    mask: str = ""
    column: str = ""
    may_repeat: bool = False


class LossTensors(TypedDict, total=False):
    """Arguments that a loss can be called with. Losses normalise embeddings, so these may have any length. There are B
    pairs, K negatives and P positives per caption, and D dimensions. Under `torch.distributed` these are the rows of
    one process, and all processes must have the same number.
    """

    image: Annotated[Required[Float[Tensor, "batch dim"]], Input("BD", "image")]
    """Image embeddings [B, D]."""
    caption: Annotated[Float[Tensor, "batch dim"], Input("BD", "text")]
    """Caption embeddings [B, D], one for each image."""
    negative: Annotated[Float[Tensor, "batch negatives dim"], Input("BKD", "text", mask="valid")]
    """Embeddings of negatives [B, K, D]; `negative[b]` belongs to `caption[b]`. [B, D] means K = 1."""
    valid: Annotated[Bool[Tensor, "batch negatives"], Input("BK", "value")]
    """Which negatives exist [B, K]; all by default."""
    scale: Annotated[Float[Tensor, ""] | float, Input("", "model")]
    """Logit scale, 1 / temperature, already exponentiated, for example `model.logit_scale.exp()`."""
    bias: Annotated[Float[Tensor, ""] | float, Input("", "model", "bias")]
    """Bias that a sigmoid-loss model adds to scaled similarities, `model.logit_bias`."""
    group: Annotated[Int[Tensor, " batch"], Input("B", "value")]
    """Equal exactly where two rows show the same image [B], across all processes; by default all images differ."""
    rule: Annotated[Int[Tensor, "batch negatives"], Input("BK", "value")]
    """Number of the rule that made each negative [B, K], less than `rules` of an `Objective`; 0 by default, -1 where
    there is no negative."""
    distractor_image: Annotated[
        Float[Tensor, "batch dim"], Input("BD", "image", "distractor", "distractor_valid", "distractor_image")
    ]
    """Embedding of a distractor image for each row [B, D], for which the caption is false."""
    distractor_caption: Annotated[
        Float[Tensor, "batch dim"], Input("BD", "text", "distractor", "distractor_valid", "distractor_text")
    ]
    """Embedding of the text that is true for the distractor image, but not for the row's image [B, D]."""
    distractor_valid: Annotated[Bool[Tensor, " batch"], Input("B", "value", "distractor")]
    """Which rows have a distractor [B]; all by default."""
    evidence_image: Annotated[Float[Tensor, "batch dim"], Input("BD", "image", "evidence", "evidence_valid")]
    """Embedding of the part of each image that is the teacher's evidence for the caption [B, D]."""
    evidence_valid: Annotated[Bool[Tensor, " batch"], Input("B", "value", "evidence")]
    """Which images have such a part, smaller than the whole image [B]; all by default."""
    evidence_seen: Annotated[Float[Tensor, "batch dim"], Input("BE", "value", "evidence")]
    """The teacher's embedding of that part [B, E]."""
    positive: Annotated[
        Float[Tensor, "batch positives dim"], Input("BPD", "text", "positive", "positive_valid", "positives")
    ]
    """Embeddings of additional texts that are true for the image [B, P, D]; [B, D] means P = 1."""
    positive_valid: Annotated[Bool[Tensor, "batch positives"], Input("BP", "value", "positive")]
    """Which positives exist [B, P]; all by default."""
    unit: Annotated[Float[Tensor, "batch positives dim"], Input("BPD", "text", "unit", "unit_valid", "units")]
    """Embeddings of P units of each caption, objects or relations that it names [B, P, D]; [B, D] means P = 1."""
    unit_valid: Annotated[Bool[Tensor, "batch positives"], Input("BP", "value", "unit")]
    """Which units exist [B, P]; all by default."""
    unit_group: Annotated[Int[Tensor, "batch positives"], Input("BP", "value", "unit")]
    """Equal exactly where two units are the same text [B, P], across all processes; by default all differ."""
    foil: Annotated[Float[Tensor, "batch positives dim"], Input("BPD", "text", "unit", "foil_valid", "units")]
    """Embeddings of each unit with one detail made false [B, P, D]."""
    foil_valid: Annotated[Bool[Tensor, "batch positives"], Input("BP", "value", "unit")]
    """Which foils exist [B, P]; all by default."""
    concept: Annotated[
        Float[Tensor, "batch concepts dim"], Input("BMD", "text", "concept", "concept_valid", "concepts", True)
    ]
    """Embeddings of the noun phrases of each caption [B, M, D]; M is the largest number of any caption."""
    concept_valid: Annotated[Bool[Tensor, "batch concepts"], Input("BM", "value", "concept")]
    """Which noun phrases exist [B, M]; all by default."""
    concept_group: Annotated[Int[Tensor, "batch concepts"], Input("BM", "value", "concept")]
    """Equal exactly where two noun phrases are the same text [B, M], across all processes; by default all differ."""
    masked: Annotated[Float[Tensor, "batch dim"], Input("BD", "text", "masked", "masked_valid")]
    """Embedding of each caption with some of its words replaced by a trained mask token [B, D]."""
    masked_valid: Annotated[Bool[Tensor, " batch"], Input("B", "value", "masked", column="masked_words")]
    """Which captions have such words [B]; all by default."""
    classes: Annotated[Float[Tensor, "classes dim"], Input("CD", "text", "classes")]
    """Embeddings of the texts of C classes [C, D], the same in all processes."""
    label: Annotated[Int[Tensor, " batch"], Input("B", "value", "classes", column="label")]
    """Number of each image's class [B], -1 if it has none."""
    text_group: Annotated[Int[Tensor, " batch"], Input("B", "value", "text_group")]
    """Equal exactly where two captions are the same text [B], across all processes."""
    patch: Annotated[Float[Tensor, "batch patches dim"], Input("BND", "output", "patches")]
    """Patch outputs of the image tower in the joint space [B, N, D], not normalised."""
    caption_token: Annotated[Float[Tensor, "batch tokens dim"], Input("BTD", "output", "tokens", "caption_token_valid")]
    """Outputs of the text tower for the captions' tokens in the joint space [B, T, D], not normalised."""
    caption_token_valid: Annotated[Bool[Tensor, "batch tokens"], Input("BT", "value", "tokens")]
    """Which are caption tokens after the start token, up to and including the end token [B, T]."""
    negative_token: Annotated[
        Float[Tensor, "batch negatives tokens dim"], Input("BKTD", "output", "tokens", "negative_token_valid")
    ]
    """As `caption_token`, for each negative [B, K, T, D]."""
    negative_token_valid: Annotated[Bool[Tensor, "batch negatives tokens"], Input("BKT", "value", "tokens")]
    """As `caption_token_valid`, for each negative [B, K, T]; False for all tokens of a negative that does not exist."""
    masked_token: Annotated[Float[Tensor, "batch tokens dim"], Input("BTD", "output", "masked_tokens")]
    """As `caption_token`, for each caption with masked words [B, T, D]."""
    prediction: Annotated[Float[Tensor, "batch places"], Input("BQ", "output", "prediction")]
    """Negative log-probability that a predictor assigns to each masked token, given the masked caption and the image's
    patches [B, Q]."""
    prediction_valid: Annotated[Bool[Tensor, "batch places"], Input("BQ", "output", "prediction")]
    """Which are masked tokens of the caption [B, Q]."""
    raw_image: Annotated[Float[Tensor, "batch dim"], Input("BD", "output", "raw_image")]
    """Unnormalised image embeddings [B, D]; by default `image` before normalisation."""
    reconstruction: Annotated[Float[Tensor, "batch length"], Input("BL", "output", "reconstruction")]
    """Negative log-probability that a frozen decoder assigns to each token of a true text of the image, given only the
    state of the caption [B, L]."""
    reconstruction_valid: Annotated[Bool[Tensor, "batch length"], Input("BL", "output", "reconstruction")]
    """Which are tokens of that text, including its end token [B, L]."""
    text_state: Annotated[Float[Tensor, "batch width"], Input("BW", "output", "decoding")]
    """State from which `reconstruction` decodes: the end token's, after the last norm, before the projection [B, W]."""
    target: Annotated[Int[Tensor, "batch length"], Input("BL", "value", "decoding")]
    """Tokens of the text of `reconstruction`, in the decoder's vocabulary [B, L]."""
    teacher_image: Annotated[Float[Tensor, "batch dim"], Input("BE", "teacher")]
    """The teacher's image embeddings [B, D], without gradient, like all outputs of the teacher."""
    teacher_caption: Annotated[Float[Tensor, "batch dim"], Input("BE", "teacher")]
    """The teacher's caption embeddings [B, D]."""
    teacher_negative: Annotated[Float[Tensor, "batch negatives dim"], Input("BKE", "teacher")]
    """The teacher's embeddings of the negatives [B, K, D]; [B, D] means K = 1."""
    teacher_raw_image: Annotated[Float[Tensor, "batch dim"], Input("BE", "teacher")]
    """The teacher's unnormalised image embeddings [B, D]; by default `teacher_image` before normalisation."""


INPUTS: dict[str, Input] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(LossTensors, include_extras=True).items()
}
"""All inputs by name, in order, with those of a user's own losses once these are imported."""


def _is_taken(own: Input) -> bool:
    """Whether the package has a column of that name which holds something else."""
    field = CaptionRecord.model_fields.get(own.column)
    if field is not None:
        return own.kind == "value" or field.annotation not in (str, str | None)
    return own.column in ROW_COLUMNS or own.column.startswith("_") or hasattr(CaptionRecord, own.column)


def add_inputs(inputs: Mapping[str, Input], *, loss: str) -> frozenset[str]:
    """Add the inputs of a user's own loss, each with its mask, to the table; return their parts.

    Raises:
        TypeError: an input is none that a column can hold, or its name is taken by another one.
    """
    parts = set()
    for name, each in inputs.items():
        if not each.column or (each.shape, each.kind) not in (("B", "value"), ("BD", "text")):
            raise TypeError(f'{loss}.inputs: {name}: must have a column and be a "BD", "text" or a "B", "value"')
        if _is_taken(each):
            raise TypeError(f"{loss}.inputs: {name}: its column cannot be called {each.column!r}; rename the column")
        each = replace(each, part=each.part or name)
        parts.add(each.part)
        for key, value in {name: each, each.mask: Input("B", "value", each.part)}.items():
            if key and INPUTS.setdefault(key, value) != value:
                raise TypeError(f"{loss}.inputs: the name {key!r} is taken by another input")
    return frozenset(parts)


MADE_OF: dict[str, frozenset[str]] = {
    "prediction": frozenset({"masked", "masked_tokens", "patches", "tokens", "raw_image"}),
    "patches": frozenset({"tokens"}),
}
"""Parts that a training step computes from, or together with, other parts, which a run then reads too."""


def with_sources(reads: frozenset[str]) -> frozenset[str]:
    """Return some parts together with those that they are computed from."""
    return reads.union(*(MADE_OF.get(part, frozenset()) for part in reads))


def parts() -> dict[str, tuple[str, ...]]:
    """Return the names of the inputs of each optional part, which losses list in `reads`."""
    names = dict.fromkeys(each.part for each in INPUTS.values() if each.part)
    return {part: tuple(name for name, each in INPUTS.items() if each.part == part) for part in names}


def inputs_of(reads: Iterable[str], **wanted: Any) -> dict[str, Input]:
    """Return the inputs of some optional parts, in order, whose attributes equal `wanted`."""
    chosen = set(reads)
    return {
        name: each
        for name, each in INPUTS.items()
        if each.part in chosen and all(getattr(each, field) == value for field, value in wanted.items())
    }


def images_of_columns(reads: Iterable[str]) -> dict[str, Input]:
    """Return the images of some optional parts that are read from a column; a training step derives the others."""
    return {name: each for name, each in inputs_of(reads, kind="image").items() if each.column}


def own_columns(reads: Iterable[str]) -> tuple[tuple[str, bool], ...]:
    """Return the columns that only a user's own losses read, and whether each holds numbers."""
    columns = {each.column: each.kind == "value" for each in inputs_of(reads).values() if each.column}
    return tuple((name, numeric) for name, numeric in columns.items() if name not in CaptionRecord.model_fields)


def numbers_of_columns(reads: Iterable[str]) -> dict[str, Input]:
    """Return the numbers of some optional parts that are read from a column of a user's own."""
    own = {name for name, numeric in own_columns(reads) if numeric}
    return {name: each for name, each in inputs_of(reads, kind="value").items() if each.column in own}


def check_reads(reads: frozenset[str], *, loss: str) -> None:
    """Check that the parts that a loss reads exist.

    Raises:
        TypeError: one does not; names the loss and the part.
    """
    for part in sorted(reads - parts().keys()):
        raise TypeError(f"{loss}.reads: unknown part {part!r}.{did_you_mean(part, parts())}")
