"""What a step will need in memory: counted where it can be, measured on a few pairs where not."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from degla.data.batches import Batch
from degla.model.heap import main_memory
from degla.training.step import Stream, Trainer


def estimate_memory(trainer: Trainer, stream: Stream, batch: Batch) -> tuple[int, int]:
    """Bytes that any batch needs, and bytes of each pair that is embedded with a graph.

    The first are weights, gradients, Adam's two moments, the teacher, what L2-SP pulls back to, and in main memory
    the start of a run that averages; the second the tensors that the backward pass needs, each counted once, measured
    on `batch` of `stream`.
    """
    trained = sum(value.numel() for value in trainer.encoder.parameters() if value.requires_grad)
    weights = {value.data_ptr(): value.numel() for value in trainer.encoder.parameters()}
    if trainer.teacher is not None:
        weights |= {value.data_ptr(): value.numel() for value in trainer.teacher.encoder.parameters()}
    copies = trained if trainer.l2_sp is not None else 0
    if trainer.config.train.average not in (None, 1) and trainer.encoder.device.type == "cpu":
        copies += sum(value.numel() for value in trainer.encoder.parameters())
    fixed = 4 * (sum(weights.values()) + 3 * trained + copies)

    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    (part,) = batch.parts(len(batch))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        texts = part.texts if stream.objective.reads_texts else None
        rows = trainer.student(part.image, texts, **stream.objective.outputs)
    del rows
    return fixed, sum(kept.values()) // len(batch)


def available_memory(device: torch.device) -> int:
    """Bytes that are free on the GPU, or in main memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return main_memory()
