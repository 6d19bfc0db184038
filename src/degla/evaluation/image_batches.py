"""Some of a benchmark's pictures, batch by batch, for measurements that need pixels and not kept embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from degla.evaluation.pictures import decode_item, read_picture
from degla.evaluation.results import provenance_of
from degla.model.encoder import Encoder
from degla.progress import TaskProgress
from degla.records import ItemImage
from degla.version import __version__


def about_sample(encoder: Encoder, label: str | None, *, images: int | None, seed: int) -> dict[str, Any]:
    """The fields of `results.SampledResult`; `label` is the model's name where there is none."""
    return {
        "model": provenance_of(encoder, label, encoder.fingerprint),
        "images": images,
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"degla": __version__, "torch": torch.__version__},
    }


def drawn_numbers(count: int, most: int | None, *, key: str) -> list[int]:
    """The numbers below `count`, sorted; at most `most` of them, drawn at random."""
    return list(range(count)) if most is None or most >= count else sorted(Random(key).sample(range(count), most))


def open_images(
    encoder: Encoder,
    images: Sequence[ItemImage],
    numbers: Sequence[int],
    *,
    root: Path,
    progress: TaskProgress,
    name: str,
    size: int = 0,
) -> Iterator[tuple[list[int], Tensor]]:
    """Images by their numbers, opened, transformed and on the model's device, some at a time.

    Args:
        encoder: whose transform it is.
        images: of which some are opened.
        numbers: which.
        root: folder that their paths are relative to.
        progress: where to show how far it is.
        name: of the task.
        size: how many at a time; 0: 32 on a processor, else 128.
    """
    size = size or (32 if encoder.device.type == "cpu" else 128)
    with progress.task(name, len(numbers)) as advance:
        for start in range(0, len(numbers), size):
            batch = list(numbers[start : start + size])
            content = [(images[number], read_picture(root, images[number].path)) for number in batch]
            pixels = [encoder.transform(decode_item(read, root, image)) for image, read in content]
            yield batch, torch.stack(pixels).to(encoder.device)
            advance(len(batch))
