"""Finds the images that a model sees as similar: captions of theirs are the hard images of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from degla.data.neighbours import NeighbourRecord
from degla.data.randomness import stream
from degla.errors import InputError
from degla.evaluation.embed import Embedder
from degla.evaluation.models import EmbeddingModel
from degla.evaluation.scoring import EmbeddingRows
from degla.progress import TaskProgress
from degla.records import CaptionRecord, ItemImage

_BLOCK = 1024
"""Images whose similarities to all others are held at a time."""


def find_neighbours(
    captions: Sequence[CaptionRecord],
    *,
    folder: Path,
    encoder: EmbeddingModel,
    count: int,
    seed: int = 0,
    progress: TaskProgress | None = None,
) -> Iterator[NeighbourRecord]:
    """For each caption, one caption of each of the images nearest to its own by cosine, the nearest first.

    Which caption of an image is a draw from the seed. Images with equal bytes are one, and never neighbours.

    Args:
        captions: of all images.
        folder: what image paths are relative to.
        encoder: the model that says what is similar.
        count: neighbours a caption, 1 or more.
        seed: of the draws.
        progress: where to show how far the embedding is.

    Raises:
        InputError: an image cannot be read, or there are not more images than neighbours.
    """
    embedder = Embedder(encoder, root=folder, progress=progress or TaskProgress())
    images = [ItemImage(path=caption.image) for caption in captions]
    embedded = embedder.embed(images, [])
    row_of = [embedded.image_row[image] for image in images]
    if len(embedded.images) <= count:
        raise InputError(
            f"{count} neighbours a caption are wanted, but the captions are about {len(embedded.images)} different "
            "images. Ask for fewer (--count), or give captions of more images."
        )
    owners: dict[int, list[str]] = {}
    for row, caption in zip(row_of, captions, strict=True):
        owners.setdefault(row, []).append(caption.id)
    nearest = nearest_rows(embedded.images, count=count)
    for index, (row, caption) in enumerate(zip(row_of, captions, strict=True)):
        rng = stream("neighbour captions", seed=seed, epoch=0, index=index)
        chosen = tuple(rng.choice(owners[near]) for near in nearest[row].tolist())
        yield NeighbourRecord(caption_id=caption.id, neighbours=chosen)


def nearest_rows(rows: EmbeddingRows, *, count: int) -> NDArray[np.int64]:
    """The `count` other rows with the largest product with each unit row, the largest first: [rows, count]."""
    found = np.empty((len(rows), count), dtype=np.int64)
    for start in range(0, len(rows), _BLOCK):
        products = rows[start : start + _BLOCK] @ rows.T
        own = np.arange(len(products))
        products[own, start + own] = -np.inf
        top = np.argpartition(-products, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(products, top, axis=1), axis=1, kind="stable")
        found[start : start + _BLOCK] = np.take_along_axis(top, order, axis=1)
    return found
