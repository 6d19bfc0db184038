"""Plain tensors by name, as any training loop has them, to the embeddings that losses read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from degla.errors import InputError
from degla.inputs import INPUTS, LossTensors, inputs_of
from degla.losses.core.embeddings import Embeddings, Target, TeacherPart
from degla.losses.core.processes import Processes
from degla.shelf import did_you_mean


@dataclass(frozen=True)
class Wanted:
    """What a loss, or a sum of losses, reads.

    Attributes:
        name: of the loss, in messages.
        needs: parts of the teacher's embeddings.
        reads: optional parts of the student's.
        texts: whether captions are read.
        scale: whether the scale is read.
    """

    name: str
    needs: frozenset[TeacherPart]
    reads: frozenset[str]
    texts: bool
    scale: bool


def embeddings_of(tensors: LossTensors, wanted: Wanted, processes: Processes) -> tuple[Embeddings, Target]:
    """Check tensors and put them together.

    Args:
        tensors: by name.
        wanted: what must be there.
        processes: that share the batch.

    Raises:
        InputError: a tensor is missing or unknown, or shapes do not fit together.
    """
    given: dict[str, Any] = dict(tensors)
    unknown = sorted(given.keys() - INPUTS.keys())
    if unknown:
        hint = did_you_mean(unknown[0], INPUTS)
        raise InputError(f"{wanted.name}: unknown tensor {unknown[0]!r}. Known: {', '.join(INPUTS)}.{hint}")
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        # One negative or positive a caption, without its axis.
        if INPUTS[name].kind in ("text", "teacher") and len(INPUTS[name].shape) == 3 and value.ndim == 2:
            given[name] = value[:, None]
    _set_defaults(given, wanted, processes)
    _require(given, wanted)
    _check_shapes(given, wanted.name)
    rows = {name: _float(value) if value.is_floating_point() else value for name, value in given.items()}
    # Before they are brought to length one: what is not finite would still spoil the gradient.
    for name, value in rows.items():
        if mask := INPUTS[name].mask:
            value = value.masked_fill(~rows[mask][..., None], 0.0)
        if INPUTS[name].kind in ("image", "text", "teacher") and name != "teacher_raw_image":
            value = normalize(value, dim=-1)
        rows[name] = value
    target = {name.removeprefix("teacher_"): rows.pop(name) for name in list(rows) if INPUTS[name].kind == "teacher"}
    return Embeddings.of(rows), Target(**target)


def _set_defaults(given: dict[str, Any], wanted: Wanted, processes: Processes) -> None:
    image = given.get("image")
    if image is None:
        return
    rows, device = len(image), image.device
    if not wanted.texts:
        given.setdefault("caption", torch.zeros_like(image))
    if not wanted.scale:
        given.setdefault("scale", 1.0)
    given.setdefault("negative", image.new_zeros(rows, 0, image.shape[-1]))
    negatives = given["negative"].shape[1]
    given.setdefault("valid", torch.ones(rows, negatives, dtype=torch.bool, device=device))
    given.setdefault("rule", torch.where(given["valid"], 0, -1))
    given.setdefault("group", torch.arange(rows, device=device) + processes.rank * rows)
    for name in list(given):
        if INPUTS[name].mask and INPUTS[name].kind in ("image", "text"):
            places = given[name].shape[: len(INPUTS[INPUTS[name].mask].shape)]
            given.setdefault(INPUTS[name].mask, torch.ones(places, dtype=torch.bool, device=device))
    for part in ("raw_image", "teacher_raw_image"):
        whole = part.replace("raw_", "")
        if whole in given:
            given.setdefault(part, given[whole])
    teacher = given.get("teacher_image", given.get("teacher_caption"))
    if not negatives and teacher is not None:
        given.setdefault("teacher_negative", teacher.new_zeros(rows, 0, teacher.shape[-1]))
    for name in [name for name in given if INPUTS[name].kind == "model"]:
        given[name] = torch.as_tensor(given[name], device=device)


def _require(given: Mapping[str, Any], wanted: Wanted) -> None:
    names = ["image", *(["caption"] if wanted.texts else []), *(["scale"] if wanted.scale else [])]
    names += [name for part in sorted(wanted.reads) for name in inputs_of([part])]
    names += [f"teacher_{part}" for part in sorted(wanted.needs)]
    names += [INPUTS[name].mask for name in given if INPUTS[name].mask]
    missing = [name for name in dict.fromkeys(names) if name not in given]
    if missing:
        shapes = ", ".join(f"{name} [{', '.join(INPUTS[name].shape)}]".replace(" []", "") for name in missing)
        raise InputError(f"{wanted.name}: missing {shapes}.")


def _check_shapes(given: Mapping[str, Any], name: str) -> None:
    """Each letter of a shape stands for one size."""
    sizes: dict[str, tuple[int, str]] = {}
    for field, letters in [(field, each.shape) for field, each in INPUTS.items() if field in given]:
        shape = tuple(given[field].shape)
        if len(shape) != len(letters):
            raise InputError(f"{name}: {field} has shape {list(shape)}; it must be [{', '.join(letters)}].")
        for letter, size in zip(letters, shape, strict=True):
            known, where = sizes.setdefault(letter, (size, field))
            if size != known:
                raise InputError(
                    f"{name}: {field} has shape {list(shape)}, but {letter} is {known} in {where} "
                    f"{list(given[where].shape)}; it must be [{', '.join(letters)}]."
                )


def _float(value: Tensor) -> Tensor:
    """At least float32: losses are not computed in half precision."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()
