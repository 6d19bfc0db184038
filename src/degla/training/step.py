"""One training step: embeddings, objective, gradients, optimiser, clamp, teacher - in this order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

from degla.config.run import TrainConfig
from degla.data.batches import Batch, BatchPart
from degla.losses.core import Embeddings, Processes, Target
from degla.losses.core.objective import Objective
from degla.model.average import average_weights
from degla.model.encoder import Encoder
from degla.model.teacher import Teacher
from degla.training.anchor import Anchor
from degla.training.attack import Attack
from degla.training.caching import GradientCache
from degla.training.embed import teacher_target, to_embeddings
from degla.training.finite import FiniteWatch
from degla.training.optim import bare, learning_rate
from degla.training.sharding import Sharding


@dataclass
class Trainer:
    """All that one step needs. No step waits for the device; `watch` says later whether all losses were finite.

    Attributes:
        encoder: the bare student.
        student: the student as wrapped for the processes at hand.
        teacher: None where no loss of the objective needs one.
        steps: length of the whole run.
        log_scale_limit: largest logarithm of the scale.
        watch: the losses that nobody has looked at yet.
        sharding: where the processes share student and teacher out; else None.
        rehearsal: the same student, teacher and optimiser under the objective of the second stream of pairs; else None.
        anchor: where weights are pulled back to the start; else None.
        start: the model before training, where its average with the student is what is kept for use; else None.
    """

    config: TrainConfig
    accelerator: Accelerator
    encoder: Encoder
    student: torch.nn.Module
    teacher: Teacher | None
    objective: Objective
    optimizer: torch.optim.Optimizer
    processes: Processes
    steps: int
    log_scale_limit: float
    watch: FiniteWatch = field(default_factory=FiniteWatch)
    sharding: Sharding | None = None
    start: Encoder | None = None
    rehearsal: Trainer | None = None
    anchor: Anchor | None = None

    def step(self, batch: Batch, *, number: int, rehearsed: Batch | None = None) -> dict[str, Tensor | float]:
        """Take step `number` (from 0) on one batch; returns what to log, averaged over processes.

        Args:
            batch: of the pairs.
            number: of the step.
            rehearsed: batch of the second stream, where there is one.
        """
        rate = learning_rate(number, steps=self.steps, config=self.config.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        loss, values = self.backward_all(batch, rehearsed, number=number)
        shown = self.processes.total(torch.stack([loss, *values.values()])) / self.processes.count
        self.watch.note(number + 1, loss=shown[0], ids=batch.ids + (() if rehearsed is None else rehearsed.ids))

        if self.config.optim.clip_norm is not None:
            if self.sharding is not None:
                self.sharding.clip_gradients(self.config.optim.clip_norm)
            else:
                self.accelerator.clip_grad_norm_(self.student.parameters(), self.config.optim.clip_norm)
        self.update(shown[0])
        if self.teacher is not None:
            decay = self.config.teacher.decay_at(number, steps=self.steps)
            self.teacher.update(self.encoder, decay=decay)
        model = {"scale": self.encoder.scale.detach()}
        if self.encoder.bias is not None:
            model["bias"] = self.encoder.bias.detach().clone()
        return {"loss": shown[0], **dict(zip(values, shown[1:], strict=True)), "lr": rate, **model}

    def backward_all(self, batch: Batch, rehearsed: Batch | None, *, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        """As `backward`, with rehearsal and anchor added: theirs come first, for the anchor reads the rehearsal's."""
        loss = torch.zeros((), device=self.encoder.device)
        told: dict[str, Tensor] = {}
        if self.rehearsal is not None:
            assert rehearsed is not None
            loss, values = self.rehearsal.backward(rehearsed, number=number)
            told = {f"rehearsal.{name}": value for name, value in values.items()}
        if self.anchor is not None:
            told["anchor"] = self.anchor.pull()
            loss = loss + self.anchor.config.weight * told["anchor"]
        own, values = self.backward(batch, number=number)
        return own + loss, values | told

    def backward(self, batch: Batch, *, number: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and values of the losses in step `number`, without gradient; the parameters hold the gradients."""
        parts = list(batch.parts(self.part_size(batch)))
        target = self._target(parts, negatives=batch.negative.shape[1])
        if self.config.attack.epsilon:
            # Behind the target: the teacher sees the images as they are.
            parts = self.attack(batch, parts, target, number=number)
        if len(parts) == 1:
            student = self._student_embeddings(batch, parts[0])
            loss, values = self.objective.value(student, target, self.processes)
            # Processes wait for gradients of scale and bias, also where no loss reads them.
            unread = student.scale + student.extra.get("bias", 0.0)
            self.accelerator.backward(loss + 0.0 * unread)
        else:
            cache = GradientCache(
                self.encoder, parts, accelerator=self.accelerator,
                texts=self.objective.reads_texts, dense=self.dense, raw=self.raw,
            )  # fmt: skip
            student = to_embeddings(cache.rows, scale=cache.scale, batch=batch, bias=cache.bias)
            loss, values = self.objective.value(student, target, self.processes)
            cache.backward(loss, self.student)
        if self.sharding is not None:
            self.sharding.average_gradients()
        return loss.detach(), values

    @property
    def memory(self) -> dict[str, Tensor]:
        """What the losses remember from step to step, by name."""
        second = {} if self.rehearsal is None else self.rehearsal.memory
        return self.objective.memory | {f"rehearsal.{name}": value for name, value in second.items()}

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Put back what `memory` gave."""
        for name, value in memory.items():
            own = name.removeprefix("rehearsal.")
            if own == name:
                self.objective.memory[name] = value
            elif self.rehearsal is not None:
                self.rehearsal.recall({own: value})

    @property
    def dense(self) -> bool:
        """Whether a loss reads the outputs of patches and tokens."""
        return "tokens" in self.objective.reads

    @property
    def raw(self) -> bool:
        """Whether a loss reads images before they are brought to length one."""
        return "raw_image" in self.objective.reads

    @property
    def attack(self) -> Attack:
        """What raises the objective before the step lowers it."""
        return Attack(self.config.attack, self.encoder, self.objective, self.processes, seed=self.config.train.seed)

    @contextmanager
    def whole(self, *, everywhere: bool = True) -> Iterator[tuple[Encoder, Teacher | None]]:
        """Student and teacher with all of their weights, in this process or only in the first."""
        if self.sharding is None:
            yield self.encoder, self.teacher
        else:
            with self.sharding.whole(everywhere=everywhere) as models:
                yield models

    def kept(self, student: Encoder) -> Encoder:
        """The model for use that a whole student stands for: itself, or its average with the model before training."""
        share = self.config.train.average
        if self.start is None or share is None:
            return student
        averaged = average_weights(self.start, student, share=share).to(self.encoder.device)
        averaged.precision = student.precision
        return averaged

    def part_size(self, batch: Batch) -> int:
        """Pairs of this process that are embedded at a time."""
        return min(self.config.train.chunk_size or len(batch), len(batch))

    def update(self, loss: Tensor) -> None:
        """The optimiser's step and the clamp of the scale.

        Where `loss` is not finite no parameter moves: the fused kernel sees to that on the device.
        """
        optimizer = bare(self.optimizer)
        if self.accelerator.scaler is None and getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.found_inf = (~torch.isfinite(loss)).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        scale = self.encoder.clip.logit_scale
        if scale.requires_grad:  # A frozen one stays, whatever it is.
            with torch.no_grad():
                scale.clamp_(0.0, self.log_scale_limit)

    def _student_embeddings(self, batch: Batch, part: BatchPart) -> Embeddings:
        texts = part.texts if self.objective.reads_texts else None
        *rows, scale, bias = self.student(part.image, texts, dense=self.dense, raw=self.raw)
        return to_embeddings([rows], scale=scale, batch=batch, bias=bias)

    def _target(self, parts: list[BatchPart], *, negatives: int) -> Target:
        with self.accelerator.autocast():
            return teacher_target(self.teacher, parts, needs=self.objective.needs, negatives=negatives)
