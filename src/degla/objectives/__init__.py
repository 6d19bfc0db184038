"""SHELF - objective terms: embeddings of student and teacher enter; one scalar a term, and their weighted sum, leave.

Each file holds one term: a frozen dataclass whose name is the file's name in CamelCase and whose fields are its
settings. This door plate holds the contract that all of them share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from degla.objectives._processes import Processes

Part = Literal["image", "caption", "negative"]


@dataclass(frozen=True)
class Embeddings:
    """Unit-length rows in float32. `negative[b, k]` belongs to `caption[b]`; no other layout exists in this package.

    Attributes:
        image: image embeddings of this process's pairs.
        caption: caption embeddings, one for each image.
        negative: embeddings of the K negatives of each caption; zeros, without gradient, where `valid` is False,
            whatever was given there.
        valid: which negatives exist.
        scale: 1 over the temperature, already exponentiated; carries the gradient of the learnt temperature.
        group: equal exactly where two rows show the same image.
        rule: number of the rule that made a negative, -1 where there is none.
    """

    image: Float[Tensor, "batch dim"]
    caption: Float[Tensor, "batch dim"]
    negative: Float[Tensor, "batch negatives dim"]
    valid: Bool[Tensor, "batch negatives"]
    scale: Float[Tensor, ""]
    group: Int[Tensor, " batch"]
    rule: Int[Tensor, "batch negatives"]

    def __post_init__(self) -> None:
        # A masked logit still passes 0 times its input back, which is not 0 where the input is not finite.
        object.__setattr__(self, "negative", self.negative.masked_fill(~self.valid[..., None], 0.0))


@dataclass(frozen=True)
class Target:
    """What the teacher says about the same batch, without gradient; only the parts that some term needs are there."""

    image: Float[Tensor, "batch dim"] | None = None
    caption: Float[Tensor, "batch dim"] | None = None
    negative: Float[Tensor, "batch negatives dim"] | None = None

    def require(self, part: Part) -> Float[Tensor, ...]:
        """Return one part, cut off from any graph; a missing one is a mistake of the caller and raises LookupError."""
        value: Tensor | None = getattr(self, part)
        if value is None:
            raise LookupError(f"the teacher was not asked for its {part} embeddings; add it to `needs`")
        return value.detach()


@runtime_checkable
class Term(Protocol):
    """One summand of the objective.

    Attributes:
        weight: its factor; 0 means that it is neither computed nor logged.
        needs: the parts of the teacher's embeddings that it reads.
    """

    @property
    def weight(self) -> float:
        """Factor of the term, >= 0."""
        ...

    needs: ClassVar[frozenset[Part]]

    def __call__(self, student: Embeddings, teacher: Target, processes: Processes) -> Float[Tensor, ""]:
        """Mean over the pairs of all processes, before the weight is applied."""
        ...


@runtime_checkable
class StatefulTerm(Protocol):
    """A term with memory from step to step. The memory is one small tensor, kept in the checkpoint."""

    @property
    def weight(self) -> float:
        """Factor of the term, >= 0."""
        ...

    needs: ClassVar[frozenset[Part]]

    def start(self, rules: int) -> Tensor:
        """Memory before the first step, for that many rules."""
        ...

    def recall(
        self, student: Embeddings, teacher: Target, processes: Processes, memory: Tensor
    ) -> tuple[Float[Tensor, ""], Tensor]:
        """Value of the term under `memory`, and the memory for the next step (no gradient)."""
        ...


__all__ = ["Embeddings", "Part", "Processes", "StatefulTerm", "Target", "Term"]
