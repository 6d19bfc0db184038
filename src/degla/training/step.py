"""One training step on one screen: embeddings, losses, gradients, optimiser, teacher - in this order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from degla.config.run import TrainConfig
from degla.data.batches import Batch
from degla.errors import InputError
from degla.losses.core import Embeddings, Processes
from degla.losses.core.objective import Objective
from degla.model.encoder import Encoder
from degla.model.teacher import Teacher
from degla.model.trained_along import TextDecoder, WordPredictor
from degla.training.attack import Attack
from degla.training.embed import embed_student, teacher_target
from degla.training.image_parts import Evidence, Views
from degla.training.optim import L2SP, LR_MULTIPLE, bare, learning_rate
from degla.training.sharding import Sharding


@dataclass
class Stream:
    """What is minimised on the batches of one stream of pairs; `attack`, if any, first changes their images."""

    objective: Objective
    part_size: int | None = None
    """Number of pairs of a process embedded at a time; all by default."""
    attack: Attack | None = None
    views: Views | None = None
    """Samples the patches that the student reads, if it does not read all."""
    evidence: Evidence | None = None
    """Adds the part of each image with the evidence for its caption, if a loss reads it."""
    shared_blocks: int = 0
    """Number of frozen first blocks of the image tower, which run once for all passes of student and teacher."""


@dataclass
class Trainer:
    """Everything that one step needs. Hardly any step waits for the device: `docs/training.md` lists those that do.

    Attributes:
        encoder: the unwrapped student.
        student: the student as wrapped for distributed training.
        teacher: the teacher, or None if no loss needs one.
        main: the main stream of the run.
        replay: a second stream, whose gradients are added or which has every other step, or None.
        l2_sp: pull of the weights towards the start, or None.
        sharding: FSDP sharding of student and teacher, or None.
        steps: length of the whole run.
        log_scale_limit: largest logarithm of the scale.
        decoder: text decoder that a loss of `main` uses, with a jointly trained map, or None.
        predictor: predictor of masked words with the mask token, if a loss of `main` uses either, else None.
        learnt: memories of the streams' losses that are parameters, or None.
    """

    config: TrainConfig
    accelerator: Accelerator
    processes: Processes
    encoder: Encoder
    student: torch.nn.Module
    teacher: Teacher | None
    optimizer: torch.optim.Optimizer
    main: Stream
    replay: Stream | None
    l2_sp: L2SP | None
    sharding: Sharding | None
    steps: int
    log_scale_limit: float
    decoder: TextDecoder | None = None
    predictor: WordPredictor | None = None
    learnt: torch.nn.Module | None = None

    @property
    def along(self) -> dict[str, torch.nn.Module]:
        """Modules trained jointly with the student but not part of it, by their names in checkpoints."""
        modules = {"decoder": self.decoder, "predictor": self.predictor, "learnt": self.learnt}
        return {name: module for name, module in modules.items() if module is not None}

    def step(self, batch: Batch | None, *, step: int, replayed: Batch | None = None) -> dict[str, Tensor | float]:
        """Take a step on a batch of each stream; return values to log, averaged over processes.

        Args:
            batch: batch of the main stream; None if it is the other stream's turn.
            step: number of the step, from 0.
            replayed: batch of the replay stream; None if it is not its turn or nothing is replayed.
        """
        rate = learning_rate(step, steps=self.steps, config=self.config.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get(LR_MULTIPLE, 1.0)
        loss, values = self.gradients(batch, replayed, step=step)
        mean = self.processes.total(torch.stack([loss, *values.values()])) / self.processes.count
        self.update(mean[0])
        if self.teacher is not None:
            self.teacher.update(self.encoder, decay=self.config.teacher.decay_at(step, steps=self.steps))
        return {"loss": mean[0], **dict(zip(values, mean[1:], strict=True)), "lr": rate} | self._model_values()

    def _model_values(self) -> dict[str, Tensor]:
        """Return the values to log of the model as it is now: scale, bias, and learnt memories of a single number."""
        model = {"scale": self.encoder.scale.detach()}
        if self.encoder.bias is not None:
            model["bias"] = self.encoder.bias.detach().clone()
        for prefix, stream in (("", self.main), ("replay.", self.replay)):
            for name, value in stream.objective.learnt.items() if stream is not None else ():
                if value.numel() == 1:
                    owner, _, one = name.partition("/")
                    model[f"{prefix}{owner}.{one or 'memory'}"] = value.detach().clone().squeeze()
        return model

    def gradients(self, batch: Batch | None, replayed: Batch | None, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the gradients of all losses in the parameters; return the total loss and the value of each."""
        loss, values = torch.zeros((), device=self.encoder.device), dict[str, Tensor]()
        if self.replay is not None and replayed is not None:
            loss, replay_values = self.backward(replayed, self.replay, step=step)
            values |= {f"replay.{name}": value for name, value in replay_values.items()}
        if self.l2_sp is not None:  # After the replay: it may weight parameters by their gradient from it.
            values["l2_sp"] = self.l2_sp.pull()
            loss = loss + self.l2_sp.config.weight * values["l2_sp"]
        if batch is None:
            return loss, values
        main_loss, main_values = self.backward(batch, self.main, step=step)
        return main_loss + loss, main_values | values

    def backward(
        self, batch: Batch, stream: Stream | None = None, *, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradients of one stream; return its total loss and the value of each of its losses, detached."""
        stream = stream or self.main
        parts, objective = list(batch.parts(stream.part_size)), stream.objective
        raw: list[Tensor] = []
        with self.accelerator.autocast():
            # Before the target, which reuses embeddings of the pass that gave the teacher's attention.
            if stream.views is not None:
                parts, raw = stream.views(parts, self.teacher, step=step)
            elif blocks := stream.shared_blocks:  # Before the target, whose teacher reads them, too.
                parts = [replace(part, frozen=self.encoder.run_frozen(part.image, blocks)) for part in parts]
            target = teacher_target(
                self.teacher, parts, needs=objective.needs, negatives=batch.negative.shape[1], raw=raw
            )
            # After the target, whose captions it reads; parts anew, since the student embeds the images it adds.
            if stream.evidence is not None and self.teacher is not None:
                batch = stream.evidence(batch, parts, self.teacher, target, step=step)
                parts = list(batch.parts(stream.part_size))
        # After the target: the teacher gets the clean images. After the evidence: the images it adds are attacked, too.
        if stream.attack is not None:
            parts = stream.attack(batch, parts, target, step=step)
        student, backpropagate = embed_student(
            self.student, self.encoder, batch, parts, objective=objective, accelerator=self.accelerator
        )
        if self.decoder is not None and "reconstruction" in objective.reads:
            student = self._with_decoder_losses(student, self.decoder)
        if self.predictor is not None and "prediction" in objective.reads:
            student = self._with_predictor_losses(student, batch, self.predictor)
        loss, values = objective.value(student, target, self.processes)
        backpropagate(loss)
        if isinstance(self.student, DistributedDataParallel):
            _require_all_read(self.student)
        if self.processes.count > 1:
            for parameter in chain(*(module.parameters() for module in self.along.values())):
                # These modules are not wrapped for data-parallel training.
                if parameter.grad is not None:
                    parameter.grad = self.processes.total(parameter.grad) / self.processes.count
        if self.sharding is not None:
            self.sharding.average_gradients()
        return loss.detach(), values

    def _with_decoder_losses(self, student: Embeddings, decoder: TextDecoder) -> Embeddings:
        """Return the embeddings with the decoder's losses on the target texts."""
        with self.accelerator.autocast():
            losses, valid = decoder(student.require("text_state"), student.require("target"))
        return replace(student, extra={**student.extra, "reconstruction": losses, "reconstruction_valid": valid})

    def _with_predictor_losses(self, student: Embeddings, batch: Batch, predictor: WordPredictor) -> Embeddings:
        """Return the embeddings with the predictor's losses on the masked words."""
        with self.accelerator.autocast():
            token, patch, image = map(student.require, ("masked_token", "patch", "raw_image"))
            end = student.require("caption_token_valid").sum(dim=1)
            losses, valid = predictor(token, patch, image, caption=batch.caption, masked=batch.extra["masked"], end=end)
        return replace(student, extra={**student.extra, "prediction": losses, "prediction_valid": valid})

    def update(self, loss: Tensor) -> None:
        """Clip the gradients, step, and clamp the scale. If `loss` is not finite, no parameter changes."""
        limit, optimizer = self.config.optim.clip_norm, bare(self.optimizer)
        if limit is not None and self.sharding is not None:
            self.sharding.clip_gradients(limit)
        elif limit is not None:
            along = chain(*(module.parameters() for module in self.along.values()))
            self.accelerator.clip_grad_norm_([*self.student.parameters(), *along], limit)
        if self.accelerator.scaler is None and getattr(optimizer, "_step_supports_amp_scaling", False):
            # The fused kernel checks it on the device.
            optimizer.found_inf = (~torch.isfinite(loss)).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        scale = self.encoder.clip.logit_scale
        if scale.requires_grad:  # A frozen scale stays, whatever its value.
            with torch.no_grad():
                scale.clamp_(0.0, self.log_scale_limit)


def _require_all_read(student: DistributedDataParallel) -> None:
    """Refuse trained weights without a gradient: their share is not averaged over processes, and the next step fails.

    Raises:
        InputError: the losses of a stream do not read all trained weights.
    """
    try:
        student._check_reducer_finalized()
    except RuntimeError:
        raise InputError(
            "several processes cannot train weights that the losses on the pairs, or on the replayed pairs, do not "
            "read. Freeze that tower (--train.no-train-image-tower or --train.no-train-text-tower), or use "
            "--train.strategy fsdp."
        ) from None
