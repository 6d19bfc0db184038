"""The objective: the weighted sum of the losses that are switched on, and the memory of those that have one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Unpack, cast

import torch
from jaxtyping import Float
from torch import Tensor

from degla.errors import InputError
from degla.inputs import LossTensors
from degla.losses.core.embeddings import Embeddings, Target, TeacherPart
from degla.losses.core.loss import AnyLoss, Loss, StatefulLoss
from degla.losses.core.processes import Processes
from degla.losses.core.tensors import Wanted, embeddings_of
from degla.shelf import LOSSES, class_name, did_you_mean

LossesByName = dict[str, Any]


def loss_class(name: str) -> type[Any]:
    """The dataclass of the loss called `name`: the file's name in CamelCase."""
    module = LOSSES.load(name)
    found: type[Any] = getattr(module, class_name(name))
    return found


def losses_by_name(**given: AnyLoss) -> LossesByName:
    """Every loss of the shelf, in alphabetical order: those given as they are, all others with weight 0.

    Raises:
        InputError: a name is not on the shelf.
    """
    known = LOSSES.names()
    for name in given:
        if name not in known:
            raise InputError(f"unknown loss {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    return {name: given.get(name) or dataclasses.replace(loss_class(name)(), weight=0.0) for name in known}


class Objective:
    """The weighted sum of losses, with the value of each for the log. It keeps the memory of stateful losses.

    Args:
        losses: by name; those with weight 0 are neither computed nor asked for anything.
        rules: number of rules whose negatives can occur, for losses with a memory for each rule.

    Raises:
        InputError: every loss has weight 0.
    """

    def __init__(self, losses: Mapping[str, AnyLoss], *, rules: int = 1) -> None:
        self.active = {name: loss for name, loss in losses.items() if loss.weight > 0}
        if not self.active:
            raise InputError("every loss of the objective has weight 0; give at least one a positive weight.")
        self.memory: dict[str, Tensor] = {
            name: loss.start(rules) for name, loss in self.active.items() if isinstance(loss, StatefulLoss)
        }

    @property
    def needs(self) -> frozenset[TeacherPart]:
        """The parts of the teacher's embeddings that the active losses read; empty means no teacher is run."""
        return frozenset().union(*(loss.needs for loss in self.active.values()))

    @property
    def reads(self) -> frozenset[str]:
        """The optional parts of the student's embeddings that the active losses read."""
        return frozenset().union(*(loss.reads for loss in self.active.values()))

    @property
    def reads_texts(self) -> bool:
        """Whether some active loss reads the embedding of a text."""
        return any(loss.reads_texts for loss in self.active.values())

    def __call__(self, **tensors: Unpack[LossTensors]) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The weighted sum, and each active loss before its weight (without gradient). Moves the memory on.

        Args:
            tensors: by name, as in `LossTensors`.

        Raises:
            InputError: a tensor that an active loss reads is missing, or shapes do not fit together.
        """
        scale = any(loss.scaled for loss in self.active.values())
        wanted = Wanted("Objective", self.needs, self.reads, texts=self.reads_texts, scale=scale)
        processes = Processes.current()
        return self.value(*embeddings_of(tensors, wanted, processes), processes)

    def value(
        self, student: Embeddings, teacher: Target, processes: Processes
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """As a call, of unit-length embeddings."""
        total = torch.zeros((), device=student.image.device, dtype=student.image.dtype)
        values: dict[str, Tensor] = {}
        for name, loss in self.active.items():
            if isinstance(loss, StatefulLoss):
                value, self.memory[name] = loss.value(student, teacher, processes, self.memory[name])
            else:
                value = cast(Loss, loss).value(student, teacher, processes)
            values[name] = value.detach()
            total = total + loss.weight * value
        return total, values

    def value_alone(self, student: Embeddings, teacher: Target, processes: Processes) -> Float[Tensor, ""]:
        """The weighted sum alone; the memory stays where it is."""
        memory = dict(self.memory)
        try:
            return self.value(student, teacher, processes)[0]
        finally:
            self.memory = memory
