"""Embed a batch with student and teacher, in the layout of the objective, some rows at a time.

A batch in parts uses gradient caching ("Scaling deep contrastive learning batch size under memory limited setup",
arXiv 2101.06983): all parts are embedded without a graph; the loss over all embeddings gives the gradient of each
embedding; then each part is embedded again, with a graph, through which the gradient of its embeddings is
backpropagated. Value and gradient are those of the whole batch, for any losses and any teacher, at the cost of one more
forward pass of the student.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from degla.data.batches import Batch, BatchPart
from degla.inputs import INPUTS
from degla.losses.core import Embeddings, Target, TeacherPart
from degla.losses.core.objective import Objective
from degla.model.encoder import Encoder, TowerOutputs
from degla.model.teacher import Teacher

RandomState = tuple[Tensor, list[Tensor]]


def embed_student(
    student: Callable[..., Any],
    encoder: Encoder,
    batch: Batch,
    parts: Sequence[BatchPart],
    *,
    objective: Objective,
    accelerator: Accelerator,
) -> tuple[Embeddings, Callable[[Tensor], None]]:
    """Return the student's embeddings of a batch, and a function that backpropagates a loss over them.

    Args:
        student: the student as wrapped for distributed training; processes exchange gradients once.
        encoder: the unwrapped student.
        batch: batch of this process.
        parts: all parts of the batch, in order; several are embedded with gradient caching.
        objective: determines which outputs of the towers are read.
        accelerator: determines the precision of the forward pass and the gradient scale.
    """
    if len(parts) > 1:
        cache = GradientCache(encoder, parts, accelerator=accelerator, objective=objective)
        embeddings = to_embeddings(cache.rows, scale=cache.scale, batch=batch, bias=cache.bias)
        return embeddings, lambda loss: cache.backward(loss, student)
    (part,) = parts
    *rows, scale, bias = _embed(student, part, objective)
    embeddings = to_embeddings([TowerOutputs(*rows)], scale=scale, batch=batch, bias=bias)
    # DDP waits for gradients of scale and bias, even if no loss reads them.
    unread = embeddings.scale + embeddings.extra.get("bias", 0.0)
    return embeddings, lambda loss: accelerator.backward(loss + 0.0 * unread)


def to_embeddings(
    rows: Sequence[TowerOutputs],
    *,
    scale: Float[Tensor, ""],
    batch: Batch,
    bias: Float[Tensor, ""] | None = None,
) -> Embeddings:
    """Join the parts of a batch, with each text at its row.

    Args:
        rows: outputs of the towers for each part; texts that no loss reads may be None and become zeros.
        scale: 1 over the temperature.
        batch: the batch of these parts.
        bias: bias of a model trained with a sigmoid loss.
    """
    columns: dict[str, list[Tensor]] = {}
    start = 0
    for outputs in rows:
        image, text = outputs.image, outputs.text
        assert image is not None
        part = _without_texts(image, batch) if text is None else batch.split(image, text, start=start)
        count = len(part["image"])
        start += count
        if outputs.patch is not None and outputs.token is not None:
            part |= _dense(outputs.patch, outputs.token, rows=slice(start - count, start), batch=batch)
        if outputs.raw_image is not None:
            part["raw_image"] = outputs.raw_image[:count]
        if outputs.state is not None:
            part["text_state"] = outputs.state[:count]
        for name, value in part.items():
            columns.setdefault(name, []).append(value)
    joined = {name: _join(values).float() for name, values in columns.items()}
    values = {name: value for name, value in batch.tensors().items() if INPUTS[name].kind == "value"}
    model = {"scale": scale.float()} | ({} if bias is None else {"bias": bias.float()})
    return Embeddings.of(joined | values | model)


def _without_texts(image: Tensor, batch: Batch) -> dict[str, Tensor]:
    negative = image.new_zeros(len(image), batch.negative.shape[1], image.shape[1])
    return {"image": image, "caption": torch.zeros_like(image), "negative": negative}


def _dense(patch: Tensor, token: Tensor, *, rows: slice, batch: Batch) -> dict[str, Tensor]:
    """Return patch and token outputs of one part, with all texts padded to the length of the batch."""
    token = torch.nn.functional.pad(token, (0, 0, 0, batch.caption.shape[1] - token.shape[1]))
    tokens = {f"{name}_token": value for name, value in batch.split_texts(token, rows=rows).items()}
    return {"patch": patch[: rows.stop - rows.start]} | {name: tokens[name] for name in tokens if name in INPUTS}


def teacher_target(
    teacher: Teacher | None,
    parts: Sequence[BatchPart],
    *,
    needs: frozenset[TeacherPart],
    negatives: int,
    raw: Sequence[Tensor] = (),
) -> Target:
    """Return the teacher's embeddings of the same images and texts, only those that some loss reads.

    Args:
        teacher: the teacher, or None.
        parts: parts of the batch, in order.
        needs: what the losses read.
        negatives: number of negatives per caption.
        raw: its image embeddings of each part before normalisation, if they are known already.
    """
    if teacher is None or not needs:
        return Target()
    columns: dict[str, list[Tensor]] = {name: [] for name in needs}
    for number, part in enumerate(parts):
        rows = part.rows.stop - part.rows.start
        texts = part.texts if "negative" in needs else part.captions if "caption" in needs else None
        alone = "image" in needs and "raw_image" not in needs and not raw
        image, text = teacher.encode(part.tower_input[:rows] if alone else None, texts)
        if "raw_image" in needs or ("image" in needs and raw):  # One pass gives both if both are read.
            own = raw[number][:rows] if raw else teacher.encode_raw_images(part.tower_input[:rows])
            if "raw_image" in needs:
                columns["raw_image"].append(own)
            image = torch.nn.functional.normalize(own, dim=-1)
        if "image" in needs and image is not None:
            columns["image"].append(image)
        if text is not None:
            if "caption" in needs:
                columns["caption"].append(text[:rows])
            if "negative" in needs:
                columns["negative"].append(torch.unflatten(text[rows : rows * (1 + negatives)], 0, (rows, negatives)))
    joined: dict[str, Any] = {name: _join(values) for name, values in columns.items()}
    return Target(**joined)


def _join(rows: Sequence[Tensor]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))


class GradientCache:
    """Embeddings of one step without a graph, as leaves on which the loss is computed.

    Args:
        encoder: the unwrapped student.
        parts: parts of the batch, in order.
        accelerator: determines the precision of the forward pass.
        objective: determines which outputs of the towers are read.

    Attributes:
        rows: embeddings of each part; leaves that collect the gradient of the loss.
        scale: the scale, a leaf as well.
        bias: the bias if the model has one, a leaf as well.
    """

    def __init__(
        self,
        encoder: Encoder,
        parts: Sequence[BatchPart],
        *,
        accelerator: Accelerator,
        objective: Objective,
    ) -> None:
        self.parts, self.accelerator, self.objective = parts, accelerator, objective
        self.rows: list[TowerOutputs] = []
        self._random: list[RandomState] = []
        for part in parts:
            self._random.append(_random_state(encoder.device))
            with torch.no_grad(), accelerator.autocast():
                rows = _embed(encoder.embed, part, objective)
            self.rows.append(TowerOutputs(*(None if each is None else each.requires_grad_() for each in rows)))
        self.scale: Float[Tensor, ""] = encoder.scale.detach().requires_grad_()
        self.bias: Float[Tensor, ""] | None = encoder.bias
        self.bias = None if self.bias is None else self.bias.detach().requires_grad_()

    def backward(self, loss: Float[Tensor, ""], student: Callable[..., Any]) -> None:
        """Backpropagate `loss` to the student's parameters.

        Args:
            loss: loss computed from `rows`, `scale` and `bias`.
            student: the student as wrapped for distributed training; processes exchange gradients once.
        """
        scaler = self.accelerator.scaler
        scaled: Tensor = loss if scaler is None else scaler.scale(loss)
        scaled.backward()
        after = _random_state(self.scale.device)
        # An output that no loss reads gets no gradient: with one of 0, weight decay would shrink its tower. Of one that
        # any part's rows are read of, the last part sends a gradient, too, since processes exchange theirs then.
        leaves = zip(*self.rows, strict=True)
        read = [any(leaf is not None and leaf.grad is not None for leaf in column) for column in leaves]
        for number, (part, rows) in enumerate(zip(self.parts, self.rows, strict=True)):
            last = number == len(self.parts) - 1
            _set_random_state(self._random[number], self.scale.device)
            together = contextlib.nullcontext() if last else self.accelerator.no_sync(student)
            with together:
                *values, scale, bias = _embed(student, part, self.objective)
                columns = zip(values, rows, read, strict=True)
                there = [(value, leaf) for value, leaf, wanted in columns if wanted and leaf is not None]
                sent = sum(_product(value, leaf) for value, leaf in there)
                # Scale and bias are shared by all parts; their gradients are sent with the last.
                sent = sent + _product(scale, self.scale) * float(last)
                if bias is not None and self.bias is not None:
                    sent = sent + _product(bias, self.bias) * float(last)
                if sent.requires_grad:
                    sent.backward()
        _set_random_state(after, self.scale.device)


def _embed(towers: Callable[..., Any], part: BatchPart, objective: Objective) -> Any:
    """Return the outputs of the towers for a part, only those that are read; defaults are not passed as arguments."""
    places = {} if part.kept is None else {"places": part.kept}
    return towers(part.tower_input, part.texts if objective.reads_texts else None, **objective.outputs, **places)


def _product(value: Tensor, leaf: Tensor) -> Tensor:
    """Return a scalar whose gradient with respect to `value` is that of the loss with respect to `leaf`."""
    return (value.float() * (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)).sum()


def _random_state(device: torch.device) -> RandomState:
    return torch.get_rng_state(), [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []


def _set_random_state(state: RandomState, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    for own in state[1]:
        torch.cuda.set_rng_state(own, device)
