"""Base classes of losses, and the objective: the weighted sum of the active losses, with their memory."""

from __future__ import annotations

import copy
import dataclasses
import operator
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, ClassVar, Unpack, cast

import torch
from torch import Tensor, nn

from degla.errors import InputError
from degla.inputs import Input, LossTensors, add_inputs, check_reads, inputs_of, with_sources
from degla.losses.core.embeddings import Embeddings, LossValue, Target, TeacherPart, Wanted, embeddings_of
from degla.losses.core.partition import outside_autocast
from degla.losses.core.processes import Processes
from degla.parse import cut_short
from degla.ranges import Checked, Factor, Positive, RangeError, allowed, allows
from degla.shelf import LOSSES, class_name


class AnyLoss(Checked, ABC, section="objective"):
    """One term of a training objective; its fields are its settings. See `Loss` and `StatefulLoss`.

    Attributes:
        weight: its weight in an `Objective`; the loss itself does not apply it. With weight 0 it is neither computed
            nor logged.
        needs: parts of the teacher's embeddings that it reads.
        reads: optional parts of the student's embeddings that it reads, as `degla.inputs` names them.
        inputs: inputs of its own, each from a column of the captions; it reads their parts too.
        reads_captions: whether it reads the embeddings of captions or negatives, so that a call must pass them.
        scaled: whether it reads the model's scale, as its logits are similarities times the scale.
        same_width: whether it compares the teacher's embeddings with the student's, so that both need the same width.
        of_negatives: whether it is 0 without negatives, so that a call must pass them.
    """

    weight: Factor
    needs: ClassVar[frozenset[TeacherPart]] = frozenset()
    reads: ClassVar[frozenset[str]] = frozenset()
    inputs: ClassVar[Mapping[str, Input]] = {}
    reads_captions: ClassVar[bool] = True
    scaled: ClassVar[bool] = True
    same_width: ClassVar[bool] = False
    of_negatives: ClassVar[bool] = False

    def __init_subclass__(cls, section: str | None = None) -> None:
        super().__init_subclass__(section=section or f"objective.{cls.__module__.rpartition('.')[2]}")
        cls.reads = cls.reads | add_inputs(cls.inputs, loss=cls.__name__)
        check_reads(cls.reads, loss=cls.__name__)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not allows(Factor, self.weight):  # A class may declare it as any number, but only those above 0 count.
            raise RangeError(self.flag("weight").removeprefix("--"), f"is {self.weight}; it must be {allowed(Factor)}.")


def wanted_by(name: str, losses: Collection[AnyLoss]) -> Wanted:
    """Return what a call must pass for some losses."""
    return Wanted(
        name,
        needs=frozenset[TeacherPart]().union(*(loss.needs for loss in losses)),
        reads=frozenset[str]().union(*(loss.reads for loss in losses)),
        captions=any(loss.reads_captions for loss in losses),
        scale=any(loss.scaled for loss in losses),
        same_width=any(loss.same_width for loss in losses),
        negatives=any(loss.of_negatives for loss in losses),
    )


class Loss(AnyLoss, section="objective"):
    """A loss without memory. Call it with plain tensors in any training loop:

        loss = ImageGrounded()(image=image, caption=caption, negative=negative, scale=model.logit_scale.exp())

    Training in this package embeds a batch once for all losses and calls `value` instead.
    """

    def __call__(self, **tensors: Unpack[LossTensors]) -> LossValue:
        """Return the unweighted loss of a batch: the mean over its pairs.

        With several processes, each returns the share of its own pairs; their average is the mean over all pairs.

        Args:
            tensors: tensors by name, as in `LossTensors`.

        Raises:
            InputError: a tensor that this loss reads is missing, or shapes do not match.
        """
        processes = Processes.current()
        student, teacher = embeddings_of(tensors, wanted_by(type(self).__name__, [self]), processes)
        with outside_autocast(student.image):
            return self.value(student, teacher, processes)

    @abstractmethod
    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Return the unweighted loss of unit-length embeddings: the mean over the pairs of all processes."""


Memory = Tensor | dict[str, Tensor]
"""What a loss keeps between steps: a small tensor, or several by name."""


def tensors_of(memories: Mapping[str, Memory]) -> dict[str, Tensor]:
    """Return the tensors of memories by loss; those of several as "LOSS/NAME"."""
    return {
        f"{loss}/{name}" if name else loss: tensor
        for loss, memory in memories.items()
        for name, tensor in (memory if isinstance(memory, dict) else {"": memory}).items()
    }


def _value_and_memory(loss: StatefulLoss, result: Any) -> tuple[LossValue, Any]:
    """Return the result of a stateful loss's `value`; raise InputError if it is not a pair."""
    several = isinstance(result, tuple | list)
    if not several or len(result) != 2:
        what = f"a {type(result).__name__} of {len(result)}" if several else type(result).__name__
        raise InputError(
            f"{type(loss).__name__}.value returned {what}; it must return two values, the loss and the memory for the "
            "next step: return loss, memory"
        )
    value, memory = result
    return value, memory


class StatefulLoss(AnyLoss, section="objective"):
    """A loss with memory between steps, a small tensor or a dictionary of some, that the caller keeps:

    memory = loss.start(rules=5)
    value, memory = loss(memory, image=image, caption=caption, negative=negative, rule=rule, scale=scale)

    A tensor of it that is a `torch.nn.Parameter` is learnt, by the optimiser that trains the model; the memory for the
    next step then has the parameter itself.

    Attributes:
        lr_multiple: learning rate of what is learnt, as a multiple of the model's. A loss may make it a field.
    """

    lr_multiple: ClassVar[float] = 1.0

    def __call__(self, memory: Memory | None = None, **tensors: Unpack[LossTensors]) -> tuple[LossValue, Any]:
        """Return the unweighted loss of a batch, given the memory, and the memory for the next step.

        Args:
            memory: result of `start`, or of the previous step.
            tensors: tensors by name, as in `LossTensors`.

        Raises:
            InputError: the memory or a tensor that this loss reads is missing, or shapes do not match.
        """
        if not isinstance(memory, Tensor | dict):
            raise InputError(
                f"{type(self).__name__}: missing memory, the first argument. Start with memory = loss.start(rules=5), "
                "then value, memory = loss(memory, image=image, ...) at each step. An Objective does this itself."
            )
        processes = Processes.current()
        student, teacher = embeddings_of(tensors, wanted_by(type(self).__name__, [self]), processes)
        with outside_autocast(student.image):
            return _value_and_memory(self, self.value(student, teacher, processes, memory))

    @abstractmethod
    def start(self, rules: int) -> Memory:
        """Return the memory before the first step, for this number of rules."""

    @abstractmethod
    def value(
        self, student: Embeddings, teacher: Target, processes: Processes, memory: Any
    ) -> tuple[LossValue, Memory]:
        """Return the loss, given the memory, and the memory for the next step: without gradient, or the parameter."""


LossesByName = dict[str, Any]


@cache
def loss_class(name: str) -> type[Any]:
    """Return the dataclass of the loss `name`: the file's name in CamelCase.

    Raises:
        InputError: it does not exist, is not a whole loss, has no field `weight`, or has a field without a default.
    """
    loss: type[Any] = LOSSES.member(name, class_name(name))
    fields = dataclasses.fields(loss) if "__dataclass_fields__" in vars(loss) else ()
    bare = [each.name for each in fields if each.default is each.default_factory is dataclasses.MISSING]
    if bare or "weight" not in (each.name for each in fields):
        lacking = f". Fields without a default: {', '.join(bare)}" if bare else ""
        raise InputError(
            f"{LOSSES.file(name)}: {loss.__name__} must be a frozen dataclass with a field `weight` and a "
            f"default for each field, because every recipe has every loss{lacking}."
        )
    return loss


def losses_by_name(**losses: AnyLoss) -> LossesByName:
    """Return every loss, in alphabetical order: the given ones unchanged, all others with weight 0.

    Raises:
        InputError: a name is not that of a loss.
    """
    for name in losses:
        LOSSES.require(name)
    return {name: losses.get(name) or dataclasses.replace(loss_class(name)(), weight=0.0) for name in LOSSES.names()}


class Objective:
    """The weighted sum of losses, with the value of each for the log. It keeps the memory of stateful losses.

    Args:
        losses: losses by name; those with weight 0 are ignored.
        rules: number of rules whose negatives can occur, for losses with a memory per rule.

    Raises:
        InputError: every loss has weight 0, or something else was given instead of losses by name or of `rules`.
    """

    def __init__(self, losses: Mapping[str, AnyLoss], *, rules: int = 1) -> None:
        if not hasattr(losses, "items"):
            raise InputError("Objective: give the losses by name, for example {'contrastive': Contrastive()}.")
        try:
            count = operator.index(rules)
        except TypeError:
            count = -1
        if count < 0:
            raise InputError(f"Objective: rules is {cut_short(repr(rules), 80)}; it must be the number of rules.")
        for name, loss in losses.items():
            if isinstance(loss, type):
                raise InputError(f"Objective: {name!r} is the class {loss.__name__}; pass {loss.__name__}().")
            if not isinstance(loss, AnyLoss):
                raise InputError(f"Objective: {name!r} is of type {type(loss).__name__}; it must be a loss.")
        self.active = {name: loss for name, loss in losses.items() if loss.weight > 0}
        if not self.active:
            raise InputError("all losses of the objective have weight 0; set at least one weight above 0.")
        self.memory: dict[str, Memory] = {
            name: loss.start(int(count)) for name, loss in self.active.items() if isinstance(loss, StatefulLoss)
        }
        for name, tensor in tensors_of(self.memory).items():
            if not isinstance(tensor, Tensor):  # The parameters in it would not be trained.
                raise InputError(
                    f"{name}: the loss's start returned {type(tensor).__name__}; it must return a tensor, or a "
                    "dictionary of tensors."
                )
        self._wanted = wanted_by("Objective", self.active.values())
        self.needs = self._wanted.needs
        """The parts of the teacher's embeddings that the active losses read; if empty, no teacher is run."""
        self.reads = self._wanted.reads
        """The optional parts of the student's embeddings that the active losses read."""
        self.reads_texts = self._wanted.captions or bool(inputs_of(self.reads, kind="text"))
        """Whether any active loss reads a text embedding; if not, no text is embedded."""
        of = with_sources(self.reads)
        self.outputs: dict[str, Any] = {
            "dense": "tokens" in of, "raw": "raw_image" in of, "state": "reconstruction" in of
        }  # fmt: skip
        """The additional tower outputs that the active losses read, as options of `Encoder.embed`."""

    @property
    def learnt(self) -> dict[str, nn.Parameter]:
        """The memories that an optimiser changes, as `tensors_of` names them."""
        return {name: value for name, value in tensors_of(self.memory).items() if isinstance(value, nn.Parameter)}

    @property
    def lr_multiples(self) -> dict[nn.Parameter, float]:
        """The learning rate of each of `learnt`, as a multiple of the model's.

        Raises:
            InputError: a loss's `lr_multiple` is not a number above 0.
        """
        multiples: dict[nn.Parameter, float] = {}
        for name, memory in self.memory.items():
            multiple = cast(StatefulLoss, self.active[name]).lr_multiple
            learnt = [value for value in tensors_of({name: memory}).values() if isinstance(value, nn.Parameter)]
            if learnt and not allows(Positive, multiple):
                raise InputError(f"{name}: the loss's lr_multiple is {multiple!r}; it must be a number above 0.")
            multiples |= dict.fromkeys(learnt, multiple)
        return multiples

    def __call__(self, **tensors: Unpack[LossTensors]) -> tuple[LossValue, dict[str, LossValue]]:
        """Return the weighted sum and the unweighted value of each active loss (no gradient); update the memory.

        Args:
            tensors: tensors by name, as in `LossTensors`.

        Raises:
            InputError: a tensor that an active loss reads is missing, shapes do not match, or a loss of one's own
                returns no scalar tensor.
        """
        processes = Processes.current()
        student, teacher = embeddings_of(tensors, self._wanted, processes)
        with outside_autocast(student.image):
            return self.value(student, teacher, processes)

    def value(
        self, student: Embeddings, teacher: Target, processes: Processes
    ) -> tuple[LossValue, dict[str, LossValue]]:
        """Same as a call, for unit-length embeddings."""
        total = torch.zeros((), device=student.image.device, dtype=student.image.dtype)
        values: dict[str, Tensor] = {}
        for name, loss in self.active.items():
            if isinstance(loss, StatefulLoss):
                learnt = self.learnt
                result = loss.value(student, teacher, processes, self.memory[name])
                value, self.memory[name] = _value_and_memory(loss, result)
                after = self.learnt
                if any(after.get(each) is not parameter for each, parameter in learnt.items()):
                    raise InputError(f"{name}: {type(loss).__name__}.value must return its learnt memory as it got it.")
            else:
                value = cast(Loss, loss).value(student, teacher, processes)
            if not isinstance(value, Tensor) or value.ndim:
                what = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise InputError(
                    f"{name}: {type(loss).__name__}.value returned {what}; it must return a scalar tensor, for example "
                    "processes.mean(losses)."
                )
            values[name] = value.detach()
            total = total + loss.weight * value
        for memory in self.learnt.values():
            # Processes average its gradient, even if the loss of one of them did not read it.
            total = total + 0.0 * memory.sum()
        return total, values

    def value_without_update(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Return only the weighted sum, without updating the memory."""
        memory = self.memory
        # A loss may change its memory in place. What is learnt stays the same parameters, by which `value` checks it.
        self.memory = copy.deepcopy(memory, {id(parameter): parameter for parameter in self.learnt.values()})
        try:
            return self.value(student, teacher, processes)[0]
        finally:
            self.memory = memory
