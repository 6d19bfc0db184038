"""The base classes of losses: settings, what a loss reads, and a call that takes plain tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Unpack

from jaxtyping import Float
from torch import Tensor

from degla.inputs import LossTensors, check_reads
from degla.losses.core.embeddings import Embeddings, Target, TeacherPart
from degla.losses.core.processes import Processes
from degla.losses.core.tensors import Wanted, embeddings_of
from degla.ranges import Checked, Factor


class AnyLoss(Checked, ABC, section="objective"):
    """One summand of a training objective; its fields are its settings. See `Loss` and `StatefulLoss`.

    Attributes:
        weight: its factor in an `Objective`; the loss itself does not apply it. 0 means that it is neither computed nor
            logged.
        needs: parts of the teacher's embeddings that it reads.
        reads: optional parts of the student's embeddings that it reads, as `degla.inputs` names them.
        reads_texts: whether it reads the embedding of any text. Where no loss does, no text is embedded.
        scaled: whether it reads the model's scale: its logits are similarities times the scale.
    """

    weight: Factor
    needs: ClassVar[frozenset[TeacherPart]] = frozenset()
    reads: ClassVar[frozenset[str]] = frozenset()
    reads_texts: ClassVar[bool] = True
    scaled: ClassVar[bool] = True

    def __init_subclass__(cls, section: str | None = None) -> None:
        super().__init_subclass__(section=section or f"objective.{cls.__module__.rpartition('.')[2]}")
        check_reads(cls.reads, loss=cls.__name__)

    @classmethod
    def wanted(cls) -> Wanted:
        """What a call must give."""
        return Wanted(cls.__name__, cls.needs, cls.reads, texts=cls.reads_texts, scale=cls.scaled)


class Loss(AnyLoss, section="objective"):
    """A loss without memory. It is called with plain tensors in any training loop:

        loss = ImageGrounded()(image=image, caption=caption, negative=negative, scale=model.logit_scale.exp())

    Training in this package embeds a batch once for all losses and calls `value` instead.
    """

    def __call__(self, **tensors: Unpack[LossTensors]) -> Float[Tensor, ""]:
        """The loss of a batch, before its weight: the mean over the pairs of all processes.

        Args:
            tensors: by name, as in `LossTensors`.

        Raises:
            InputError: a tensor that this loss reads is missing, or shapes do not fit together.
        """
        processes = Processes.current()
        return self.value(*embeddings_of(tensors, self.wanted(), processes), processes)

    @abstractmethod
    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> Float[Tensor, ""]:
        """The loss of unit-length embeddings, before its weight: the mean over the pairs of all processes."""


class StatefulLoss(AnyLoss, section="objective"):
    """A loss with memory from step to step, one small tensor, which the caller keeps:

    memory = loss.start(rules=5)
    value, memory = loss(memory, image=image, caption=caption, negative=negative, rule=rule, scale=scale)
    """

    def __call__(self, memory: Tensor, **tensors: Unpack[LossTensors]) -> tuple[Float[Tensor, ""], Tensor]:
        """The loss of a batch under `memory`, before its weight, and the memory for the next step.

        Args:
            memory: from `start`, or from the step before.
            tensors: by name, as in `LossTensors`.

        Raises:
            InputError: a tensor that this loss reads is missing, or shapes do not fit together.
        """
        processes = Processes.current()
        return self.value(*embeddings_of(tensors, self.wanted(), processes), processes, memory)

    @abstractmethod
    def start(self, rules: int) -> Tensor:
        """Memory before the first step, for that many rules."""

    @abstractmethod
    def value(
        self, student: Embeddings, teacher: Target, processes: Processes, memory: Tensor
    ) -> tuple[Float[Tensor, ""], Tensor]:
        """The loss under `memory`, and the memory for the next step (no gradient)."""
