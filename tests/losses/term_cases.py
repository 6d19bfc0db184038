"""Builders shared by the tests of the terms: random batches, every setting of a term, values with gradients."""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from degla.losses.core import Embeddings, Processes, StatefulLoss, Target
from degla.losses.core.objective import loss_class

RULES = 3
POSITIVES, PATCHES, TOKENS, CLASSES, CONCEPTS = 2, 4, 3, 3, 3
UNIT = (
    "image",
    "caption",
    "negative",
    "distractor_image",
    "distractor_caption",
    "positive",
    "classes",
    "unit",
    "foil",
    "concept",
    "evidence_image",
    "masked",
)
DENSE = ("patch", "caption_token", "negative_token", "raw_image", "reconstruction", "text_state", "masked_token",
         "prediction")  # fmt: skip
LEAVES = (*UNIT, *DENSE, "scale", "bias")
MASKED = {
    "negative": "valid",
    "distractor_image": "distractor_valid",
    "distractor_caption": "distractor_valid",
    "positive": "positive_valid",
    "unit": "unit_valid",
    "foil": "foil_valid",
    "concept": "concept_valid",
    "evidence_image": "evidence_valid",
    "caption_token": "caption_token_valid",
    "negative_token": "negative_token_valid",
    "reconstruction": "reconstruction_valid",
    "masked": "masked_valid",
    "prediction": "prediction_valid",
}
"""Which mask says where the rows of a leaf exist."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One random batch. The leaves are rows of any length and the logarithm of the scale, all with gradient."""

    leaves: dict[str, Tensor]
    teacher: dict[str, Tensor]
    inputs: dict[str, Tensor]
    """Masks and numbers: the fields of `Embeddings` without a gradient."""
    memory: Tensor
    """Thresholds of a term with memory, one a rule."""

    @property
    def valid(self) -> Tensor:
        return self.inputs["valid"]

    @property
    def pairs(self) -> int:
        return self.valid.shape[0]

    @property
    def negatives(self) -> int:
        return self.valid.shape[1]

    def student(self) -> Embeddings:
        """Unit rows, in the graph of the leaves: made once, for terms read them and change none."""
        return self._student

    @cached_property
    def _student(self) -> Embeddings:
        unit = {name: _unit(self.leaves[name]) for name in UNIT}
        dense = {name: self.leaves[name] * 1.0 for name in DENSE}
        return Embeddings.of(unit | dense | self.inputs | self.numbers())

    def numbers(self) -> dict[str, Tensor]:
        """Scale and bias of the model."""
        return {"scale": self.leaves["scale"].exp(), "bias": self.leaves["bias"] * 1.0}

    def target(self, parts: typing.Iterable[str] = ("image", "caption", "negative", "raw_image")) -> Target:
        """The teacher's rows, only the parts named."""
        return Target(**{part: self._target[part] for part in parts})

    @cached_property
    def _target(self) -> dict[str, Tensor]:
        return {part: each * 1.0 if part in DENSE else _unit(each) for part, each in self.teacher.items()}

    def to(self, dtype: torch.dtype) -> Case:
        """The same numbers in another precision, with new leaves."""

        def cast(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: value.detach().to(dtype) for name, value in tensors.items()}

        leaves = {name: value.requires_grad_() for name, value in cast(self.leaves).items()}
        return dataclasses.replace(self, leaves=leaves, teacher=cast(self.teacher), memory=self.memory.to(dtype))

    def altered(self, **leaves: Tensor) -> Case:
        """A copy with new leaves, some of them replaced."""
        fresh = {name: value.detach().clone() for name, value in {**self.leaves, **leaves}.items()}
        return dataclasses.replace(self, leaves={name: value.requires_grad_() for name, value in fresh.items()})


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


Mask = Literal["all", "random", "one empty row", "none"]
MASKS: tuple[Mask, ...] = typing.get_args(Mask)


def make_case(pairs: int, negatives: int, dim: int = 5, *, mask: Mask = "random", seed: int = 0) -> Case:
    """A random batch in float64. Same seed, same numbers."""
    random = torch.Generator().manual_seed(seed)

    def rows(*shape: int) -> Tensor:
        return torch.randn(*shape, dim, generator=random, dtype=torch.float64)

    def there(*shape: int, share: float) -> Tensor:
        """A mask of the kind asked for."""
        flags = torch.ones(*shape, dtype=torch.bool)
        if mask == "random":
            flags = torch.rand(*shape, generator=random) < share
        elif mask == "one empty row":
            flags[int(torch.randint(pairs, (), generator=random))] = False
        elif mask == "none":
            flags[:] = False
        return flags

    def token_masks(*shape: int) -> Tensor:
        """Texts of one to TOKENS tokens."""
        lengths = torch.randint(1, TOKENS + 1, shape, generator=random)
        return torch.arange(TOKENS) < lengths[..., None]

    valid = there(pairs, negatives, share=0.6)
    rule = torch.randint(RULES, (pairs, negatives), generator=random).masked_fill(~valid, -1)
    leaves = {
        "image": rows(pairs),
        "caption": rows(pairs),
        "negative": rows(pairs, negatives),
        "scale": torch.rand((), generator=random, dtype=torch.float64) * 2,
    }
    teacher = {"image": rows(pairs), "caption": rows(pairs), "negative": rows(pairs, negatives)}
    group = torch.randint(max(pairs - 1, 1), (pairs,), generator=random)
    memory = torch.rand(RULES, generator=random, dtype=torch.float64) * 3
    leaves |= {
        "distractor_image": rows(pairs),
        "distractor_caption": rows(pairs),
        "positive": rows(pairs, POSITIVES),
        "classes": rows(CLASSES),
        "patch": rows(pairs, PATCHES),
        "caption_token": rows(pairs, TOKENS),
        "negative_token": rows(pairs, negatives, TOKENS),
    }
    leaves["bias"] = -torch.rand((), generator=random, dtype=torch.float64) * 3
    leaves["raw_image"], teacher["raw_image"] = rows(pairs), rows(pairs)
    label = torch.randint(CLASSES, (pairs,), generator=random)
    inputs = {
        "valid": valid,
        "rule": rule,
        "group": group,
        "distractor_valid": there(pairs, share=0.7),
        "positive_valid": there(pairs, POSITIVES, share=0.6),
        "caption_token_valid": token_masks(pairs),
        "negative_token_valid": token_masks(pairs, negatives) & valid[..., None],
        "label": label.masked_fill(~there(pairs, share=0.7), -1),
        "text_group": torch.randint(max(pairs - 1, 1), (pairs,), generator=random),
    }
    # Newer inputs are drawn last, so that older cases do not change.
    leaves |= {"unit": rows(pairs, POSITIVES), "foil": rows(pairs, POSITIVES), "concept": rows(pairs, CONCEPTS)}
    inputs |= {
        "unit_valid": there(pairs, POSITIVES, share=0.7),
        "foil_valid": there(pairs, POSITIVES, share=0.6),
        "unit_group": torch.randint(max(pairs - 1, 1), (pairs, POSITIVES), generator=random),
        "concept_valid": there(pairs, CONCEPTS, share=0.6),
        "concept_group": torch.randint(2 * pairs, (pairs, CONCEPTS), generator=random),
    }
    leaves["reconstruction"] = 3 * torch.rand(pairs, TOKENS, generator=random, dtype=torch.float64)
    leaves["text_state"], inputs["target"] = rows(pairs), torch.zeros(pairs, TOKENS, dtype=torch.long)
    inputs["reconstruction_valid"] = token_masks(pairs) & there(pairs, 1, share=0.7)
    leaves["evidence_image"] = rows(pairs)
    inputs |= {"evidence_valid": there(pairs, share=0.5), "evidence_seen": rows(pairs)}
    leaves |= {"masked": rows(pairs), "masked_token": rows(pairs, TOKENS)}
    leaves["prediction"] = 3 * torch.rand(pairs, TOKENS, generator=random, dtype=torch.float64)
    inputs |= {"masked_valid": there(pairs, share=0.6)}
    inputs["prediction_valid"] = token_masks(pairs) & inputs["masked_valid"][:, None]
    return Case(
        leaves={name: value.requires_grad_() for name, value in leaves.items()},
        teacher=teacher,
        inputs=inputs,
        memory=memory,
    )


def changed(student: Embeddings, **tensors: Tensor | None) -> Embeddings:
    """The same embeddings with some inputs replaced, or left out where they are None."""
    inputs = student.tensors() | tensors
    return Embeddings.of({name: value for name, value in inputs.items() if value is not None})


def all_settings(name: str) -> list[Any]:
    """The term with its defaults for numbers, once for every combination of its options and switches."""
    loss = loss_class(name)
    hints = typing.get_type_hints(loss)
    options: dict[str, tuple[Any, ...]] = {}
    for field in dataclasses.fields(loss):
        hint = hints[field.name]
        if typing.get_origin(hint) is Literal:
            options[field.name] = typing.get_args(hint)
        elif hint is bool:
            options[field.name] = (False, True)
    chosen = (dict(zip(options, values, strict=True)) for values in itertools.product(*options.values()))
    return [loss(**settings) for settings in chosen]


LEADING = {
    "distractor": "distractor_caption",
    "positive": "positive",
    "unit": "unit",
    "concept": "concept",
    "evidence": "evidence_image",
    "patches": "patch",
    "tokens": "caption_token",
    "classes": "classes",
    "text_group": "caption",
    "bias": "caption",
    "raw_image": "raw_image",
    "reconstruction": "reconstruction",
    "masked": "masked",
    "prediction": "prediction",
}
"""The leaf that a term must move which reads an extra part of the embeddings."""


LEADING_OF = {"ContextualContrast": "image", "ViewContrast": "image"}
"""The same of a term that reads no extra part and not the student's captions."""


def leading_leaf(term: Any) -> str:
    """The leaf that the loss is meant to train: the captions, or those of the extra part that it reads."""
    if type(term).__name__ in LEADING_OF:
        return LEADING_OF[type(term).__name__]
    first = sorted(term.reads, key=lambda extra: (extra == "bias", extra))
    return next((LEADING[extra] for extra in first), "caption")


def at_work(term: Any) -> Any:
    """A hinge with the largest margin, so that every row has a gradient; every other loss unchanged."""
    return dataclasses.replace(term, margin=2.0) if hasattr(term, "margin") else term


def is_published(term: Any) -> bool:
    """Whether the loss reproduces a published defect, to which our invariants do not apply."""
    return "published" in (getattr(term, field.name) for field in dataclasses.fields(term))


def describe(term: Any) -> str:
    """A short name for the settings of a term: the class and its options."""
    options = [getattr(term, field.name) for field in dataclasses.fields(term)]
    return "-".join([type(term).__name__, *(str(option) for option in options if isinstance(option, str | bool))])


def evaluate(
    term: Any, student: Embeddings, target: Target, memory: Tensor, processes: Processes | None = None
) -> Tensor:
    """The value of a term, of a stateful one under `memory`."""
    processes = processes or Processes()
    if isinstance(term, StatefulLoss):
        return term.value(student, target, processes, memory)[0]
    value: Tensor = term.value(student, target, processes)
    return value


def gradients(value: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradient of the value for each leaf; zeros where it does not depend on one."""
    if not value.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    values = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
    pairs = zip(leaves.items(), values, strict=True)
    return {name: torch.zeros_like(leaf) if grad is None else grad for (name, leaf), grad in pairs}


def small_shapes() -> Iterator[tuple[int, int, int]]:
    """(pairs, negatives, dim): every B of 1..4 with every K of 0..3 and one that is larger, dimensions 3..8 in turn."""
    dims = itertools.cycle(range(3, 9))
    for pairs, negatives in (*itertools.product(range(1, 5), range(4)), (5, 4)):
        yield pairs, negatives, next(dims)


def assert_near(actual: Tensor, expected: Tensor, what: str = "", *, rtol: float, atol: float) -> None:
    """A faster `torch.testing.assert_close`, which takes 0.2 ms even if all is well."""
    same = actual.dtype == expected.dtype and actual.shape == expected.shape
    if not (same and torch.allclose(actual, expected, rtol=rtol, atol=atol)):
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}")
