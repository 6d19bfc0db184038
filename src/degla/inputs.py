"""One table of all that a loss can read: its shape, what it is, its mask, and the column that it comes from.

Data set, collation, batches and embeddings derive from it what they read, stack, embed and mask, so that a new input of
a loss is one entry of `LossTensors` (and a field of `CaptionRecord`, where it comes from a new column).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Required, TypedDict, get_type_hints

from jaxtyping import Bool, Float, Int
from torch import Tensor

from degla.shelf import did_you_mean

Pictures = Float[Tensor, "batch 3 height width"] | Float[Tensor, "batch dim"] | Float[Tensor, "batch rows dim"]
"""What the image tower is called with: normalised pixels; or what it said of them once, where it is not trained: unit
embeddings, or embeddings with the outputs of patches behind them."""


@dataclass(frozen=True)
class Input:
    """What one input is.

    Attributes:
        shape: of what a loss is given, one letter an axis: B pairs, K negatives, P positives, M noun phrases,
            C classes, N patches, T tokens, L those of a decoder, Q masked ones, W and D dimensions, E those of the
            teacher. What begins with B has one row a pair.
        kind: "image" and "text" go through a tower, and losses get embeddings of length one; "output" is another output
            of a tower; "value" is read as the batch has it; "model" is a number of the model; "teacher" is of the
            teacher.
        part: what a loss names in `reads` to get it; "" for what is always there.
        mask: the input that says where it exists; what stands elsewhere is zeros without gradient.
        column: field of `CaptionRecord` that an image or text is read from. A pair without it repeats its own image or
            caption, and its mask is False there. "" for images that a training step makes of those that there are, and
            texts that are made of the caption.
        may_repeat: a text may be the caption itself; else its mask is False where it is.
    """

    shape: str
    kind: Literal["image", "text", "output", "value", "model", "teacher"]
    part: str = ""
    mask: str = ""
    column: str = ""
    may_repeat: bool = False


class LossTensors(TypedDict, total=False):
    """What a loss can be called with. Embeddings are brought to length one there and may have any length; B pairs, K
    negatives and P positives a caption, D dimensions. Under `torch.distributed` these are the rows of one process, and
    every process must have as many.
    """

    image: Annotated[Required[Float[Tensor, "batch dim"]], Input("BD", "image")]
    """Image embeddings [B, D]."""
    caption: Annotated[Float[Tensor, "batch dim"], Input("BD", "text")]
    """Caption embeddings [B, D], one for each image."""
    negative: Annotated[Float[Tensor, "batch negatives dim"], Input("BKD", "text", mask="valid")]
    """Embeddings of negatives [B, K, D]; `negative[b]` are those of `caption[b]`. [B, D] is taken as K = 1."""
    valid: Annotated[Bool[Tensor, "batch negatives"], Input("BK", "value")]
    """Which negatives exist [B, K]; all by default."""
    scale: Annotated[Float[Tensor, ""] | float, Input("", "model")]
    """1 / temperature, already exponentiated, for example `model.logit_scale.exp()`."""
    bias: Annotated[Float[Tensor, ""] | float, Input("", "model", "bias")]
    """What a model of the sigmoid loss adds to scaled similarities, `model.logit_bias`."""
    group: Annotated[Int[Tensor, " batch"], Input("B", "value")]
    """Equal exactly where two rows show the same image [B], over all processes; by default no two do."""
    rule: Annotated[Int[Tensor, "batch negatives"], Input("BK", "value")]
    """Number of the rule that made each negative [B, K]; 0 by default, -1 where there is none."""
    distractor_image: Annotated[
        Float[Tensor, "batch dim"], Input("BD", "image", "distractor", "distractor_valid", "distractor_image")
    ]
    """Embedding of a second image of each row [B, D], of which the caption is not true."""
    distractor_caption: Annotated[
        Float[Tensor, "batch dim"], Input("BD", "text", "distractor", "distractor_valid", "distractor_text")
    ]
    """Embedding of the text that is true of the second image, and not of the first [B, D]."""
    distractor_valid: Annotated[Bool[Tensor, " batch"], Input("B", "value", "distractor")]
    """Which rows have a second image [B]; all by default."""
    evidence_image: Annotated[Float[Tensor, "batch dim"], Input("BD", "image", "evidence", "evidence_valid")]
    """Embedding of the part of each image in which the teacher sees the evidence for its caption [B, D]."""
    evidence_valid: Annotated[Bool[Tensor, " batch"], Input("B", "value", "evidence")]
    """Which images have such a part, and are not all of it [B]; all by default."""
    evidence_seen: Annotated[Float[Tensor, "batch dim"], Input("BE", "value", "evidence")]
    """The teacher's embedding of that part [B, E]."""
    positive: Annotated[
        Float[Tensor, "batch positives dim"], Input("BPD", "text", "positive", "positive_valid", "positives")
    ]
    """Embeddings of further texts that are true of the image [B, P, D]; [B, D] is taken as P = 1."""
    positive_valid: Annotated[Bool[Tensor, "batch positives"], Input("BP", "value", "positive")]
    """Which positives exist [B, P]; all by default."""
    unit: Annotated[Float[Tensor, "batch positives dim"], Input("BPD", "text", "unit", "unit_valid", "units")]
    """Embeddings of P units of each caption, each a thing or a relation that it names [B, P, D]; [B, D] is P = 1."""
    unit_valid: Annotated[Bool[Tensor, "batch positives"], Input("BP", "value", "unit")]
    """Which units exist [B, P]; all by default."""
    unit_group: Annotated[Int[Tensor, "batch positives"], Input("BP", "value", "unit")]
    """Equal exactly where two units are the same text [B, P], over all processes; by default no two are."""
    foil: Annotated[Float[Tensor, "batch positives dim"], Input("BPD", "text", "unit", "foil_valid", "units")]
    """Embeddings of each unit with one detail that is false [B, P, D]."""
    foil_valid: Annotated[Bool[Tensor, "batch positives"], Input("BP", "value", "unit")]
    """Which foils exist [B, P]; all by default."""
    concept: Annotated[
        Float[Tensor, "batch concepts dim"], Input("BMD", "text", "concept", "concept_valid", "concepts", True)
    ]
    """Embeddings of the noun phrases of each caption [B, M, D], M of the caption that has most."""
    concept_valid: Annotated[Bool[Tensor, "batch concepts"], Input("BM", "value", "concept")]
    """Which noun phrases exist [B, M]; all by default."""
    concept_group: Annotated[Int[Tensor, "batch concepts"], Input("BM", "value", "concept")]
    """Equal exactly where two noun phrases are the same text [B, M], over all processes; by default no two are."""
    masked: Annotated[Float[Tensor, "batch dim"], Input("BD", "text", "masked", "masked_valid")]
    """Embedding of each caption with a trained mask token in place of some of its words [B, D]."""
    masked_valid: Annotated[Bool[Tensor, " batch"], Input("B", "value", "masked", column="masked_words")]
    """Which captions have such words [B]; all by default."""
    classes: Annotated[Float[Tensor, "classes dim"], Input("CD", "text", "classes")]
    """Embeddings of the texts of C classes [C, D], the same in all processes."""
    label: Annotated[Int[Tensor, " batch"], Input("B", "value", "classes", column="label")]
    """Number of each image's class [B], -1 where it has none."""
    text_group: Annotated[Int[Tensor, " batch"], Input("B", "value", "text_group")]
    """Equal exactly where two captions are the same text [B], over all processes."""
    patch: Annotated[Float[Tensor, "batch patches dim"], Input("BND", "output", "patches")]
    """Outputs of the image tower for its patches, in the joint space [B, N, D]; their length stays."""
    caption_token: Annotated[Float[Tensor, "batch tokens dim"], Input("BTD", "output", "tokens", "caption_token_valid")]
    """Outputs of the text tower for the tokens of the captions, in the joint space [B, T, D]; their length stays."""
    caption_token_valid: Annotated[Bool[Tensor, "batch tokens"], Input("BT", "value", "tokens")]
    """The captions' tokens behind the start token, the end token included [B, T]."""
    negative_token: Annotated[
        Float[Tensor, "batch negatives tokens dim"], Input("BKTD", "output", "tokens", "negative_token_valid")
    ]
    """As `caption_token`, for each negative [B, K, T, D]."""
    negative_token_valid: Annotated[Bool[Tensor, "batch negatives tokens"], Input("BKT", "value", "tokens")]
    """As `caption_token_valid`, for each negative [B, K, T]; False for all tokens of a negative that does not exist."""
    masked_token: Annotated[Float[Tensor, "batch tokens dim"], Input("BTD", "output", "masked_tokens")]
    """As `caption_token`, for each caption with masked words [B, T, D]."""
    prediction: Annotated[Float[Tensor, "batch places"], Input("BQ", "output", "prediction")]
    """-log of the probability that a predictor gives to each masked token, from the masked caption and the image's
    patches [B, Q]."""
    prediction_valid: Annotated[Bool[Tensor, "batch places"], Input("BQ", "output", "prediction")]
    """The masked tokens of each caption [B, Q]."""
    raw_image: Annotated[Float[Tensor, "batch dim"], Input("BD", "output", "raw_image")]
    """Image embeddings whose length counts [B, D]; `image` before it is brought to length one, by default."""
    reconstruction: Annotated[Float[Tensor, "batch length"], Input("BL", "output", "reconstruction")]
    """-log of the probability that a frozen decoder gives to each token of a true text of the image, which it writes
    from the state of the caption alone [B, L]."""
    reconstruction_valid: Annotated[Bool[Tensor, "batch length"], Input("BL", "output", "reconstruction")]
    """The tokens of that text, its end token included [B, L]."""
    text_state: Annotated[Float[Tensor, "batch width"], Input("BW", "output", "decoding")]
    """What `reconstruction` is made from: the end token's state behind the last norm, before the projection [B, W]."""
    target: Annotated[Int[Tensor, "batch length"], Input("BL", "value", "decoding")]
    """What `reconstruction` is of: the text's tokens in the decoder's vocabulary [B, L]."""
    teacher_image: Annotated[Float[Tensor, "batch dim"], Input("BE", "teacher")]
    """The teacher's image embeddings [B, D]; as all of the teacher's, they get no gradient."""
    teacher_caption: Annotated[Float[Tensor, "batch dim"], Input("BE", "teacher")]
    """The teacher's caption embeddings [B, D]."""
    teacher_negative: Annotated[Float[Tensor, "batch negatives dim"], Input("BKE", "teacher")]
    """The teacher's embeddings of the negatives [B, K, D]; [B, D] is taken as K = 1."""
    teacher_raw_image: Annotated[Float[Tensor, "batch dim"], Input("BE", "teacher")]
    """The teacher's image embeddings whose length counts [B, D]; `teacher_image` before it is brought to length one, by
    default."""


INPUTS: dict[str, Input] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(LossTensors, include_extras=True).items()
}
"""Every input by its name, in order. A program may add its own before it defines the loss that reads it."""


MADE_OF: dict[str, frozenset[str]] = {
    "prediction": frozenset({"masked", "masked_tokens", "patches", "tokens", "raw_image"}),
    "patches": frozenset({"tokens"}),
}
"""Parts that a training step makes of others, or together with others; a run whose losses read the one reads these."""


def with_sources(reads: frozenset[str]) -> frozenset[str]:
    """Some parts, and those that they are made of."""
    return reads.union(*(MADE_OF.get(part, frozenset()) for part in reads))


def parts() -> dict[str, tuple[str, ...]]:
    """The names of the inputs of each optional part, which losses name in `reads`."""
    names = dict.fromkeys(each.part for each in INPUTS.values() if each.part)
    return {part: tuple(name for name, each in INPUTS.items() if each.part == part) for part in names}


def inputs_of(reads: Iterable[str], **wanted: Any) -> dict[str, Input]:
    """The inputs of some optional parts, in order; only those whose attributes are as `wanted`."""
    chosen = set(reads)
    return {
        name: each
        for name, each in INPUTS.items()
        if each.part in chosen and all(getattr(each, field) == value for field, value in wanted.items())
    }


def images_of_columns(reads: Iterable[str]) -> dict[str, Input]:
    """The images of some optional parts that are read from a column; a training step makes the others."""
    return {name: each for name, each in inputs_of(reads, kind="image").items() if each.column}


def check_reads(reads: frozenset[str], *, loss: str) -> None:
    """Refuse a loss that reads a part that no input has.

    Raises:
        TypeError: names the loss and the part.
    """
    for part in sorted(reads - parts().keys()):
        raise TypeError(f"{loss}.reads: no input has the part {part!r}.{did_you_mean(part, parts())}")
