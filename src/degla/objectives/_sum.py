"""The objective: the weighted sum of the terms that are switched on, and the memory of those that have one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from degla.errors import InputError
from degla.objectives import Embeddings, Extra, Part, Processes, StatefulTerm, Target, Term, reads_of, reads_texts
from degla.shelf import TERMS, did_you_mean

Terms = dict[str, Any]


def term_class(name: str) -> type[Any]:
    """The dataclass of the term called `name`: the file's name in CamelCase."""
    module = TERMS.load(name)
    found: type[Any] = getattr(module, "".join(word.capitalize() for word in name.split("_")))
    return found


def terms(**given: Term | StatefulTerm) -> Terms:
    """Every term of the shelf, in alphabetical order: those given as they are, all others with weight 0.

    Raises:
        InputError: a name is not on the shelf.
    """
    known = TERMS.names()
    for name in given:
        if name not in known:
            raise InputError(f"unknown term {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    return {name: given.get(name) or dataclasses.replace(term_class(name)(), weight=0.0) for name in known}


class Objective:
    """The sum of the active terms, with the value of each for the log.

    Args:
        chosen: terms by name; those with weight 0 are neither computed nor asked for anything.
        rules: number of rules whose negatives can occur, for terms with a memory for each rule.
    """

    def __init__(self, chosen: Mapping[str, Term | StatefulTerm], *, rules: int) -> None:
        self.active = {name: term for name, term in chosen.items() if term.weight > 0}
        if not self.active:
            raise InputError("every term of the objective has weight 0; give at least one a positive weight.")
        self.memory: dict[str, Tensor] = {
            name: term.start(rules) for name, term in self.active.items() if isinstance(term, StatefulTerm)
        }

    @property
    def needs(self) -> frozenset[Part]:
        """The parts of the teacher's embeddings that the active terms read; empty means no teacher is run."""
        return frozenset().union(*(term.needs for term in self.active.values()))

    @property
    def reads(self) -> frozenset[Extra]:
        """The optional parts of the student's embeddings that the active terms read."""
        return frozenset[Extra]().union(*(reads_of(term) for term in self.active.values()))

    @property
    def reads_texts(self) -> bool:
        """Whether some active term reads the embedding of a text."""
        return any(reads_texts(term) for term in self.active.values())

    def __call__(
        self, student: Embeddings, teacher: Target, processes: Processes
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Loss, and each active term's value before its weight (without gradient). Moves the terms' memory on."""
        loss = torch.zeros((), device=student.image.device, dtype=student.image.dtype)
        values: dict[str, Tensor] = {}
        for name, term in self.active.items():
            if isinstance(term, StatefulTerm):
                value, self.memory[name] = term.recall(student, teacher, processes, self.memory[name])
            else:
                value = term(student, teacher, processes)
            values[name] = value.detach()
            loss = loss + term.weight * value
        return loss, values

    def look(self, student: Embeddings, teacher: Target, processes: Processes) -> Float[Tensor, ""]:
        """The loss alone; the terms' memory stays where it is."""
        memory = dict(self.memory)
        try:
            return self(student, teacher, processes)[0]
        finally:
            self.memory = memory
