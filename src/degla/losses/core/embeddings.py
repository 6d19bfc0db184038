"""Embeddings of a batch by student and teacher, which every loss reads, and how to build them from named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from degla.errors import InputError
from degla.inputs import INPUTS, LossTensors, inputs_of
from degla.losses.core.processes import Processes
from degla.shelf import did_you_mean

TeacherPart = Literal["image", "caption", "negative", "raw_image"]
"""A part of the teacher's embeddings."""
LossValue = Float[Tensor, ""]
"""An unweighted loss: a scalar, this process's share of the mean over the pairs of all processes."""


@dataclass(frozen=True)
class Embeddings:
    """The student's unit-length embeddings of a batch, in float32. `negative[b, k]` belongs to `caption[b]`.

    Entries where a mask is False are set to zero and get no gradient.

    Attributes:
        image: image embeddings of this process's pairs.
        caption: caption embeddings, one for each image.
        negative: embeddings of the K negatives of each caption.
        valid: which negatives exist.
        scale: 1 over the temperature, already exponentiated; carries the gradient of the learnt temperature.
        group: equal exactly where two rows show the same image.
        rule: number of the rule that made a negative, -1 where there is none.
        extra: optional inputs that some active loss reads, by their names in `degla.inputs.LossTensors`.
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
        """Build embeddings from all inputs by name."""
        own = {entry.name for entry in fields(cls)}
        always: dict[str, Any] = {name: value for name, value in tensors.items() if name in own}
        return cls(**always, extra={name: value for name, value in tensors.items() if name not in own})

    def __post_init__(self) -> None:
        extra = dict(self.extra)
        if "negative_token_valid" in extra:
            extra["negative_token_valid"] = extra["negative_token_valid"] & self.valid[..., None]
        object.__setattr__(self, "extra", extra)
        # A masked logit still sends 0 times its input back, which is NaN where the input is not finite.
        object.__setattr__(self, "negative", self.negative.masked_fill(~self.valid[..., None], 0.0))
        for name in extra:
            if mask := INPUTS[name].mask:
                extra[name] = _zero_where_missing(extra[name], extra[mask])

    def tensors(self) -> dict[str, Tensor]:
        """Return all inputs by name, as `of` takes them."""
        return {name: value for name, value in vars(self).items() if name != "extra"} | dict(self.extra)

    def margins(self, queries: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch negatives"]:
        """Return the logits of each query's own negatives minus that of its caption; -inf where one does not exist."""
        away = self.negative - self.caption[:, None]
        return (self.scale * torch.einsum("bd,bkd->bk", queries, away)).masked_fill(~self.valid, -torch.inf)

    def require(self, name: str) -> Tensor:
        """Return one of the optional inputs; raise LookupError where the caller did not request it."""
        if name not in self.extra:
            raise LookupError(f"the batch does not contain {name}; add {INPUTS[name].part!r} to `reads`")
        return self.extra[name]


@dataclass(frozen=True)
class Target:
    """The teacher's embeddings of the same batch, without gradient; only the parts that some loss needs are set."""

    image: Float[Tensor, "batch dim"] | None = None
    caption: Float[Tensor, "batch dim"] | None = None
    negative: Float[Tensor, "batch negatives dim"] | None = None
    raw_image: Float[Tensor, "batch dim"] | None = None

    def require(self, part: TeacherPart) -> Float[Tensor, "*shape"]:
        """Return one part, detached; raise LookupError where the caller did not request it."""
        value: Tensor | None = getattr(self, part)
        if value is None:
            raise LookupError(f"the teacher's {part} embeddings were not computed; add {part!r} to `needs`")
        return value.detach()


@dataclass(frozen=True)
class Wanted:
    """What a loss, or a sum of losses, reads.

    Attributes:
        name: name of the loss in messages.
        needs: parts of the teacher's embeddings.
        reads: optional parts of the student's embeddings.
        captions: whether captions are read.
        scale: whether the scale is read.
        same_width: whether the teacher's embeddings are compared with the student's.
        negatives: whether the captions' negatives are required.
    """

    name: str
    needs: frozenset[TeacherPart]
    reads: frozenset[str]
    captions: bool
    scale: bool
    same_width: bool
    negatives: bool


def embeddings_of(tensors: LossTensors, wanted: Wanted, processes: Processes) -> tuple[Embeddings, Target]:
    """Check tensors and build embeddings and teacher target from them.

    Args:
        tensors: tensors by name.
        wanted: what is required.
        processes: processes that share the batch.

    Raises:
        InputError: a tensor is missing, unknown or of a wrong type, or shapes do not match.
    """
    inputs: dict[str, Any] = dict(tensors)
    unknown = sorted(inputs.keys() - INPUTS.keys())
    if unknown:
        hint = did_you_mean(unknown[0], INPUTS)
        raise InputError(f"{wanted.name}: unknown tensor {unknown[0]!r}.{hint} Known: {', '.join(INPUTS)}.")
    inputs = {name: value for name, value in inputs.items() if value is not None}
    _check_types(inputs, wanted.name)
    for name, value in inputs.items():
        # A single negative or positive per caption, without its axis.
        if INPUTS[name].kind in ("text", "teacher") and len(INPUTS[name].shape) == 3 and value.ndim == 2:
            inputs[name] = value[:, None]
    _check_shapes({name: value for name, value in inputs.items() if INPUTS[name].kind != "model"}, wanted.name)
    _set_defaults(inputs, wanted, processes)
    _require(inputs, wanted)
    _check_shapes(inputs, wanted.name)
    if wanted.same_width:
        _check_widths(inputs, wanted)
    rows = _of_one_type(inputs)
    # Before normalisation: a value that is not finite would still spoil the gradient.
    for name, value in rows.items():
        if mask := INPUTS[name].mask:
            value = _zero_where_missing(value, rows[mask])
        if INPUTS[name].kind in ("image", "text", "teacher") and name != "teacher_raw_image":
            value = normalize(value, dim=-1)
        rows[name] = value
    target = {name.removeprefix("teacher_"): rows.pop(name) for name in list(rows) if INPUTS[name].kind == "teacher"}
    return Embeddings.of(rows), Target(**target)


def _zero_where_missing(value: Tensor, there: Tensor) -> Tensor:
    return value.masked_fill(~there.reshape(there.shape + (1,) * (value.ndim - there.ndim)), 0.0)


def _set_defaults(inputs: dict[str, Any], wanted: Wanted, processes: Processes) -> None:
    image = inputs.get("image")
    if image is None:
        return
    rows, device = len(image), image.device
    if not wanted.captions:
        inputs.setdefault("caption", torch.zeros_like(image))
    if not wanted.scale:
        inputs.setdefault("scale", 1.0)
    if not wanted.negatives:
        inputs.setdefault("negative", image.new_zeros(rows, 0, image.shape[-1]))
    negatives = inputs["negative"].shape[1] if "negative" in inputs else 0
    inputs.setdefault("valid", torch.ones(rows, negatives, dtype=torch.bool, device=device))
    inputs.setdefault("rule", torch.where(inputs["valid"], 0, -1))
    inputs.setdefault("group", processes.places(image))
    for name in list(inputs):
        if INPUTS[name].mask and INPUTS[name].kind in ("image", "text", "value"):
            places = inputs[name].shape[: len(INPUTS[INPUTS[name].mask].shape)]
            inputs.setdefault(INPUTS[name].mask, torch.ones(places, dtype=torch.bool, device=device))
    for part in ("unit", "concept"):
        if part in inputs:
            # All processes have the same number of rows, but each its own number of places per row.
            column = rows * processes.count * torch.arange(inputs[part].shape[1], device=device)
            inputs.setdefault(f"{part}_group", processes.places(image)[:, None] + column)
    for part in ("raw_image", "teacher_raw_image"):
        whole = part.replace("raw_", "")
        if whole in inputs:
            inputs.setdefault(part, inputs[whole])
    teacher = inputs.get("teacher_image", inputs.get("teacher_caption"))
    if not negatives and teacher is not None:
        inputs.setdefault("teacher_negative", teacher.new_zeros(rows, 0, teacher.shape[-1]))
    for name in [name for name in inputs if INPUTS[name].kind == "model"]:
        # In transformers' SigLIP it is a tensor of one element.
        inputs[name] = torch.as_tensor(inputs[name], device=device).squeeze()


def _require(inputs: Mapping[str, Any], wanted: Wanted) -> None:
    names = ["image", *(["caption"] if wanted.captions else []), *(["scale"] if wanted.scale else [])]
    names += ["negative"] if wanted.negatives else []
    names += [name for part in sorted(wanted.reads) for name in inputs_of([part])]
    names += [f"teacher_{part}" for part in sorted(wanted.needs)]
    names += [INPUTS[name].mask for name in inputs if INPUTS[name].mask]
    missing = [name for name in dict.fromkeys(names) if name not in inputs]
    if missing:
        shapes = ", ".join(f"{name} [{', '.join(INPUTS[name].shape)}]".replace(" []", "") for name in missing)
        raise InputError(f"{wanted.name}: missing {shapes}.")


def _check_types(inputs: Mapping[str, Any], name: str) -> None:
    """Check that masks are bool and embeddings floating point; a scalar of the model may be any number."""
    for entry, value in inputs.items():
        kind, tensor = INPUTS[entry].kind, isinstance(value, Tensor)
        if entry.endswith("valid"):
            expected, right = "bool", tensor and value.dtype == torch.bool
        elif kind == "model":
            expected, right = "one number, or the number", isinstance(value, Real) or hasattr(value, "__array__")
        elif kind == "value":
            expected, right = "numbers", tensor
        else:
            expected, right = "floating point numbers", tensor and value.is_floating_point()
        if not right:
            actual = f"a tensor of {value.dtype}" if tensor else f"a {type(value).__name__}"
            raise InputError(f"{name}: {entry} is {actual}; it must be a tensor of {expected}.")


def _check_shapes(inputs: Mapping[str, Any], name: str) -> None:
    """Check shapes; each letter of a shape stands for one size."""
    sizes: dict[str, tuple[int, str]] = {}
    for entry, letters in [(entry, each.shape) for entry, each in INPUTS.items() if entry in inputs]:
        shape = tuple(inputs[entry].shape)
        if len(shape) != len(letters):
            raise InputError(f"{name}: {entry} has shape {list(shape)}; it must be [{', '.join(letters)}].")
        for letter, size in zip(letters, shape, strict=True):
            first, where = sizes.setdefault(letter, (size, entry))
            if size != first:
                raise InputError(
                    f"{name}: {entry} has shape {list(shape)}, but {letter} is {first} in {where} "
                    f"{list(inputs[where].shape)}; it must be [{', '.join(letters)}]."
                )


def _check_widths(inputs: Mapping[str, Any], wanted: Wanted) -> None:
    width = inputs["image"].shape[-1]
    for name in sorted(f"teacher_{part}" for part in wanted.needs):
        if (other := inputs[name].shape[-1]) != width:
            raise InputError(
                f"{wanted.name}: {name} has {other} dimensions and image has {width}, but the two are compared. Use a "
                "teacher as wide as the student, or LogitDistillation, which compares similarities."
            )


def _of_one_type(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert indices to int64, and all but masks to float32, or to float64 if some embedding is; never to half."""
    wide = any(value.dtype == torch.float64 for name, value in inputs.items() if INPUTS[name].kind != "model")
    kind = torch.float64 if wide else torch.float32
    return {
        # A scale or bias may be an integer, which has no gradient.
        name: value.to(kind if value.is_floating_point() or INPUTS[name].kind == "model" else torch.int64)
        if value.dtype != torch.bool
        else value
        for name, value in inputs.items()
    }
