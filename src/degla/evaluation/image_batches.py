"""Some of a benchmark's pictures, batch by batch, for measurements that need pixels and not kept embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from degla.evaluation.pictures import decode_item, read_picture
from degla.model.encoder import Encoder
from degla.records import ItemImage


def drawn_numbers(count: int, most: int | None, *, key: str) -> list[int]:
    """The numbers below `count`, sorted; at most `most` of them, drawn at random."""
    return list(range(count)) if most is None or most >= count else sorted(Random(key).sample(range(count), most))


def open_images(
    encoder: Encoder,
    images: Sequence[ItemImage],
    numbers: Sequence[int],
    *,
    root: Path,
    size: int,
    advance_by: AbstractContextManager[Callable[[int], None]],
) -> Iterator[tuple[list[int], Tensor]]:
    """Images by their numbers, opened, transformed and on the model's device, some at a time.

    Args:
        encoder: whose transform it is.
        images: of which some are opened.
        numbers: which.
        root: folder that their paths are relative to.
        size: how many at a time.
        advance_by: of `TaskProgress.task`.
    """
    with advance_by as advance:
        for start in range(0, len(numbers), size):
            batch = list(numbers[start : start + size])
            content = [(images[number], read_picture(root, images[number].path)) for number in batch]
            pixels = [encoder.transform(decode_item(read, root, image)) for image, read in content]
            yield batch, torch.stack(pixels).to(encoder.device)
            advance(len(batch))
